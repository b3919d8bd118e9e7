"""The checksum of a text beside the records: a change of any character of it is noticed, and texts without one are trusted."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmmcl.ledger.record import DamagedError
from lmmcl.ledger.side_files import encode, read_text
from lmmcl.ledger.store import Store

NAME = "failures/one.txt"


def test_any_changed_character_is_noticed(tmp_path: Path) -> None:
    files, content = Store(str(tmp_path)), encode(NAME, "it broke\nhere")
    for place in range(len(content) - 1):  # the line break at the end does not count
        files.write(NAME, content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(DamagedError):
            read_text(files, NAME)
    files.write(NAME, content)
    assert read_text(files, NAME) == "it broke\nhere"


@pytest.mark.parametrize("text", ["plain", f"ends with a key {'0123456789abcdef' * 4}\n", "--- a line ---\n"])
def test_a_text_without_a_checksum_is_trusted(tmp_path: Path, text: str) -> None:
    files = Store(str(tmp_path))
    files.write(NAME, text.encode())
    assert read_text(files, NAME) == text
