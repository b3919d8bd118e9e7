"""A large table with embedded images is read row by row from a copy in the data folder, and gives the same examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from own_data import write_receipts

from lmmcl.tasks.files.prepared import PreparedExamples
from lmmcl.tasks.layouts.columns import columns_of
from lmmcl.tasks.sources import large_tables
from lmmcl.tasks.sources.pieces import file_piece


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LMMCL_DATA", str(tmp_path / "data"))


def write_table(folder: Path, *, embedded: bool = True) -> Path:
    import pyarrow
    import pyarrow.parquet

    write_receipts(folder, rows=6)
    rows: list[dict[str, Any]] = []
    for number in range(6):
        image = folder / f"images/train-{number}.png"
        value = {"bytes": image.read_bytes(), "path": None} if embedded else {"bytes": None, "path": str(image)}
        rows.append({"photo": value, "question": "?", "answers": ["a", "b", "b"], "shop": number, "rate": 0.5})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "rows.parquet")
    return folder / "rows.parquet"


def test_the_copy_gives_the_same_examples_and_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    piece = file_piece(write_table(tmp_path), columns=columns_of({"image": "photo"}))
    held = list(piece.load())
    assert not (tmp_path / "data").exists()
    monkeypatch.setattr(large_tables, "LARGE", 1)
    stored = piece.load()
    assert isinstance(stored, PreparedExamples)
    assert list(stored) == held
    assert held[0].metadata == {"shop": 0, "rate": 0.5}
    [copy] = (tmp_path / "data/files").iterdir()
    assert copy.stem == piece.digest
    before = copy.stat().st_mtime_ns
    assert list(piece.load()) == held
    assert copy.stat().st_mtime_ns == before


def test_images_that_are_files_of_their_own_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_tables, "LARGE", 1)
    piece = file_piece(write_table(tmp_path, embedded=False), columns=columns_of({"image": "photo"}))
    assert isinstance(piece.load(), list)
    assert not list((tmp_path / "data/files").glob("*"))
