"""A stored file as a local one, held to what its record says; fetched, or linked to this node's copy, if the store is elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lmmcl.ledger.interface import LedgerAccess
from lmmcl.ledger.packs.packed_files import Pack
from lmmcl.ledger.record import ASIDE, RECORD, WEIGHTS, DamagedError, DroppedError, Record, find_mismatch, home_of
from lmmcl.ledger.store import full, is_full


@contextmanager
def opened(ledger: LedgerAccess, path: str, name: str, *, quarantine: bool) -> Iterator[Path]:
    """See `Ledger.opened`."""
    home, inner = home_of(path, name)
    record = ledger.read(home)
    if record and inner in record.dropped:
        raise DroppedError(
            "these weights were deleted by `lmmcl gc`; running a sweep that needs them recomputes them",
            file=f"{ledger.store}/{home}/{inner}",
        )
    if not ledger.is_local:
        with _fetched(ledger, record, home, inner, quarantine) as local:
            yield local
        return
    # In a copy of an object store the files lie in a folder of their own, as they do there.
    local = ledger.files.at(f"{record.folder if record else home}/{inner}")
    checksum = record.files.get(inner) if record else None
    content = None if record is None else _content(ledger, record, inner, local, quarantine)
    if content is not None:  # a copy: the file may be packed or unpacked while it is read
        with _extracted(ledger, local.name, content) as extracted:
            if checksum:
                _verify(ledger, home, inner, extracted, checksum, quarantine)
            yield extracted
        return
    why = find_mismatch(local, checksum) if checksum else None
    if why is not None:
        raise _damaged(ledger, home, inner, why, quarantine)
    yield local


def _content(ledger: LedgerAccess, record: Record, name: str, local: Path, quarantine: bool) -> bytes | None:
    """A file that may be packed, from wherever it is; None for weights, and where there is none."""
    if name.endswith(WEIGHTS):
        return None
    with suppress(FileNotFoundError, NotADirectoryError):
        return local.read_bytes()
    content = _packed(ledger, record, name, quarantine)
    if content is None:
        with suppress(FileNotFoundError, NotADirectoryError):  # unpacked a moment ago
            return local.read_bytes()
    return content


def _packed(ledger: LedgerAccess, record: Record, name: str, quarantine: bool) -> bytes | None:
    """A file of a pack, or None where there is none; raises DamagedError, as `_verify` does."""
    if name.endswith(WEIGHTS):
        return None
    try:
        return ledger.packs.read(f"{record.folder}/{name}")
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _damaged(ledger, record.path, name, str(error), quarantine) from error


@contextmanager
def _extracted(ledger: LedgerAccess, name: str, content: bytes) -> Iterator[Path]:
    room = ledger.node.make_temp_dir("lmmcl-read-")
    try:
        (room / name).write_bytes(content)
        yield room / name
    except OSError as error:
        if is_full(error):
            raise full(room, ledger.store) from error
        raise
    finally:
        shutil.rmtree(room, ignore_errors=True)


@contextmanager
def _fetched(ledger: LedgerAccess, record: Record | None, home: str, name: str, quarantine: bool) -> Iterator[Path]:
    room = ledger.node.make_temp_dir("lmmcl-read-")
    local = room / name
    try:
        local.parent.mkdir(parents=True, exist_ok=True)
        checksum = record.files.get(name) if record else None
        # Weights are read by every stage and evaluation after; a check wants what the store holds.
        at = record.fields.get("at") if record and checksum and name.endswith(WEIGHTS) and quarantine else None
        if not (at and checksum and _copied(ledger, at, name, local, checksum)):
            _download(ledger, record, home, name, local, quarantine)
            if checksum:
                _verify(ledger, home, name, local, checksum, quarantine)
            if at:
                ledger.node.keep_file(at, name, local)
        yield local
    except Exception as error:
        if is_full(error):
            raise full(room, ledger.store) from error
        raise
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _download(ledger: LedgerAccess, record: Record | None, home: str, name: str, local: Path, quarantine: bool) -> None:
    """Fetch a file, or take it from its pack; where there is neither, none is written."""
    try:
        ledger.files.get(f"{record.folder if record else home}/{name}", local)
    except FileNotFoundError:
        content = _packed(ledger, record, name, quarantine) if record else None
        if content is not None:
            local.write_bytes(content)


def _copied(ledger: LedgerAccess, at: str, name: str, local: Path, checksum: Mapping[str, Any]) -> bool:
    """Link `local` to this node's copy, which may be deleted meanwhile; whether there is one, whole."""
    copy = ledger.node.copy(at, name)
    if copy is None:
        return False
    with suppress(FileNotFoundError):
        os.link(copy, local)
        if find_mismatch(local, checksum) is None:
            return True
        ledger.node.forget(at, name)
        local.unlink()
    return False


