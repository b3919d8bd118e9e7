"""MLflow's database file is made whole at once; a half-made one of ours steps aside, and somebody else's is left alone."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from lmmcl.errors import UserError
from lmmcl.ledger.owners import private_name
from lmmcl.tracking import sqlite_file as module
from lmmcl.tracking.database import default_artifact_location, default_tracking_uri, sqlite_file, sqlite_uri
from lmmcl.tracking.tracker import Tracker, quiet_client


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a database of MLflow's, and one experiment with one run and one artifact."""
    store = tmp_path_factory.mktemp("made") / "a%20b [1]#?é"
    tracker = Tracker(default_tracking_uri(store), "birds", default_artifact_location(store))
    tracker.log_report([_file(tmp_path_factory.mktemp("page"), "an old page")])
    assert sorted(path.name for path in store.parent.iterdir()) == [store.name], "no folder by the URI's spelling"
    assert sorted(path.name for path in store.iterdir()) == ["mlflow-artifacts", "mlflow.db"]
    return store


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "copy")


def _file(folder: Path, text: str) -> Path:
    (folder / "index.html").write_text(text)
    return folder / "index.html"


def change(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        for statement in statements:
            database.execute(statement)


def half_made(file: Path) -> None:
    change(file, "DELETE FROM runs", "DELETE FROM alembic_version", "DROP TABLE webhooks")


def older(file: Path) -> None:
    change(file, "DELETE FROM runs", "UPDATE alembic_version SET version_num = '451aebb31d03'")


def zeros(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:100] + bytes(8000) + content[8100:])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "half made": half_made,
    "half made, at an older version": older,
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:5000]),
    "overwritten": zeros,
    "no database": lambda file: file.write_bytes(b"something else altogether " * 100),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_database_of_the_store_that_cannot_be_used_is_put_aside_and_made_again(
    damage: str, store: Path, made: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_make", lambda file: shutil.copy(made / "mlflow.db", file))  # seconds each
    file = store / "mlflow.db"
    DAMAGES[damage](file)
    before = file.read_bytes()
    tracker = Tracker(default_tracking_uri(store), "birds", default_artifact_location(store))
    assert tracker.experiment_id
    (aside,) = store.glob("mlflow.db.damaged-*")
    assert aside.read_bytes() == before, "what was there is kept"
    assert aside.name in caplog.text and "lmmcl report" in caplog.text


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_database_elsewhere_is_never_touched(damage: str, store: Path) -> None:
    file = store / "mlflow.db"
    DAMAGES[damage](file)
    before = file.read_bytes()
    with pytest.raises(UserError, match=r"mlflow\.db: MLflow cannot use this database.*--mlflow"):
        quiet_client(sqlite_uri(file))
    assert file.read_bytes() == before and not list(store.glob("*damaged*"))


def test_a_database_with_runs_of_another_version_stays_and_is_told(store: Path) -> None:
    change(store / "mlflow.db", "UPDATE alembic_version SET version_num = '451aebb31d03'")
    with pytest.raises(UserError, match=r"another version of MLflow.*mlflow db upgrade sqlite:///"):
        quiet_client(default_tracking_uri(store), default_artifact_location(store))


def test_a_kill_while_tables_are_made_leaves_no_database_and_the_next_run_clears_up(
    tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = tmp_path / f"{private_name(module.PRIVATE)}x".replace(str(os.getpid()), "4194304")
    killed.mkdir()
    (killed / "made.db").write_bytes(b"half")

    def breaks(tracking_uri: str) -> None:
        sqlite_file(tracking_uri).write_bytes(b"half of a database")  # type: ignore[union-attr]
        assert not (tmp_path / "mlflow.db").exists(), "nothing is in its place yet"
        raise OSError("killed here")

    monkeypatch.setattr("mlflow.MlflowClient", breaks)
    with pytest.raises(OSError, match="killed here"):
        module.prepare_database(tmp_path / "mlflow.db", None)
    assert not (tmp_path / "mlflow.db").exists() and not killed.exists()


def test_a_store_that_was_moved_keeps_its_artifacts_in_itself(store: Path, made: Path, tmp_path: Path) -> None:
    location = default_artifact_location(store)
    code = (
        "import sys; from pathlib import Path; from lmmcl.tracking.tracker import Tracker\n"
        "tracker = Tracker(sys.argv[1], 'birds', sys.argv[2])\n"
        "reports = tracker._client.get_experiment_by_name('lmmcl reports').experiment_id\n"
        "(run,) = tracker._client.search_runs([reports])\n"
        "print(run.info.artifact_uri, Path(tracker._client.download_artifacts(run.info.run_id, 'index.html')).read_text())\n"
        "tracker.log_report([Path(sys.argv[3])])"
    )
    # Another process, as in life: MLflow remembers in this one where the run's artifacts were.
    new = _file(tmp_path, "a new page")
    done = subprocess.run(
        [sys.executable, "-c", code, default_tracking_uri(store), location, str(new)], capture_output=True, text=True
    )
    assert done.stdout.startswith(f"{location}/") and done.stdout.strip().endswith("an old page"), done.stderr
    (written,) = store.glob("mlflow-artifacts/*/artifacts/index.html")
    assert written.read_text() == "a new page"
    (original,) = made.glob("mlflow-artifacts/*/artifacts/index.html")
    assert original.read_text() == "an old page", "the store that was copied keeps its own"


def test_a_file_and_its_uri_are_the_same_whatever_the_name() -> None:
    for name in ("/a b/x.db", "/a%20b/x.db", "/a#b?c/x.db", "/[x]é/x.db", "/100%/x.db"):
        assert sqlite_file(sqlite_uri(Path(name))) == Path(name)
