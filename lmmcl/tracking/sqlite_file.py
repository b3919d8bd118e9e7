"""MLflow's database in a file: created in one step, an incomplete one of ours quarantined, artifacts found where the store is now.

MLflow makes some fifty tables in several seconds. Killed meanwhile, it would refuse the file ever after; so they are made
in a private folder and the file is linked into its place when it is complete. MLflow also keeps the absolute place of its
artifacts; in a store that was moved or copied they would be written to the old one.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from lmmcl.errors import UserError
from lmmcl.ledger.owners import is_written, private_name
from lmmcl.tracking.database import sqlite_uri
from lmmcl.tracking.sweep_identity import ORIGIN_TAG, SweepIdentity

log = logging.getLogger(__name__)

PRIVATE = "lmmcl-mlflow"
ARTIFACTS = "/mlflow-artifacts"
_OURS = "experiment_id IN (SELECT experiment_id FROM experiment_tags WHERE key = 'lmmcl.kind' AND value IN ('sweep', 'reports'))"

_OF_ORIGIN = (
    "SELECT e.experiment_id, e.name FROM experiments e JOIN experiment_tags t ON t.experiment_id = e.experiment_id "
    f"WHERE e.lifecycle_stage = 'active' AND t.key = '{ORIGIN_TAG}' AND t.value = ?"
)


def prepare_database(file: Path, artifact_location: str | None) -> None:
    """Make the database `file` where there is none.

    With `artifact_location` it is the store's own: one that a kill has left incomplete, or that is damaged, is quarantined
    first, and artifacts of a moved store are kept there from now on. Any other file is left as it is. Raises UserError when
    another version of MLflow made it, which `mlflow db upgrade` may mend.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    ours = artifact_location is not None
    if file.exists() and (fault := _fault_of(file)) is not None:
        if not ours:
            raise UserError(
                f"MLflow cannot use this database: it {fault}. Name another with --mlflow, or move it away",
                file=str(file),
            )
        _put_aside(file, fault)
    if not file.exists():
        _make(file)
    _check_version(file)
    if artifact_location is not None:
        _move_artifacts(file, artifact_location)


def find_experiment(file: Path, sweep: SweepIdentity) -> tuple[str, str] | None:
    """Id and name of the experiment that a database has of a sweep, read without MLflow; None where it is not there.

    It is the first of the sweep's names (numbered where another sweep's has it) whose origin is the sweep's.
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=5)) as database:
            rows = database.execute(_OF_ORIGIN, (sweep.origin,)).fetchall()
    except sqlite3.Error:
        return None
    numbers = re.compile(rf"{re.escape(sweep.name)}(-\d+)?")
    named = [(str(id), name) for id, name in rows if numbers.fullmatch(name)]
    return min(named, key=lambda row: (len(row[1]), row[1]), default=None)


@contextmanager
def no_stray_folder(uri: str, file: Path) -> Iterator[None]:
    """MLflow makes the folder of the URI as it is written; where that has `%25` for `%`, it is another one: removed if empty."""
    written = Path(uri.split("://", 1)[1].removeprefix("/").split("?")[0]).parent
    missing = (
        [folder for folder in (written, *written.parents) if not folder.exists()] if written != file.parent else []
    )
    try:
        yield
    finally:
        with suppress(OSError):
            for folder in missing:
                folder.rmdir()


def _fault_of(file: Path) -> str | None:
    """What makes a file no database of MLflow's that was ever used, or None."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=20)) as database:
            verdict = database.execute("PRAGMA quick_check(1)").fetchone()
            if verdict is None or verdict[0] != "ok":
                return "is damaged"
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables:
                return "is empty"
            if "runs" in tables and database.execute("SELECT 1 FROM runs LIMIT 1").fetchone():
                return None
            return None if _version(database, tables) == _newest_version() else "is incomplete and holds no run"
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "unable to open" in str(error):  # in use, or no permission: MLflow will tell
            return None
        return f"is damaged ({error})"
    except sqlite3.DatabaseError as error:
        return f"is damaged ({error})"


def _version(database: sqlite3.Connection, tables: set[str]) -> str | None:
    row = (
        database.execute("SELECT version_num FROM alembic_version").fetchone() if "alembic_version" in tables else None
    )
    return row[0] if row else None


def _newest_version() -> str:
    """The schema that the installed MLflow works with."""
    import mlflow.store
    from alembic.script import ScriptDirectory

    head = ScriptDirectory(str(Path(mlflow.store.__path__[0], "db_migrations"))).get_current_head()
    assert head is not None, "MLflow's migrations have one head"
    return head


def _check_version(file: Path) -> None:
    with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=20)) as database:
        version = _version(database, {"alembic_version"})
    if version != _newest_version():
        raise UserError(
            "was made by another version of MLflow. If that was an older one: copy the file, then "
            f"`mlflow db upgrade {sqlite_uri(file)}`; otherwise install the newer one",
            file=str(file),
        )


def _put_aside(file: Path, fault: str) -> None:
    aside = file.with_name(f"{file.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    file.rename(aside)
    for suffix in ("-journal", "-wal", "-shm"):  # of the old file: SQLite would apply them to the new one
        with suppress(FileNotFoundError):
            file.with_name(file.name + suffix).rename(aside.with_name(aside.name + suffix))
    log.warning(
        "MLflow's database %s %s: kept as %s, and a new one is made. `lmmcl report SWEEP --mlflow URI` fills it with other sweeps",
        file,
        fault,
        aside.name,
    )


def _make(file: Path) -> None:
    """Have MLflow make its tables in a private folder, and put a complete copy in its place."""
    from mlflow import MlflowClient

    for folder in file.parent.glob(f"{PRIVATE}-*"):
        if is_written(folder) is False:  # of a process that was killed
            shutil.rmtree(folder, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=private_name(PRIVATE), dir=file.parent))
    try:
        database, copy = folder / "made.db", folder / "copy.db"
        uri = sqlite_uri(database)
        with no_stray_folder(uri, database):
            MlflowClient(tracking_uri=uri)
        # A copy: MLflow keeps a connection to the file that it has made.
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        with copy.open("rb") as written:
            os.fsync(written.fileno())
        try:
            os.link(copy, file)
        except FileExistsError:  # another machine was first
            pass
        except OSError:  # a file system without links
            copy.rename(file)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move_artifacts(file: Path, location: str) -> None:
    """Write `location` in the place of what our experiments have, where that is another store's folder of artifacts."""
    with closing(sqlite3.connect(file, timeout=20)) as database, database:
        olds = database.execute(f"SELECT DISTINCT artifact_location FROM experiments WHERE {_OURS}").fetchall()
        for (old,) in olds:
            if old and old != location and old.endswith(ARTIFACTS) and not _same(old, location):
                database.execute(
                    f"UPDATE experiments SET artifact_location = ? WHERE artifact_location = ? AND {_OURS}",
                    (location, old),
                )
                database.execute(
                    "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                    f"WHERE substr(artifact_uri, 1, ?) = ? AND {_OURS}",
                    (location, len(old) + 1, len(old) + 1, f"{old}/"),
                )


def _same(one: str, other: str) -> bool:
    """Whether two URIs lead to one folder: a share that is mounted at two places."""
    from lmmcl.ledger.store import local_path

    first, second = local_path(one), local_path(other)
    return first is not None and second is not None and first.exists() and second.exists() and first.samefile(second)
