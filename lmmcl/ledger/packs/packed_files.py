"""Reading what is in packs: a file or a record by its name below the store.

A single file always comes before a packed one of the same name: a step that was computed again, or whose weights were dropped, lies
as single files beside an older pack until it is packed again. A packed record beside a `record.damaged.json` is quarantined.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from lmmcl.ledger.packs.pack_file import Member, members
from lmmcl.ledger.record import ASIDE, KINDS, RECORD, Record, decode_record
from lmmcl.ledger.store import Store

FOLDER = "packs"
SUFFIX = ".zip"
BEGINNING = 2**18
"""Bytes that are read of a pack for its records; one with more of them is read whole."""
_RECORD = f"/{RECORD}"
MOST_OPEN = 8
"""Packs of a store that are kept in memory."""


def pack_of(path: str) -> str | None:
    """The name of the pack for the folder of a step, or a file below one; None for other names."""
    parts = path.split("/", 3)
    return f"{FOLDER}/{parts[1]}/{parts[2]}{SUFFIX}" if len(parts) > 2 and parts[0] in KINDS else None


def checkpoint_of(pack: str) -> str:
    """The folder of the checkpoint whose files are in a pack."""
    return f"checkpoints/{pack.removeprefix(f'{FOLDER}/').removesuffix(SUFFIX)}"


@dataclass
class Pack:
    """A pack in memory, or its beginning."""

    name: str
    content: bytes
    whole: bool
    members: dict[str, Member] = field(init=False)
    _paths: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.members = members(self.content, whole=self.whole)
        self._paths = [name.removesuffix(_RECORD) for name in self.members if name.endswith(_RECORD)]

    def has_all_records(self) -> bool:
        """Whether what was read reaches behind the last record: other files follow the records."""
        return self.whole or len(self._paths) < len(self.members)

    def paths(self) -> list[str]:
        """The folders of the steps that are recorded in the pack."""
        return list(self._paths)

    def has(self, name: str) -> bool:
        """Whether the file is in what was read, with all its bytes."""
        member = self.members.get(name)
        return member is not None and member.start + member.packed_bytes <= len(self.content)

    def read(self, name: str) -> bytes:
        """A file; raises FileNotFoundError where the pack has none of that name, ValueError where it is damaged."""
        if name not in self.members:
            raise FileNotFoundError(f"{name} is not in {self.name}")
        return self.members[name].read(self.content)

    def record(self, path: str) -> Record | None:
        """The record of the step in `path`, or None; one that is damaged is none."""
        try:
            return Record(path, decode_record(self.read(f"{path}/{RECORD}")))
        except (FileNotFoundError, ValueError):
            return None


class PackedFiles:
    """The packs of one store."""

    def __init__(self, files: Store) -> None:
        self._files = files
        self._open: dict[str, tuple[str, Pack] | None] = {}
        """The packs that were read last, with their stamps; None for one that was read without asking for its stamp."""
        self._lock = threading.Lock()

    def read(self, name: str) -> bytes:
        """A packed file; raises FileNotFoundError where there is none, ValueError where it is damaged."""
        pack = self.open_for(name)
        if pack is None:
            raise FileNotFoundError(name)
        return pack.read(name)

    def record(self, path: str) -> Record | None:
        """The packed record of the step in `path`, or None; one that is damaged or quarantined is none."""
        pack = self.open_for(f"{path}/{RECORD}")
        record = pack.record(path) if pack else None
        return None if record is None or self._files.exists(f"{path}/{ASIDE}") else record

    def holds(self, path: str) -> bool:
        """Whether the step in `path` has a packed record, damaged or not."""
        pack = self.open_for(f"{path}/{RECORD}")
        return pack is not None and f"{path}/{RECORD}" in pack.members

    def open_for(self, name: str) -> Pack | None:
        """The pack that may have the file `name`, with that file in memory if it has; None where there is no pack."""
        pack_name = pack_of(name)
        if pack_name is None:
            return None
        pack = self.open(pack_name)
        if pack is None or pack.whole or pack.has(name):
            return pack
        if name not in pack.members and name.endswith(f"/{RECORD}") and pack.has_all_records():
            return pack
        return self.open(pack_name, whole=True)

    def open(self, pack_name: str, *, whole: bool = False) -> Pack | None:
        """The pack of that name with all its records (`whole`: with all files), or None.

        Those that were read last are kept, as long as they are not written again, which their stamps tell. Elsewhere a stamp is a
        request of its own: it is asked for when a pack is read again, as most steps of a store that is not packed have none.
        """
        with self._lock:
            was_read, kept = pack_name in self._open, self._open.get(pack_name)
        stamp = None
        if self._files.is_local or was_read:
            stamp = self._files.stamp(pack_name)
            if stamp is None and self._files.is_local:
                return None
        if kept is not None and kept[0] == stamp and (kept[1].whole or not whole):
            return kept[1]
        pack = self._load(pack_name, whole)
        with self._lock:
            self._open.pop(pack_name, None)
            if pack is not None:
                self._open[pack_name] = None if stamp is None else (stamp, pack)
            while len(self._open) > MOST_OPEN:
                self._open.pop(next(iter(self._open)))
        return pack

    def _load(self, name: str, whole: bool) -> Pack | None:
        try:
            if not whole:
                content = self._files.read(name, size=BEGINNING)
                pack = Pack(name, content, len(content) < BEGINNING)
                if pack.has_all_records() and all(pack.has(f"{path}/{RECORD}") for path in pack.paths()):
                    return pack
            return Pack(name, self._files.read(name), whole=True)
        except FileNotFoundError:
            return None

    def names(self, under: str = "") -> list[str]:
        """Names of all packs, or of those of one model or checkpoint (`under`), sorted."""
        if under.count("/"):
            name = f"{FOLDER}/{under}{SUFFIX}"
            return [name] if self._files.exists(name) else []
        return self._files.matches(f"{FOLDER}/{under or '*'}/*{SUFFIX}")

    def paths(self, kind: str) -> Iterable[str]:
        """Folders of the packed steps below `checkpoints`, `scores`, `probes`, or below a folder of one, quarantined ones too."""
        top, _, under = kind.partition("/")
        for name in self.names("/".join(under.split("/")[:2])):
            if top == "checkpoints":  # what a pack is named after is in it
                yield checkpoint_of(name)
            elif (pack := self.open(name)) is not None:
                yield from (path for path in pack.paths() if path.startswith(f"{kind}/"))
