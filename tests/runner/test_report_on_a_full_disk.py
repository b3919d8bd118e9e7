"""A disk that is full when the report is written: what was computed is reported, the old page stays, the message says how to continue."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from made import write_sweep
from pretended import SEARCH, Pretence, pretence, run  # noqa: F401 - pretence is a fixture

from lmmcl import atomic_files
from lmmcl.errors import UserError
from lmmcl.runner import command

PAGE = command.write_report


def test_the_old_page_stays_and_the_message_says_how_to_go_on(
    tmp_path: Path,
    pretence: Pretence,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "write_report", PAGE)
    sweep = write_sweep(tmp_path, SEARCH)
    page = tmp_path / "store" / "reports" / "small" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text("an older page")

    def no_room(path: Path) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic_files, "_flush", no_room)
    with pytest.raises(
        UserError, match=r"an earlier one is unchanged.*All steps are recorded.*lmmcl report .*--format html"
    ):
        run(sweep)
    assert pretence.computed and page.read_text() == "an older page"
    assert [path.name for path in page.parent.iterdir() if path.name.startswith(".")] == []


def test_a_failed_trial_is_told_all_the_same(
    tmp_path: Path,
    pretence: Pretence,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def breaks(step: Any) -> None:
        raise RuntimeError("broke")

    def no_room(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    pretence.breaks = breaks
    monkeypatch.setattr(command, "write_report", no_room)
    done = run(write_sweep(tmp_path, SEARCH))
    assert done.exit_code == 1 and "not written" in done.output and "failed" in done.output
