"""The records of a store as they are at one moment, read in few requests: from the index where it is right, else one by one.

A command that looks at a sweep makes one view and asks it for every step. In a folder each record is looked up by its name and
time of change; an object store is listed once. What the index lacks is read (side by side, where each read is a round trip), and
a view that had to read many records writes them to the index for the next one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property

from lmmcl.errors import UserError
from lmmcl.ledger.index.segment import FOLDER, SUFFIX, Segment, compact, decode_segment, encode_segment
from lmmcl.ledger.interface import LedgerAccess
from lmmcl.ledger.record import KINDS, RECORD, Record
from lmmcl.ledger.store import Store
from lmmcl.steps import Step

WORTH_KEEPING = 64
"""When this many records had to be read one by one, they are written to the index."""
MOST_SEGMENTS = 8
"""Above this the index is written again as one file."""
AT_ONCE = 32
"""Reads that are under way together where the store is elsewhere."""

log = logging.getLogger("lmmcl")


class RecordView:
    """What a store holds now; make a new one to see what came since."""

    def __init__(self, ledger: LedgerAccess) -> None:
        self._ledger = ledger
        self._read: dict[str, tuple[str, Record] | None] = {}
        """What was read from the store itself, with its stamp; None for records that cannot be used."""
        self._stamps: dict[str, str | None] = {}
        self._written: set[str] = set()

    def find(self, step: Step) -> Record | None:
        """The record of `step`, or None when it has not been computed."""
        return self.read(step.path)

    def has(self, step: Step) -> bool:
        """Whether `step` has been computed."""
        path = step.path
        stamp = self._stamp(path)
        if stamp is None:
            return False
        return self._segment(path, stamp) is not None or self._individual(path, stamp) is not None

    def read(self, path: str) -> Record | None:
        """The record in the folder `path` below the store, or None; one that was cut or changed is none."""
        stamp = self._stamp(path)
        if stamp is None:
            return None
        segment = self._segment(path, stamp)
        return self._individual(path, stamp) if segment is None else segment.record(path)

    def prefetch(self, steps: Iterable[Step]) -> None:
        """Read what is recorded of `steps` and not in the index, side by side; in a folder they are read when asked for."""
        if not self._ledger.is_local:
            stamps = {path: self._stamp(path) for path in dict.fromkeys(step.path for step in steps)}
            self._fetch({path: stamp for path, stamp in stamps.items() if stamp is not None})

    def fingerprint(self, steps: Iterable[Step]) -> str | None:
        """A hash of what is recorded of `steps`, other when any record was written again; None where one has no record."""
        digest = hashlib.sha256()
        for path in sorted(step.path for step in steps):
            if (stamp := self._stamp(path)) is None:
                return None
            digest.update(f"{path} {stamp}\n".encode())
        return digest.hexdigest()

    def paths(self) -> list[str]:
        """Folders of all finished steps, sorted."""
        if not self._ledger.is_local:
            return sorted(self._listed)
        names = [name for kind in KINDS for name in self._ledger.files.matches(f"{kind}/**/{RECORD}")]
        return [name.removesuffix(f"/{RECORD}") for name in names]

    def _fetch(self, stamps: dict[str, str]) -> None:
        wanted = [
            path for path, stamp in stamps.items() if path not in self._read and self._segment(path, stamp) is None
        ]
        if wanted:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                for path, record in zip(wanted, pool.map(self._ledger.read, wanted), strict=True):
                    self._read[path] = None if record is None else (stamps[path], compact(record))

    def _individual(self, path: str, stamp: str) -> Record | None:
        if path not in self._read:
            record = self._ledger.read(path)
            self._read[path] = None if record is None else (stamp, compact(record))
        entry = self._read[path]
        return None if entry is None else entry[1]

    def _segment(self, path: str, stamp: str) -> Segment | None:
        segment = self._newest.get(path)
        return segment if segment is not None and segment.stamps[path] == stamp else None

    def _stamp(self, path: str) -> str | None:
        if not self._ledger.is_local:
            return self._listed.get(path)
        if path not in self._stamps:
            self._stamps[path] = local_stamp(f"{self._ledger.files.root}/{path}/{RECORD}")
        return self._stamps[path]

    @cached_property
    def _listed(self) -> dict[str, str]:
        """The stamps of all records of a store that is elsewhere, by their folders."""
        with ThreadPoolExecutor(len(KINDS)) as pool:
            listings = pool.map(lambda kind: self._ledger.files.stamps(kind, f"/{RECORD}"), KINDS)
            return {name.removesuffix(f"/{RECORD}"): stamp for stamps in listings for name, stamp in stamps.items()}

    @cached_property
    def _names(self) -> list[str]:
        return self._ledger.files.matches(f"{FOLDER}/*{SUFFIX}")

    @cached_property
    def _segments(self) -> list[Segment]:
        with ThreadPoolExecutor(MOST_SEGMENTS) as pool:
            return [segment for segment in pool.map(self._load, self._names) if segment is not None]

    @cached_property
    def _newest(self) -> dict[str, Segment]:
        """The segment that speaks of a path; of several the one whose stamp is right."""
        newest: dict[str, Segment] = {}
        for segment in self._segments:
            for path, stamp in segment.stamps.items():
                if path not in newest or self._stamp(path) == stamp:
                    newest[path] = segment
        return newest

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
        old = self._names if len(self._names) >= MOST_SEGMENTS else []
        if old:
            known = {record.path for _, record in new}
            kept = [path for path, segment in self._newest.items() if segment.stamps[path] == self._stamp(path)]
            new += [(self._newest[p].stamps[p], self._newest[p].record(p)) for p in kept if p not in known]
        try:
            self._ledger.files.write(f"{FOLDER}/{uuid.uuid4().hex}{SUFFIX}", encode_segment(new))
        except (OSError, UserError) as error:
            log.debug("the index of %s was not written: %s", self._ledger.store, error)
            return
        self._written |= {record.path for _, record in new}
        for name in old:
            with suppress(FileNotFoundError, OSError, UserError):
                self._ledger.files.remove(name)


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

    def prefetch(self, steps: Iterable[Step]) -> None:
        """Nothing: what is asked for is not known."""


def local_stamp(file: str) -> str | None:
    """When and how large a file of this machine was written; None where there is none."""
    try:
        state = os.stat(file)  # noqa: PTH116 - asked for every record of a store, and a Path costs as much as the question
    except (FileNotFoundError, NotADirectoryError):
        return None
    return f"{state.st_mtime_ns:x}-{state.st_size:x}"


def index_records(ledger: LedgerAccess, steps: Sequence[Step]) -> None:
    """Bring the index up to date with what is recorded of `steps`: a run does so at its end."""
    view = RecordView(ledger)
    view.prefetch(steps)
    for step in steps:
        view.has(step)
    view.keep(least=1)
