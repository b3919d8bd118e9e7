"""The format of a pack: files come back as they were, other programs can read it, and no flipped byte goes unnoticed."""

from __future__ import annotations

import io
import zipfile

import pytest

from lmmcl.ledger.packs.pack_file import directory, encode_pack, is_whole, members

FILES = {
    "scores/m/1-a-0123/colour-4567/samples.jsonl": b'{"id": 1}\n' * 50,
    "scores/m/1-a-0123/colour-4567/record.json": b'{"score": 50.0}',
    "checkpoints/m/1-a-0123/record.json": '{"label": "größe"}'.encode(),
    "checkpoints/m/1-a-0123/größe.json": b"",
}
PACK = encode_pack(FILES)


def contents(pack: bytes) -> dict[str, bytes | None]:
    """What can be read of a pack; None of files that are damaged."""
    found: dict[str, bytes | None] = {}
    for name, member in members(pack).items():
        try:
            found[name] = member.read(pack)
        except ValueError:
            found[name] = None
    return found


def test_the_files_come_back_records_first() -> None:
    assert contents(PACK) == FILES
    assert [name.endswith("record.json") for name in members(PACK)] == [True, True, False, False]
    assert is_whole(PACK) and directory(PACK) == FILES.keys()


def test_the_same_files_make_the_same_bytes_in_whatever_order_they_come() -> None:
    assert encode_pack(dict(reversed(FILES.items()))) == PACK


def test_other_programs_can_read_a_pack() -> None:
    with zipfile.ZipFile(io.BytesIO(PACK)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == FILES


@pytest.mark.parametrize("size", [1, 40, 100, 200, len(PACK) - 1])
def test_the_beginning_of_a_pack_holds_what_lies_in_it(size: int) -> None:
    beginning = PACK[:size]
    for name, member in members(beginning, whole=False).items():
        if member.start + member.packed_bytes <= size:
            assert member.read(beginning) == FILES[name]


def test_any_flipped_byte_is_found_and_costs_one_file_at_most() -> None:
    for place in range(len(PACK)):
        flipped = PACK[:place] + bytes([PACK[place] ^ 0x41]) + PACK[place + 1 :]
        assert not is_whole(flipped), place
        read = contents(flipped)
        right = [name for name, content in FILES.items() if read.get(name) == content]
        assert len(right) >= len(FILES) - 1, place
        assert all(content is None or content == FILES[name] for name, content in read.items() if name in FILES), place
