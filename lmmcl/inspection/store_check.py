"""What is damaged in the records of a store: single files and packs, several at a time, each file read once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from lmmcl.ledger import Ledger
from lmmcl.ledger.packs.pack_file import is_whole
from lmmcl.ledger.packs.packed_files import Pack, checkpoint_of
from lmmcl.ledger.packs.salvage import salvaged, step_of
from lmmcl.ledger.record import ASIDE, RECORD, WEIGHTS, DamagedError, Record, decode_record, file_checksum, valid_fields

AT_ONCE = {True: 4, False: 32}
"""Steps (or packs) that are read together, by whether the store is a folder here: elsewhere each read waits."""


@dataclass(frozen=True)
class Checked:
    """A step that was looked at: kind, parents and damages; `pack` is where it is packed."""

    path: str
    kind: str = "unreadable"
    parents: tuple[str, ...] = ()
    has_weights: bool = True
    damages: tuple[str, ...] = ()
    pack: str = ""


@dataclass
class CheckedPack:
    """A pack that was looked at: its steps, and what is wrong with the pack itself."""

    name: str
    steps: list[Checked] = field(default_factory=list)
    damage: str = ""


def check_steps(ledger: Ledger, paths: Iterable[str]) -> Iterator[Checked]:
    """The steps whose record is a single file in one of these folders."""
    with ThreadPoolExecutor(AT_ONCE[ledger.is_local]) as pool:
        for checked in pool.map(lambda path: _single(ledger, path), paths):
            if checked is not None:
                yield checked


def check_packs(ledger: Ledger, names: Iterable[str], files: Mapping[str, int]) -> Iterator[CheckedPack]:
    """The packs of these names; `files` are the single files of the store, which may come before packed ones."""
    with ThreadPoolExecutor(AT_ONCE[ledger.is_local]) as pool:
        for checked in pool.map(lambda name: _pack(ledger, name, files), names):
            if checked is not None:
                yield checked


def _single(ledger: Ledger, path: str) -> Checked | None:
    try:
        record = Record(path, decode_record(ledger.files.read(f"{path}/{RECORD}")))
    except FileNotFoundError:  # quarantined or packed a moment ago, by a run
        return None
    except ValueError as error:
        return Checked(path, damages=(f"{RECORD} {error}",))
    return _checked(record, [*_of_another(record), *_file_damages(ledger, record)])


def _checked(record: Record, damages: Iterable[str], pack: str = "") -> Checked:
    return Checked(record.path, record["kind"], tuple(record["parents"]), record.has_weights, tuple(damages), pack)


def _of_another(record: Record) -> Iterator[str]:
    if not record.path.endswith(f"-{record['key']}"):
        yield f"its record is of {record['key']}"


def _file_damages(ledger: Ledger, record: Record, pack: Pack | None = None, *, is_known: bool = False) -> Iterator[str]:
    """What is wrong with the files of a step; `is_known`: the pack is as it was written, so its files are what was recorded."""
    for name, checksum in record.files.items():
        full = f"{record.folder}/{name}"
        is_packed = pack is not None and full in pack.members
        if is_packed and is_known:
            continue
        try:
            content = pack.read(full) if pack and is_packed else None
        except ValueError as error:
            yield f"{name} {error}"
            continue
        why = _mismatch(ledger, record, name, checksum, content)
        if why:
            yield f"{name} {why}"


def _mismatch(
    ledger: Ledger, record: Record, name: str, checksum: Mapping[str, Any], content: bytes | None
) -> str | None:
    """In what a file differs from what its record says, or None."""
    full = f"{record.folder}/{name}"
    if content is None and name.endswith(WEIGHTS):
        return _weights_mismatch(ledger, record, name, checksum)
    if content is None:
        try:
            content = ledger.files.read(full)
        except FileNotFoundError:
            try:
                content = ledger.packs.read(full)  # of a step whose record alone was written again
            except (FileNotFoundError, ValueError):
                return "is missing"
    if len(content) != checksum["bytes"]:
        return f"has {len(content)} bytes, not the {checksum['bytes']} that were written"
    if hashlib.sha256(content).hexdigest() != checksum["sha256"]:
        return "checksum mismatch"
    if name == "step.json" and not _is_identity(content, record["key"]):
        return "is of another step"
    return None


def _is_identity(content: bytes, key: str) -> bool:
    """Whether a `step.json` is that of the step with this key."""
    try:
        identity = json.loads(content)
    except ValueError:
        return False
    return isinstance(identity, dict) and identity.get("key") == key


def _weights_mismatch(ledger: Ledger, record: Record, name: str, checksum: Mapping[str, Any]) -> str | None:
    """Of a file that may be larger than the memory."""
    if not ledger.is_local:
        try:
            with ledger.opened(record.path, name, quarantine=False):
                return None
        except DamagedError as error:
            return error.message
    local = ledger.files.at(f"{record.folder}/{name}")
    if not local.is_file():
        return "is missing"
    actual = file_checksum(local)
    if actual["bytes"] != checksum["bytes"]:
        return f"has {actual['bytes']} bytes, not the {checksum['bytes']} that were written"
    return None if actual["sha256"] == checksum["sha256"] else "checksum mismatch"


def _pack(ledger: Ledger, name: str, files: Mapping[str, int]) -> CheckedPack | None:
    try:
        pack = Pack(name, ledger.files.read(name), whole=True)
    except FileNotFoundError:  # unpacked a moment ago
        return None
    checked, intact = CheckedPack(name), is_whole(pack.content)
    paths, lost = (set(pack.paths()), set[str]()) if intact else salvaged(pack)
    for path in sorted(paths | {step_of(file) for file in lost}):
        if f"{path}/{RECORD}" in files or f"{path}/{ASIDE}" in files:
            continue  # computed again, or quarantined: what the pack says of it counts for nothing
        checked.steps.append(_packed(ledger, pack, path, sorted(lost), intact=intact))
    if not intact and not any(step.damages for step in checked.steps):
        steps = f"{len(checked.steps)} record{'' if len(checked.steps) == 1 else 's'} of {checkpoint_of(name)}"
        checked.damage = f"does not match its checksum; the {steps} in it can be read"
    return checked


def _packed(ledger: Ledger, pack: Pack, path: str, lost: Iterable[str], *, intact: bool) -> Checked:
    where = f" (in {pack.name})"
    gone = [name.removeprefix(f"{path}/") for name in lost if name.startswith(f"{path}/")]
    try:
        content = pack.read(f"{path}/{RECORD}")
        # The seal of each record was checked when it was packed, and the digest of the whole pack just now.
        record = Record(path, valid_fields(json.loads(content)) if intact else decode_record(content))
    except FileNotFoundError:
        return Checked(path, damages=(f"{RECORD} is missing{where}",), pack=pack.name)
    except ValueError as error:
        return Checked(path, damages=(f"{RECORD} {error}{where}",), pack=pack.name)
    damages = [*_of_another(record), *_file_damages(ledger, record, pack, is_known=intact)]
    if not record.files:
        damages += [f"{name} is missing" for name in gone]
    return _checked(record, [f"{damage}{where}" for damage in damages], pack.name)
