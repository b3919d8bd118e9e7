"""The way from the command line to the first loss is short enough to be read in a traceback."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from made import write_sweep

import lmmcl
from lmmcl.cli import main
from lmmcl.training.stage.trainer import StageTrainer

PACKAGE = Path(lmmcl.__file__).parent
MOST = 14


class FirstLoss(BaseException):
    """Ends the run: no handler of Exception takes it for the failure of a trial."""


def frames() -> Iterator[FrameType]:
    """All frames between here and the caller, those of coroutines that wait for this computation included."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
    try:
        waiting = asyncio.all_tasks() - {asyncio.current_task()}
    except RuntimeError:  # no event loop runs: there are no hops
        return
    for task in waiting:
        awaited: Any = task.get_coro()
        while awaited is not None:
            if (suspended := getattr(awaited, "cr_frame", None)) is not None:
                yield suspended
            awaited = getattr(awaited, "cr_await", None)


def ours() -> list[str]:
    """Which of them are the package's, the outermost first."""
    of_package = [frame for frame in frames() if Path(frame.f_code.co_filename).is_relative_to(PACKAGE)]
    return [f"{Path(f.f_code.co_filename).relative_to(PACKAGE)}: {f.f_code.co_qualname}" for f in reversed(of_package)]


def test_from_the_command_line_to_the_first_loss_are_few_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []
    compute_loss = StageTrainer.compute_loss

    def watched(self: StageTrainer, *arguments: Any, **more: Any) -> Any:
        found.extend([*ours(), f"training/stage/trainer.py: {compute_loss.__qualname__}"])
        raise FirstLoss

    monkeypatch.setattr(StageTrainer, "compute_loss", watched)
    arguments = ["--store", str(tmp_path / "store"), "--inline", "--mlflow", "off"]
    monkeypatch.setattr(sys, "argv", ["lmmcl", "run", str(write_sweep(tmp_path)), *arguments])
    with pytest.raises(FirstLoss):
        main()
    assert found[0] == "cli/__init__.py: main"
    assert len(found) <= MOST, "\n".join(found)


def test_coroutines_that_wait_are_counted_as_well() -> None:
    async def inner() -> list[str]:
        return [frame.f_code.co_name for frame in frames()]

    async def outer() -> list[str]:
        return await asyncio.create_task(inner())

    async def begin() -> list[str]:
        return await asyncio.create_task(outer())

    assert {"inner", "outer", "begin"} <= set(asyncio.run(begin()))
