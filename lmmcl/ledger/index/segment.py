"""One file of an index: copies of records, each with the stamp of the `record.json` that it is a copy of.

    index/<random>.records      SHA-256 of the rest, a line of JSON (paths, stamps, sizes of blocks), compressed blocks of records

A segment is written once and never changed. It is not the truth: what it says of a path counts only while the record there has
the same stamp (size, and time of change or tag), and without it the records themselves are read. Scores of questions are kept as
arrays: they are most of a record, and slow to read as text.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmmcl.ledger.record import Record

FOLDER = "index"
SUFFIX = ".records"
FORMAT = "lmmcl-index-1"
BLOCK = 64
"""Records that are compressed together: those of about five checkpoints."""
OPEN_BLOCKS = 4
SCORES = "sample_scores"


@dataclass(frozen=True)
class Segment:
    """A segment in memory; records are decoded when they are asked for."""

    places: Mapping[str, int]
    stamped: Sequence[str]
    blocks: Sequence[bytes | memoryview]
    _open: dict[int, tuple[list[list[int]], memoryview]] = field(default_factory=dict)
    """The blocks that were asked last, decompressed."""

    @property
    def stamps(self) -> dict[str, str]:
        """The stamp of each record, by path: put together when it is asked for, since a large store has many."""
        return dict(zip(self.places, self.stamped, strict=True))

    def has(self, path: str, stamp: str) -> bool:
        """Whether the segment has a record of that path and stamp."""
        place = self.places.get(path)
        return place is not None and self.stamped[place] == stamp

    def record(self, path: str) -> Record:
        """The record of a path that the segment has."""
        place = self.places[path]
        spans, content = self._block(place // BLOCK)
        start, text, width = spans[place % BLOCK]
        fields = json.loads(str(content[start : start + text], "utf-8"))  # of bytes json would guess the encoding first
        if width:
            fields[SCORES] = _scores(content[start + text : start + text + width], fields[SCORES])
        return Record(path, fields)

    def _block(self, number: int) -> tuple[list[list[int]], memoryview]:
        if number not in self._open:
            content = memoryview(zlib.decompress(self.blocks[number]))
            head = int.from_bytes(content[:4], "little")
            if len(self._open) >= OPEN_BLOCKS:
                self._open.pop(next(iter(self._open)))
            self._open[number] = json.loads(bytes(content[4 : 4 + head])), content[4 + head :]
        return self._open[number]


def compact(record: Record) -> Record:
    """The record with its scores as an array: as a list of numbers they take 30 times as much memory."""
    scores = record.fields.get(SCORES)
    if scores is None or not len(scores):
        return record
    content, kind = _pack(scores)
    return Record(record.path, {**record.fields, SCORES: _scores(memoryview(content), kind)})


def _scores(content: memoryview, kind: str) -> Any:
    """Scores of questions as an array of fp64; whole numbers up to 255 are stored in a byte."""
    import numpy as np

    return np.frombuffer(content, dtype=kind)


def encode_segment(records: Sequence[tuple[str, Record]]) -> bytes:
    """The content of a segment; `records` come with their stamps, in the order in which they will be looked at."""
    blocks = [_encode_block([record for _, record in records[at : at + BLOCK]]) for at in range(0, len(records), BLOCK)]
    body = b"".join(blocks)
    header = {
        "format": FORMAT,
        "blocks": [len(block) for block in blocks],
        "stamps": {record.path: stamp for stamp, record in records},
    }
    rest = json.dumps(header, separators=(",", ":")).encode() + b"\n" + body
    return hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


def _encode_block(records: Sequence[Record]) -> bytes:
    spans, parts, at = [], [], 0
    for record in records:
        fields, scores = dict(record.fields), b""
        if fields.get(SCORES) is not None and len(fields[SCORES]):
            scores, fields[SCORES] = _pack(fields[SCORES])
        text = json.dumps(fields, separators=(",", ":")).encode()
        spans.append([at, len(text), len(scores)])
        parts += [text, scores]
        at += len(text) + len(scores)
    head = json.dumps(spans, separators=(",", ":")).encode()
    return zlib.compress(len(head).to_bytes(4, "little") + head + b"".join(parts), 1)


def _pack(scores: Any) -> tuple[bytes, str]:
    import numpy as np

    wide = np.asarray(scores, dtype="<f8")
    narrow = wide.astype("u1") if float(wide.min()) >= 0 and float(wide.max()) <= 255 else None
    if narrow is not None and bool((narrow == wide).all()):
        return narrow.tobytes(), "u1"
    return wide.tobytes(), "<f8"


def decode_segment(content: bytes) -> Segment:
    """The segment; raises ValueError where it was cut or changed, or is of another format."""
    start = content.find(b"\n") + 1
    view = memoryview(content)  # copied nowhere: the index of a large store is large
    if content[: start - 1] != hashlib.sha256(view[start:]).hexdigest().encode():
        raise ValueError("checksum mismatch")
    at = content.find(b"\n", start) + 1
    header = json.loads(content[start:at])
    if header.get("format") != FORMAT:
        raise ValueError(f"is not an index of a supported version ({header.get('format')}, not {FORMAT})")
    blocks, body = [], memoryview(bytes(view[at:]))  # without the header, which may be larger
    at = 0
    for length in header["blocks"]:
        blocks.append(body[at : at + length])
        at += length
    known: dict[str, str] = {}  # the steps of a pack have one stamp
    stamped = [known.setdefault(stamp, stamp) for stamp in header["stamps"].values()]
    return Segment({path: place for place, path in enumerate(header["stamps"])}, stamped, blocks)
