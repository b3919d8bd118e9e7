"""Folders of Ray and Tune: a run removes its own, and what runs that were killed have left.

Ray keeps the logs of every cluster that it starts, and Tune makes two folders for each trial. Over thousands of trials, and of
runs, they would fill a disk of small files.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.ledger.owners import is_stale, is_written, private_name
from lmmcl.temp_folder import user_temp_folder

KEPT_SESSIONS = 5
"""Ray's sessions of ended runs that stay, the newest ones, so that their logs can be looked at."""
IN_STORE = ".ray"
"""Where Tune's state is in a store: on several nodes, all must see it."""
_TUNE, _SESSION, _WORKING = "lmmcl-tune", "lmmcl-session", "working_dirs"
_left: list[Path] = []
"""The working folder of the trial that this process walks."""


@contextmanager
def tune_storage(ledger: Ledger, *, here: bool) -> Iterator[str]:
    """Where Tune keeps its own state: on this machine (`here`), or in the store. It is removed again, as nobody reads it."""
    parent = user_temp_folder() if here else ledger.files.at(IN_STORE) if ledger.is_local else None
    if parent is None:
        with _in_object_store(ledger) as storage:
            yield storage
        return
    parent.mkdir(parents=True, exist_ok=True)
    for folder in parent.glob("*" if not here else f"{_TUNE}-*"):
        if is_written(folder) is False or (is_written(folder) is None and is_stale(folder)):
            shutil.rmtree(folder, ignore_errors=True)
    own = Path(tempfile.mkdtemp(prefix=private_name(_TUNE), dir=parent))
    try:
        yield str(own)
    finally:
        shutil.rmtree(own, ignore_errors=True)


@contextmanager
def _in_object_store(ledger: Ledger) -> Iterator[str]:
    for name in {name.split("/")[0] for name in ledger.sizes(IN_STORE)}:
        if is_written(Path(name)) is False:
            ledger.files.remove_folder(f"{IN_STORE}/{name}")
    own = f"{IN_STORE}/{private_name(_TUNE)}0"
    try:
        yield f"{ledger.store}/{own}"
    finally:
        with suppress(UserError):  # a store that is away; the next run of this machine removes it
            ledger.files.remove_folder(own)


def own_session(session: Path) -> None:
    """Mark the folder of a Ray session as started by this process, and remove those of earlier runs but for the newest ones."""
    (session / f"{private_name(_SESSION)}0").touch()
    ended = [mark.parent for mark in session.parent.glob(f"session_*/{_SESSION}-*") if is_written(mark) is False]
    for folder in sorted(ended)[:-KEPT_SESSIONS]:  # their names begin with when they started
        shutil.rmtree(folder, ignore_errors=True)


def leave_working_folder() -> None:
    """Remove the working folder of the trial that this process walked before: Tune has moved to that of the next one."""
    here = Path.cwd()
    for folder in _left:
        if folder != here:
            remove_empty(folder)
    _left[:] = [here] if here.parent.name == _WORKING else []


def remove_empty(folder: Path) -> None:
    """Remove a folder that nothing was written into."""
    with suppress(OSError):
        folder.rmdir()
