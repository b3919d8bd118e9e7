"""Outputs replace what was there at once, or leave it as it was."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from lmmcl.atomic_files import replacing, write_bytes, write_text


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_file_is_replaced_at_its_end_and_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    write_text(path, "old")
    path.chmod(0o640)
    with replacing(path) as partial:
        assert partial.parent == path.parent and partial.suffix == ".html"
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o640
    assert names(path.parent) == ["page.html"]


def test_an_error_leaves_what_was_there_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_bytes(path, b"old")
    with pytest.raises(OSError, match="No space"), replacing(path) as partial:
        partial.write_text("ha")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_bytes() == b"old" and names(tmp_path) == ["page.html"]


def test_a_link_still_leads_to_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "link.html").symlink_to(tmp_path / "real.html")
    write_text(tmp_path / "link.html", "text")
    assert (tmp_path / "link.html").is_symlink() and (tmp_path / "real.html").read_text() == "text"


@pytest.mark.parametrize("before", ["none", "empty", "full"])
def test_a_folder_is_replaced_as_a_whole(before: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    if before != "none":
        folder.mkdir()
    if before == "full":
        (folder / "stale").write_text("of an earlier run")
    with replacing(folder) as partial:
        partial.mkdir()
        (partial / "a").write_text("a")
    assert names(folder) == ["a"] and names(tmp_path) == ["folder"]
    with pytest.raises(RuntimeError), replacing(folder) as partial:
        partial.mkdir()
        raise RuntimeError
    assert names(folder) == ["a"] and names(tmp_path) == ["folder"]


def test_where_nothing_was_written_nothing_changes(tmp_path: Path) -> None:
    with replacing(tmp_path / "folder"):
        pass
    assert names(tmp_path) == []


def test_names_that_are_no_utf8_are_written_as_escapes(tmp_path: Path) -> None:
    write_text(tmp_path / "page", "\udcff é")
    assert (tmp_path / "page").read_text(encoding="utf-8") == "\\udcff é"


@pytest.mark.parametrize("name", ["", ".", "/", "folder"])
def test_a_folder_is_not_replaced_by_a_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("old")
    with pytest.raises(IsADirectoryError) as error:
        write_text(Path(name), "new")
    assert error.value.filename == str(Path(name))
    assert names(tmp_path) == ["folder"] and (tmp_path / "folder" / "file").read_text() == "old"
