"""The single files of steps beside their packs: which may be packed, and their removal once they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress

from lmmcl.ledger.interface import LedgerAccess
from lmmcl.ledger.packs.packed_files import FOLDER
from lmmcl.ledger.packs.salvage import step_of
from lmmcl.ledger.record import ASIDE, KINDS, RECORD, WEIGHTS

LARGEST = 64 * 2**20
"""Bytes; a larger file, and weights of any size, stay single files."""
_UNFINISHED = re.compile(r"(.*/)\.([^/]+)\.[0-9a-f]{32}", re.DOTALL)
"""A file that is being written, until it gets its name."""


def single_files(ledger: LedgerAccess, checkpoints: set[str] | None) -> dict[str, dict[str, int]]:
    """Sizes of the single files of steps, by their names below the store, of each checkpoint that may have something to pack."""
    folders = list(KINDS)
    if checkpoints is not None and ledger.is_local:  # elsewhere one listing of all costs less than one for each
        folders = [f"{kind}{path.removeprefix(KINDS[0])}" for path in sorted(checkpoints) for kind in KINDS]
    by_home: dict[str, dict[str, int]] = {}
    for folder in folders:
        for name, size in ledger.files.sizes(folder).items():
            full = f"{folder}/{name}"
            home = "/".join([KINDS[0], *full.split("/")[1:3]])
            if checkpoints is None or home in checkpoints:
                by_home.setdefault(home, {})[full] = size
    return {home: files for home, files in by_home.items() if any(is_small(*file) for file in files.items())}


def is_small(name: str, size: int) -> bool:
    """Whether a file of a step goes into a pack."""
    return not name.endswith((WEIGHTS, f"/{ASIDE}")) and size <= LARGEST


def remove_step(ledger: LedgerAccess, path: str, single: Mapping[str, int], packed: Mapping[str, bytes]) -> int:
    """Delete the single files of a packed step, its record first; returns how many. One whose record changed meanwhile stays."""
    with suppress(FileNotFoundError):
        if ledger.files.read(f"{path}/{RECORD}") != packed[f"{path}/{RECORD}"]:
            return 0
    removed = 0
    for name in [f"{path}/{ASIDE}", f"{path}/{RECORD}", *packed]:
        if name in single:
            with suppress(FileNotFoundError):
                ledger.files.remove(name)
                removed += 1
    _remove_empty(ledger, [path, *{name.rpartition("/")[0] for name in packed}])
    return removed


def remove_unfinished(ledger: LedgerAccess) -> None:
    """Delete packs that killed processes were writing: who maintains the store is alone."""
    for name in ledger.files.matches(f"{FOLDER}/*/.*") if ledger.is_local else ():
        if _UNFINISHED.fullmatch(name):
            ledger.files.remove(name)


def remove_leftovers(ledger: LedgerAccess, single: Mapping[str, int], packed: Mapping[str, Mapping[str, bytes]]) -> int:
    """Delete single files of packed steps that an interrupted packing or unpacking left; returns how many."""
    removed = 0
    for name, size in single.items():
        path = step_of(name)
        if (of := _UNFINISHED.fullmatch(name)) and of[1] + of[2] in packed.get(path, {}):
            ledger.files.remove(name)
            continue
        content = packed.get(path, {}).get(name)
        if content is None or len(content) != size or {f"{path}/{RECORD}", f"{path}/{ASIDE}"} & single.keys():
            continue
        with suppress(FileNotFoundError):
            if ledger.files.read(name) == content:
                ledger.files.remove(name)
                removed += 1
        _remove_empty(ledger, [path, name.rpartition("/")[0]])
    return removed


def _remove_empty(ledger: LedgerAccess, folders: Iterable[str]) -> None:
    """Delete folders that nothing is left in, with those above them; the folders of models stay."""
    for folder in sorted(folders, key=len, reverse=True) if ledger.is_local else ():
        while folder.count("/") >= 2:
            try:
                ledger.files.at(folder).rmdir()
            except OSError:  # something else is in it
                break
            folder = folder.rpartition("/")[0]
