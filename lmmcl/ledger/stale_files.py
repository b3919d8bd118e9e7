"""What killed processes left, in the store and in this node's folder: found, and deleted once nobody can be at work in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from lmmcl.config.cluster import ClaimSettings
from lmmcl.ledger.interface import LedgerAccess
from lmmcl.ledger.leases import Leases, forgotten
from lmmcl.ledger.owners import is_stale, is_written, key_of
from lmmcl.ledger.pending_record import private_folders
from lmmcl.steps import Step

RUNS = "runs"


def stale_files(ledger: LedgerAccess) -> list[Path]:
    """Folders that may be deleted.

    Private ones of this machine's processes that are gone; and what was unchanged for a week, if its process is not known to
    be alive and its step is not claimed: private folders of other machines, and, where the store is elsewhere, what on this
    node waits for an upload or to be resumed. With leases switched off only its age speaks for another machine's.
    """
    private = private_folders(ledger)
    dead = [folder for folder in private if is_written(folder) is False]
    return [*dead, *_forgotten(ledger, (folder for folder in private if folder not in dead)), *_of_node(ledger)]


def remove(folders: Iterable[Path]) -> None:
    """Delete folders; what another process deletes meanwhile is as good."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def tidy(ledger: LedgerAccess) -> None:
    """Delete all leftovers, and claims that were left a day ago."""
    remove(stale_files(ledger))
    for name in forgotten(ledger.files):
        with suppress(FileNotFoundError):
            ledger.files.remove(name)


def remove_finished_runs(ledger: LedgerAccess, steps: Mapping[str, Step]) -> None:
    """Delete what recorded steps (by key) had kept for being resumed: a process that ended between the two left it.

    What is claimed stays: weights that `lmmcl gc` dropped may be trained again just now.
    """
    claims = Leases(ledger.files, ClaimSettings())
    for key in sorted(_kept_runs(ledger) & steps.keys()):
        if ledger.has_usable(steps[key]) and claims.owner(key) is None:
            ledger.files.remove_folder(f"{RUNS}/{key}")
            if not ledger.is_local:
                remove([ledger.node.folder / RUNS / key])


def _kept_runs(ledger: LedgerAccess) -> set[str]:
    """Keys of the steps that kept something for being resumed, in the store or on this node."""
    folder = (ledger.files.at("") if ledger.is_local else ledger.node.folder) / RUNS
    here = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return here if ledger.is_local else here | {name.split("/")[0] for name in ledger.files.sizes(RUNS)}


def tidy_node(ledger: LedgerAccess) -> None:
    """Delete the leftovers in this node's folder."""
    remove(_of_node(ledger))


def _of_node(ledger: LedgerAccess) -> list[Path]:
    return [] if ledger.is_local else _forgotten(ledger, ledger.node.leavings())


def _forgotten(ledger: LedgerAccess, folders: Iterable[Path]) -> list[Path]:
    stale = [folder for folder in folders if is_stale(folder) and not is_written(folder)]
    claims = Leases(ledger.files, ClaimSettings())
    return [folder for folder in stale if claims.owner(key_of(folder)) is None]
