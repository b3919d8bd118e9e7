"""Packing the single files of finished steps, a pack for each checkpoint, and unpacking them again.

Single files are the truth as long as something may still be computed. A pack is written whole and read back before the first single
file goes, and of each step the record goes first: whatever is interrupted, each step can be read from one of the two.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lmmcl.config.cluster import ClaimSettings
from lmmcl.errors import UserError
from lmmcl.ledger.interface import LedgerAccess
from lmmcl.ledger.leases import MAINTENANCE, Leases
from lmmcl.ledger.packs.pack_file import encode_pack, is_whole
from lmmcl.ledger.packs.packed_files import Pack, pack_of
from lmmcl.ledger.packs.salvage import salvaged, step_of
from lmmcl.ledger.packs.single_files import is_small, remove_leftovers, remove_step, remove_unfinished, single_files
from lmmcl.ledger.record import ASIDE, RECORD, Record, decode_record

AT_ONCE = {True: 4, False: 32}
"""Checkpoints that are packed together, by whether the store is a folder here: elsewhere each request waits."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class Packed:
    """What was packed or unpacked: packs, steps, single files removed (or written), and what was left as it is, with why."""

    packs: int = 0
    steps: int = 0
    files: int = 0
    left: dict[str, str] = field(default_factory=dict)

    def add(self, other: Packed) -> None:
        """Count what another one did."""
        self.packs += other.packs
        self.steps += other.steps
        self.files += other.files
        self.left |= other.left


class Busy(UserError):
    """Something is being computed in the store, or another process is packing it."""


@contextmanager
def maintenance(ledger: LedgerAccess) -> Iterator[None]:
    """For the time of the `with` no other process packs, unpacks, repairs or drops weights; raises Busy where one does now."""
    leases = Leases(ledger.files, ClaimSettings())
    with leases.held([MAINTENANCE]) as held:
        if not held.keys:
            raise Busy(
                f"{leases.owner(MAINTENANCE) or 'another process'} is packing, repairing or clearing this store; "
                "try again when it has finished",
                file=f"store {ledger.store}",
            )
        yield


def _check_idle(ledger: LedgerAccess) -> None:
    """Raise Busy where a step is leased now. Runs with `claims: {enabled: false}` lease nothing, and are not seen."""
    for lease in Leases(ledger.files, ClaimSettings()).active().values():
        raise Busy(f"{lease} is computing steps; try again when it has finished", file=f"store {ledger.store}")


def pack(ledger: LedgerAccess, checkpoints: Iterable[str] | None = None) -> Packed:
    """Pack what is recorded of these checkpoints (folders below the store; None: of all), with their scores and probes.

    Raises Busy where something is being computed when it begins, as leases show; a run that starts later is not held up. Nothing
    is lost by that: what is written meanwhile stays as single files, which come before packed ones, until the next packing.
    """
    with maintenance(ledger):
        _check_idle(ledger)
        remove_unfinished(ledger)
        by_checkpoint = single_files(ledger, None if checkpoints is None else set(checkpoints))
        done = Packed()
        for checkpoint in _together(ledger, lambda item: _pack_one(ledger, *item), by_checkpoint.items()):
            done.add(checkpoint)
        return done


def unpack(ledger: LedgerAccess) -> Packed:
    """Write single files for all that is packed, and delete the packs. Raises Busy as `pack` does."""
    with maintenance(ledger):
        _check_idle(ledger)
        done, names = Packed(), ledger.packs.names()
        for unpacked in _together(ledger, lambda name: _unpack_one(ledger, name), names):
            done.add(unpacked)
        if ledger.is_local and done.packs:
            os.sync()  # once, for all of them: the single files outlive a crash of the machine before a pack goes
        for name in names:
            if name not in done.left:
                with suppress(FileNotFoundError):
                    ledger.files.remove(name)
        return done


