"""The records of a store as they are at one moment, read in few requests: from the index where it is right, else one by one.

A command that looks at a sweep makes one view and asks it for every step. In a folder each record is looked up by its name and
time of change; an object store is listed once. What the index lacks is read (side by side, where each read is a round trip), and
a view that had to read many records writes them to the index for the next one.
"""

from __future__ import annotations

import hashlib
import logging
import random
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from typing import Any

from lmmcl.errors import UserError
from lmmcl.ledger.index.segment import FOLDER, SUFFIX, Segment, compact, decode_segment, encode_segment
from lmmcl.ledger.index.stamps import Stamps, is_packed
from lmmcl.ledger.interface import LedgerAccess
from lmmcl.ledger.packs.packed_files import Pack, pack_of
from lmmcl.ledger.reading import lines, recorded_lines, recorded_paths
from lmmcl.ledger.record import KINDS, Record
from lmmcl.ledger.store import Store
from lmmcl.steps import Step

WORTH_KEEPING = 64
"""When this many records had to be read one by one, they are written to the index."""
MOST_SEGMENTS = 8
"""Above this the index is written again as one file."""
SAMPLE = 64
"""Records of a segment by which it is judged whether most of them are still as in the store."""
AT_ONCE = 32
"""Reads that are under way together where the store is elsewhere."""

log = logging.getLogger("lmmcl")


