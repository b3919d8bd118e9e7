"""Which store a command means, in a line, and the stores nearby in which the same sweep is finished already."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lmmcl.config.sweep import Sweep
from lmmcl.ledger import Ledger
from lmmcl.ledger.index.view import RecordView
from lmmcl.ledger.named_store import STORE_VARIABLE
from lmmcl.ledger.packs.packed_files import FOLDER as PACKS
from lmmcl.ledger.record import KINDS
from lmmcl.ledger.store import local_path
from lmmcl.search.run_context import RunContext
from lmmcl.search.search_state import search_states

MOST_FOLDERS = 500
"""Entries of a folder that are looked at: a store may lie beside thousands of others."""


@dataclass(frozen=True)
class StoreState:
    """The store of a sweep; `finished_in` are stores nearby that have all of the sweep where this one has not.

    `is_new` is whether a local store holds no checkpoint yet; of others that is not asked.
    """

    store: str
    is_new: bool
    finished_in: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What `plan` and `run` begin with."""
        notes = [
            f"note: this sweep is finished in {other}; to use what is there: --store {shlex.quote(other)}"
            for other in self.finished_in
        ]
        return [f"store   {self.store}{' (new)' if self.is_new else ''}", *notes]


def store_state(sweep: Sweep, ledger: Ledger, view: RecordView | None = None) -> StoreState:
    """The store that is meant; where it lacks a step of the sweep, stores nearby are looked through.

    `view` is of the same ledger, where somebody has looked into it already, or will.
    """
    is_new = ledger.is_local and not _is_store(ledger.files.at(""))
    # The first missing step decides, so that a look into a store costs little.
    finished = () if not is_new and _is_finished(sweep, ledger, view) else tuple(_finished(sweep, ledger))
    return StoreState(ledger.store, is_new, finished)


def _finished(sweep: Sweep, ledger: Ledger) -> Iterator[str]:
    others = (Ledger(str(folder)) for folder in _neighbours(sweep, ledger))
    return (other.store for other in others if _is_finished(sweep, other))


def _is_finished(sweep: Sweep, ledger: Ledger, view: RecordView | None = None) -> bool:
    """Whether all points of searches are proposed and all steps recorded."""
    if any(state.proposed < state.num_points for state in search_states(sweep, ledger)):
        return False
    view = view or RecordView(ledger)
    steps = RunContext.resolve(sweep, ledger, view.find).steps().values()
    view.prefetch(steps)
    return all(view.has(step) for step in steps)


def _neighbours(sweep: Sweep, ledger: Ledger) -> list[Path]:
    """Other local stores: those in the folder of the store, of the sweep file and of the command, and the one in LMMCL_STORE."""
    own = local_path(ledger.store)
    roots = [Path.cwd(), *([own.parent] if own else []), *([Path(sweep.file).parent] if sweep.file else [])]
    named = local_path(os.environ.get(STORE_VARIABLE) or "://")
    folders = [named.expanduser()] if named else []
    for root in dict.fromkeys(folder.resolve() for folder in roots):
        folders += _folders(root)
    stores = dict.fromkeys(folder.resolve() for folder in folders if _is_store(folder))
    return [folder for folder in stores if own is None or folder != own.resolve()]


def _is_store(folder: Path) -> bool:
    """Whether something is recorded in a folder."""
    return any((folder / name).is_dir() for name in (KINDS[0], PACKS))


def _folders(root: Path) -> list[Path]:
    """The folders in `root`; none where it may not be listed: a hint must not fail the command."""
    if not os.access(root, os.R_OK | os.X_OK):
        return []
    with os.scandir(root) as entries:
        return sorted(Path(entry.path) for entry in islice(entries, MOST_FOLDERS) if entry.is_dir())