def _together(ledger: LedgerAccess, do: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    with ThreadPoolExecutor(AT_ONCE[ledger.is_local]) as pool:
        yield from pool.map(do, list(items))


def _pack_one(ledger: LedgerAccess, checkpoint: str, single: Mapping[str, int]) -> Packed:
    name = pack_of(checkpoint)
    assert name is not None, checkpoint
    done = Packed()
    old = ledger.packs.open(name, whole=True)
    if old and not is_whole(old.content):
        return Packed(left={name: "does not match its checksum; run `lmmcl ledger check --repair` first"})
    steps = {path: _packed_step(old, path) for path in old.paths()} if old else {}
    new: set[str] = set()
    for record_name in sorted(single):
        path = record_name.removesuffix(f"/{RECORD}")
        if path != record_name:
            try:
                steps[path] = _single_step(ledger, path, single, steps.get(path, {}))
                new.add(path)
            except FileNotFoundError as error:
                if path not in steps:  # else it is packed, and the listing is older
                    done.left[path] = f"{error}; it was deleted meanwhile"
            except ValueError as error:
                done.left[path] = f"{error}; `lmmcl ledger check` lists damaged files"
    if checkpoint not in steps:
        return done
    if new:
        now = ledger.packs.open(name, whole=True)
        if (now and now.content) != (old and old.content):  # this process was stopped until its claim was void
            return Packed(left={name: "was written by another process meanwhile; run `lmmcl ledger pack` again"})
        files = {file: content for step in steps.values() for file, content in step.items()}
        _write(ledger, name, encode_pack(files), old)
    for path in sorted(new):
        done.files += remove_step(ledger, path, single, steps[path])
    done.files += remove_leftovers(ledger, single, {path: steps[path] for path in steps.keys() - new})
    return Packed(bool(new), len(new), done.files, done.left)


def rewrite(ledger: LedgerAccess, name: str) -> None:
    """Write a damaged pack again, of the steps in it that can be read whole and are not quarantined."""
    old = ledger.packs.open(name, whole=True)
    files: dict[str, bytes] = {}
    for path in sorted(salvaged(old)[0]) if old else ():
        if old and not ledger.files.exists(f"{path}/{ASIDE}"):
            with suppress(ValueError):  # it was computed again, and lies as single files beside the pack
                files |= _packed_step(old, path)
    for file in old.members.keys() - files.keys() if old else ():
        # A record that was written again when weights were dropped may have its other files here.
        if old and pack_of(file) == name and ledger.files.exists(f"{step_of(file)}/{RECORD}"):
            with suppress(ValueError):
                files[file] = old.read(file)
    if files:
        _write(ledger, name, encode_pack(files), old)
    else:
        ledger.files.remove(name)


def _packed_step(old: Pack, path: str) -> dict[str, bytes]:
    return {name: old.read(name) for name in old.members if step_of(name) == path}


def _single_step(
    ledger: LedgerAccess, path: str, single: Mapping[str, int], packed: Mapping[str, bytes]
) -> dict[str, bytes]:
    """All files of a step that go into its pack, held to its record; raises ValueError where one is not what was recorded."""
    content = ledger.files.read(f"{path}/{RECORD}")
    record = Record(path, decode_record(content))
    files = {f"{path}/{RECORD}": content}
    names = record.files or _unlisted(path, single)
    for name in names:
        full = f"{record.folder}/{name}"
        if not is_small(name, single.get(full, 0)):
            continue
        files[full] = data = ledger.files.read(full) if full in single else packed.get(full, b"")
        if record.files and hashlib.sha256(data).hexdigest() != record.files[name]["sha256"]:
            raise ValueError(f"{name} is missing or fails its checksum")
    return files


def _unlisted(path: str, single: Mapping[str, int]) -> dict[str, Any]:
    """The files of a step whose record, of an older version, lists none."""
    names = [name.removeprefix(f"{path}/") for name in single if step_of(name) == path]
    return {name: None for name in names if name not in (RECORD, ASIDE)}


def _write(ledger: LedgerAccess, name: str, content: bytes, old: Pack | None) -> None:
    """Write a pack so that it outlives a crash of the machine, and read it back; `old` is the one in its place."""
    ledger.files.write(name, content, synced=True)
    if ledger.files.read(name) != content:
        # What was packed before is in no single file.
        ledger.files.write(name, old.content, synced=True) if old else ledger.files.remove(name)
        raise UserError(
            "what was read back is not what was written; the single files and the pack before were kept, so nothing is lost. "
            "Check the disk, then run the same command again",
            file=f"{ledger.store}/{name}",
        )


def _unpack_one(ledger: LedgerAccess, name: str) -> Packed:
    """Write the single files of a pack, which stays."""
    old = ledger.packs.open(name, whole=True)
    if old is None:
        return Packed()
    if not is_whole(old.content):
        return Packed(left={name: "does not match its checksum; run `lmmcl ledger check --repair` first"})
    done = Packed(1)
    for path in old.paths():
        files, record = _packed_step(old, path), f"{path}/{RECORD}"
        superseded = ledger.files.exists(record)
        quarantined = ledger.files.exists(f"{path}/{ASIDE}")
        if superseded and quarantined:  # computed again
            continue
        # The record last: its existence means that all is there.
        for file in sorted(files, key=lambda file: file == record):
            if not (((superseded or quarantined) and file == record) or ledger.files.exists(file)):
                ledger.files.write(file, files[file])
                done.files += 1
        done.steps += not quarantined
    return done