def _verify(
    ledger: LedgerAccess, path: str, name: str, local: Path, checksum: Mapping[str, Any], quarantine: bool
) -> None:
    """Hold a file to what its record says of it."""
    why = find_mismatch(local, checksum)
    if why is not None:
        raise _damaged(ledger, path, name, why, quarantine)


def _damaged(ledger: LedgerAccess, path: str, name: str, why: str, quarantine: bool) -> DamagedError:
    """The error of a file that is not what its record says, whose record is quarantined where that is asked for."""
    remedy = ""
    if quarantine:
        ledger.quarantine(path)
        remedy = "; its record was quarantined, and the next run of its sweep recomputes the step"
    return DamagedError(f"{why}{remedy}", file=f"{ledger.store}/{path}/{name}")


def lines(ledger: LedgerAccess, path: str, name: str) -> list[dict[str, Any]]:
    """See `Ledger.read_lines`."""
    record = ledger.read(path)
    return [] if record is None else recorded_lines(ledger, record, name)


def recorded_lines(ledger: LedgerAccess, record: Record, name: str, pack: Pack | None = None) -> list[dict[str, Any]]:
    """The rows of a .jsonl file that `record` lists, from `pack` where it is in that; raises DamagedError."""
    content = None
    if pack is not None:
        with suppress(FileNotFoundError, ValueError):  # elsewhere now, or damaged, which is said below
            content = pack.read(f"{record.folder}/{name}")
    if content is None:
        content = _single_or_packed(ledger, record, name)
    checksum = record.files.get(name)
    if checksum and checksum["sha256"] != hashlib.sha256(content).hexdigest():
        raise DamagedError(
            "is missing or fails its checksum; `lmmcl ledger check --repair` quarantines its record, "
            "and the next run of its sweep recomputes the step",
            file=f"{ledger.store}/{record.folder}/{name}",
        )
    return _rows([line for line in content.decode().splitlines() if line])


def _rows(texts: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a `.jsonl` file; all lines at once take a third of the time of one after the other."""
    with suppress(ValueError):
        rows: list[dict[str, Any]] = json.loads(f"[{','.join(texts)}]")
        if len(rows) == len(texts):
            return rows
    return [json.loads(text) for text in texts]


def _single_or_packed(ledger: LedgerAccess, record: Record, name: str) -> bytes:
    try:
        return ledger.files.read(f"{record.folder}/{name}")
    except FileNotFoundError:
        return _packed(ledger, record, name, quarantine=False) or b""


def recorded_paths(ledger: LedgerAccess, kind: str) -> list[str]:
    """See `Ledger.paths`."""
    names = ledger.files.matches(f"{kind}/**/{RECORD}")
    single = {name.removesuffix(f"/{RECORD}") for name in names}
    packed = set(ledger.packs.paths(kind)) - single
    if packed:
        packed -= {name.removesuffix(f"/{ASIDE}") for name in ledger.files.matches(f"{kind}/**/{ASIDE}")}
    return sorted(single | packed)
