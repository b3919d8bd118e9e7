from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from synthetic_results import make_sweep

from lmmcl.errors import UserError
from lmmcl.maintenance.screenshots import write_pictures

SWEEP = make_sweep(recipes=["full"], rates=[1e-5], updates=2)


def test_without_a_browser_the_trade_off_is_drawn_and_the_rest_is_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    files, missing = write_pictures(SWEEP, tmp_path / "made")
    assert [file.name for file in files] == ["tradeoff.png"] and Image.open(files[0]).width > 600
    assert "page.png and mlflow.png need a browser" in missing[0] and "chromium" in missing[0]


def test_a_browser_that_takes_no_picture_is_told_with_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "chromium"
    broken.write_text("#!/bin/sh\necho no display >&2\n", encoding="utf-8")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(UserError, match=r"produced no screenshot of file:.*no display"):
        write_pictures(SWEEP, tmp_path / "made")
