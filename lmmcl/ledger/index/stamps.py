"""By what is known, without reading it, whether a record is the one that was read before: size and time of change (or tag).

A packed record has the stamp of its pack. That there is a pack does not say that the record is in it: the reader finds out.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

from lmmcl.ledger.interface import LedgerAccess
from lmmcl.ledger.packs.listing import local_stamp, names_in
from lmmcl.ledger.packs.packed_files import FOLDER, SUFFIX, pack_of
from lmmcl.ledger.record import ASIDE, KINDS, RECORD

_PACKED = "pack:"


def is_packed(stamp: str) -> bool:
    """Whether a stamp is that of a pack."""
    return stamp.startswith(_PACKED)


class Stamps:
    """The stamps of one store at one moment."""

    def __init__(self, ledger: LedgerAccess) -> None:
        self._ledger, self._root = ledger, ledger.files.root
        self._known: dict[str, str | None] = {}
        self._packs: dict[str, str | None] = {}
        self._folders: dict[str, set[str]] = {}
        self._only_packed: dict[str, str] = {}
        """The stamps of packs by the folder of scores or probes whose records are all in them: no such folder is there."""

    def of(self, path: str) -> str | None:
        """The stamp of the record that would be read from the folder `path`, or of its pack; None where there is neither."""
        folder = path.rpartition("/")[0]
        if folder in self._only_packed:
            return self._only_packed[folder]
        if path not in self._known:
            self._known[path] = self._local(path) if self._ledger.is_local else self._elsewhere(path)
        return self._known[path]

    def _local(self, path: str) -> str | None:
        folder, pack = path.rpartition("/")[0], pack_of(path)
        packed = self._pack_stamp(pack) if pack else None
        if packed and not self._is_folder(folder):
            if folder.count("/") == 2:  # of one checkpoint
                self._only_packed[folder] = packed
            return packed  # the usual case of a large store: no folder of scores is left to look into
        single = local_stamp(f"{self._root}/{path}/{RECORD}")
        if single is None and packed is None and pack:  # perhaps it was packed after the pack was looked for
            del self._packs[pack]
            packed = self._pack_stamp(pack)
        if single is not None or packed is None:
            return single
        return None if local_stamp(f"{self._root}/{path}/{ASIDE}") else packed

    def _pack_stamp(self, pack: str) -> str | None:
        if pack not in self._packs:
            stamp = local_stamp(f"{self._root}/{pack}")
            self._packs[pack] = stamp and _PACKED + stamp
        return self._packs[pack]

    def _is_folder(self, name: str) -> bool:
        above, _, last = name.rpartition("/")
        if above not in self._folders:  # listed once: to ask for each of a thousand checkpoints takes longer
            self._folders[above] = set(names_in(f"{self._root}/{above}"))
        return last in self._folders[above]

    def _elsewhere(self, path: str) -> str | None:
        single = self._listed.get(f"{path}/{RECORD}")
        pack = pack_of(path)
        if single is not None or pack is None or f"{path}/{ASIDE}" in self._listed:
            return single
        packed = self._listed.get(pack)
        return packed and _PACKED + packed

    @cached_property
    def _listed(self) -> dict[str, str]:
        """The stamps of all records and packs of a store that is elsewhere, by their names.

        Packs are listed again at the end: what was packed while the single files were listed is in none of the first listings.
        """
        endings = (f"/{RECORD}", f"/{ASIDE}", SUFFIX)
        with ThreadPoolExecutor(len(KINDS) + 1) as pool:
            listings = pool.map(lambda folder: self._ledger.files.stamps(folder, endings), (*KINDS, FOLDER))
            listed = {name: stamp for stamps in listings for name, stamp in stamps.items()}
        return listed | self._ledger.files.stamps(FOLDER, endings)