class RecordView:
    """What a store holds now; make a new one to see what came since."""

    def __init__(self, ledger: LedgerAccess) -> None:
        self._ledger = ledger
        self._read: dict[str, tuple[str, Record] | None] = {}
        """What was read from the store itself, with its stamp; None for records that cannot be used."""
        self._stamps = Stamps(ledger)
        self._written: set[str] = set()
        self._last_pack: tuple[str, Pack | None] | None = None

    def find(self, step: Step) -> Record | None:
        """The record of `step`, or None when it has not been computed."""
        return self.read(step.path)

    def has(self, step: Step) -> bool:
        """Whether `step` has been computed."""
        path = step.path
        stamp = self._stamps.of(path)
        if stamp is None:
            return False
        return self._segment(path, stamp) is not None or self._individual(path, stamp) is not None

    def read(self, path: str) -> Record | None:
        """The record in the folder `path` below the store, or None; one that was cut or changed is none."""
        stamp = self._stamps.of(path)
        if stamp is None:
            return None
        segment = self._segment(path, stamp)
        return self._individual(path, stamp) if segment is None else segment.record(path)

    def read_lines(self, path: str, name: str) -> list[dict[str, Any]]:
        """As `Ledger.read_lines`; files of one pack that are asked for one after the other are read from the store once."""
        record, stamp, pack = self.read(path), self._stamps.of(path), pack_of(path)
        if record is None or stamp is None:
            return []
        packed = self._pack(pack, whole=True) if pack and is_packed(stamp) else None
        return recorded_lines(self._ledger, record, name, packed)

    def prefetch(self, steps: Iterable[Step]) -> None:
        """Read what is recorded of `steps` and not in the index, side by side; in a folder they are read when asked for."""
        if not self._ledger.is_local:
            stamps = {path: self._stamps.of(path) for path in dict.fromkeys(step.path for step in steps)}
            self._fetch({path: stamp for path, stamp in stamps.items() if stamp is not None})

    def is_packed(self, step: Step) -> bool:
        """Whether the record of `step`, if there is one, is in a pack."""
        stamp = self._stamps.of(step.path)
        return stamp is not None and is_packed(stamp)

    def fingerprint(self, steps: Iterable[Step]) -> str | None:
        """A hash of what is recorded of `steps`, other when any record was written again; None where one has no record."""
        digest = hashlib.sha256()
        for step in sorted(steps, key=lambda step: step.path):
            path = step.path
            if (stamp := self._stamps.of(path)) is None or not self.has(step):
                return None
            digest.update(f"{path} {stamp}\n".encode())
        return digest.hexdigest()

    def paths(self) -> list[str]:
        """Folders of all finished steps, sorted."""
        return [path for kind in KINDS for path in recorded_paths(self._ledger, kind)]

    def _fetch(self, stamps: dict[str, str]) -> None:
        wanted = [
            path for path, stamp in stamps.items() if path not in self._read and self._segment(path, stamp) is None
        ]
        packs: dict[str, list[str]] = {}
        for path in wanted:
            if is_packed(stamps[path]) and (name := pack_of(path)):
                packs.setdefault(name, []).append(path)
        single = [path for path in wanted if not is_packed(stamps[path])]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for path, record in zip(single, pool.map(self._ledger.read, single), strict=True):
                self._keep(path, stamps[path], record)
            for (_, paths), pack in zip(packs.items(), pool.map(self._ledger.packs.open, packs), strict=True):
                for path in paths:
                    self._keep(path, stamps[path], pack.record(path) if pack else self._ledger.read(path))

    def _keep(self, path: str, stamp: str, record: Record | None) -> None:
        self._read[path] = None if record is None else (stamp, compact(record))

    def _individual(self, path: str, stamp: str) -> Record | None:
        if path not in self._read:
            name = pack_of(path) if is_packed(stamp) else None
            self._keep(path, stamp, self._packed_record(name, path) if name else self._ledger.read(path))
        entry = self._read[path]
        return None if entry is None else entry[1]

    def _packed_record(self, name: str, path: str) -> Record | None:
        pack = self._pack(name)
        record = pack.record(path) if pack else None
        if pack and record is None and self._ledger.is_local:
            # The record may have been a single file when the pack was read, and have been packed since.
            self._last_pack = None
            pack = self._pack(name)
            record = pack.record(path) if pack else None
        return record if pack else self._ledger.read(path)  # it was unpacked a moment ago

    def _segment(self, path: str, stamp: str) -> Segment | None:
        for segment in self._segments.values():
            if segment.has(path, stamp):
                return segment
        return None

    def _pack(self, name: str, *, whole: bool = False) -> Pack | None:
        """The pack that was read last is kept: the records of a checkpoint are asked for one after the other."""
        last, pack = self._last_pack or ("", None)
        if last != name or (whole and pack is not None and not pack.whole):
            pack = self._ledger.packs.open(name, whole=whole)
            self._last_pack = name, pack
        return pack

    @cached_property
    def _names(self) -> list[str]:
        return self._ledger.files.matches(f"{FOLDER}/*{SUFFIX}")

    @cached_property
    def _segments(self) -> dict[str, Segment]:
        with ThreadPoolExecutor(MOST_SEGMENTS) as pool:
            loaded = zip(self._names, pool.map(self._load, self._names), strict=True)
            return {name: segment for name, segment in loaded if segment is not None}

    def _load(self, name: str) -> Segment | None:
        try:
            return decode_segment(self._ledger.files.read(name))
        except FileNotFoundError:  # written again as one, a moment ago
            return None
        except (ValueError, KeyError) as error:
            log.warning("%s/%s: %s; the records themselves are read", self._ledger.store, name, error)
            return None

    def keep(self, *, least: int = WORTH_KEEPING) -> None:
        """Write what had to be read one by one to the index, where it is `least` records or more.

        A store that cannot be written is read as before: the index makes nothing possible, only faster.
        """
        new = [entry for entry in self._read.values() if entry is not None and entry[1].path not in self._written]
        if len(new) < least:
            return
        outdated = self._outdated()
        old = self._names if len(self._names) >= MOST_SEGMENTS else outdated
        known = {record.path for _, record in new}
        for name in old:
            taken_over = list(self._still_right(name, known, check=name in outdated))
            known |= {record.path for _, record in taken_over}
            new += taken_over
        try:
            self._ledger.files.write(f"{FOLDER}/{uuid.uuid4().hex}{SUFFIX}", encode_segment(new))
        except (OSError, UserError) as error:
            log.debug("the index of %s was not written: %s", self._ledger.store, error)
            return
        self._written |= {record.path for _, record in new}
        for name in old:
            with suppress(FileNotFoundError, OSError, UserError):
                self._ledger.files.remove(name)

    def _still_right(self, name: str, known: set[str], *, check: bool) -> Iterator[tuple[str, Record]]:
        """The records of a segment, with their stamps, that a new one takes over; `check`: only those that are as in the store.

        Checking asks the store about each record, so it is left to segments that are mostly outdated.
        """
        if (segment := self._segments.get(name)) is None:
            return
        for path, stamp in segment.stamps.items():
            in_others = any(path in other.places for other in self._segments.values() if other is not segment)
            if path in known or (in_others and self._stamps.of(path) != stamp):
                continue
            if not check or self._stamps.of(path) == stamp:
                yield stamp, segment.record(path)

    def _outdated(self) -> list[str]:
        """Segments less than half of whose records are as in the store: their records were packed, or written again.

        Judged by a fixed sample of each: in a folder every record that is asked about costs a round trip over NFS.
        """
        return [name for name, segment in self._segments.items() if 2 * self._share_right(segment) < 1]

    def _share_right(self, segment: Segment) -> float:
        # Drawn, not at even steps: benchmarks follow one another in the same order, checkpoint by checkpoint.
        sample = random.Random(0).sample(list(segment.stamps.items()), min(SAMPLE, len(segment.places)))
        return sum(self._stamps.of(path) == stamp for path, stamp in sample) / max(1, len(sample))


def damaged_segments(files: Store) -> Iterator[tuple[str, str]]:
    """(name, why) of each file of the index that was cut or changed: it counts for nothing, and may be deleted."""
    for name in files.matches(f"{FOLDER}/*{SUFFIX}"):
        try:
            decode_segment(files.read(name))
        except FileNotFoundError:
            continue
        except (ValueError, KeyError) as error:
            yield name, str(error)


class SingleReads(RecordView):
    """Reads each record from the store when it is asked for: for who looks at a few of them, again and again."""

    def find(self, step: Step) -> Record | None:
        return self._ledger.find(step)

    def has(self, step: Step) -> bool:
        return self._ledger.find(step) is not None

    def read(self, path: str) -> Record | None:
        return self._ledger.read(path)

    def read_lines(self, path: str, name: str) -> list[dict[str, Any]]:
        return lines(self._ledger, path, name)

    def prefetch(self, steps: Iterable[Step]) -> None:
        """Nothing: what is asked for is not known."""


def index_records(ledger: LedgerAccess, steps: Sequence[Step]) -> None:
    """Bring the index up to date with what is recorded of `steps`: a run does so at its end."""
    view = RecordView(ledger)
    view.prefetch(steps)
    for step in steps:
        view.has(step)
    view.keep(least=1)
