"""The format of a pack: a ZIP file whose comment is the SHA-256 of all that comes before it.

    packs/<model>/<label>-<key>.zip      scores/<model>/<label>-<key>/<benchmark>-<key>/record.json, step.json, …

A member is named like the file below the store, so `unzip` in the store's folder restores the single files too. Records come
first: the beginning of a pack, read in one request, holds all of them. Members are found by their own headers; the directory at
the end is for other programs and for telling what is missing from a damaged pack.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from lmmcl.ledger.record import RECORD

MARK = b"lmmcl-pack-1 "
_DIGEST = 64
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The same content makes the same bytes."""
_LOCAL, _CENTRAL = b"PK\x03\x04", b"PK\x01\x02"
_HEADER = struct.Struct("<4s5H3I2H")
_UTF8 = 0x800


class Member(NamedTuple):
    """Where a file lies in a pack."""

    start: int
    packed_bytes: int
    checksum: int
    is_compressed: bool

    def read(self, content: bytes) -> bytes:
        """The file; raises ValueError where it is damaged. `content` is the pack from its beginning."""
        packed = content[self.start : self.start + self.packed_bytes]
        try:
            data = zlib.decompress(packed, -zlib.MAX_WBITS) if self.is_compressed else packed
        except zlib.error as error:
            raise ValueError("checksum mismatch") from error
        if zlib.crc32(data) != self.checksum:
            raise ValueError("checksum mismatch")
        return data


def encode_pack(files: Mapping[str, bytes]) -> bytes:
    """The content of a pack of `files`, by their names below the store."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files, key=lambda name: (not name.endswith(f"/{RECORD}"), name)):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name])
        archive.comment = MARK + b"0" * _DIGEST
    body = buffer.getvalue()[:-_DIGEST]
    return body + hashlib.sha256(body).hexdigest().encode()


def is_whole(content: bytes) -> bool:
    """Whether a pack is what was written."""
    body, digest = content[:-_DIGEST], content[-_DIGEST:]
    return body.endswith(MARK) and hashlib.sha256(body).hexdigest().encode() == digest


def members(content: bytes, *, whole: bool = True) -> dict[str, Member]:
    """The files in a pack, or in its beginning (not `whole`). Damaged headers are passed over."""
    return dict(_walk(content, whole))


def _walk(content: bytes, whole: bool) -> Iterator[tuple[str, Member]]:
    at = 0
    while 0 <= at <= len(content) - _HEADER.size:
        signature, _, flags, method, _, _, checksum, packed, _, name_bytes, extra = _HEADER.unpack_from(content, at)
        name_at = at + _HEADER.size
        start = name_at + name_bytes + extra
        if signature == _CENTRAL:
            return
        if signature == _LOCAL and start <= len(content):
            name = content[name_at : name_at + name_bytes]
            encoding = "utf-8" if flags & _UTF8 or name.isascii() else "cp437"  # ASCII is both; this is quicker
            yield name.decode(encoding, "replace"), Member(start, packed, checksum, method == zipfile.ZIP_DEFLATED)
            after = start + packed
            if content[after : after + 2] == b"PK" or (after >= len(content) and not whole):
                at = after
                continue
        at = content.find(_LOCAL, at + 1)


def directory(content: bytes) -> set[str] | None:
    """The names that the directory at the end lists; None where that cannot be read."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return set(archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, UnicodeDecodeError, struct.error):
        return None
