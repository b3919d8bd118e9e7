"""While the last steps are computed, what the page shows of every sweep is drawn already."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made import made_trial

from lmmcl.errors import UserError
from lmmcl.reports.page import question_pictures
from lmmcl.runner import run
from lmmcl.runner.reporting.report_ahead import get_ready
from lmmcl.tasks import get_benchmark
from lmmcl.tasks.synthetic import draw

LIMIT = 3


def sweep_of(*benchmarks: Any) -> Any:
    asked = [SimpleNamespace(benchmark=benchmark, evaluation=SimpleNamespace(limit=LIMIT)) for benchmark in benchmarks]
    return SimpleNamespace(trials=[SimpleNamespace(stages=[SimpleNamespace(evaluations=asked)])])


def test_questions_are_drawn_once_as_many_as_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    colour = get_benchmark("colour")
    drawn: list[int] = []
    draws = draw.Examples._draw
    monkeypatch.setattr(draw.Examples, "_draw", lambda self, index: drawn.append(index) or draws(self, index))
    colour.load()._made.clear()
    get_ready(sweep_of(colour))
    assert drawn == list(range(LIMIT))
    [example.images for example in colour.take(LIMIT)]
    assert len(drawn) == LIMIT, "the page finds them drawn"


def test_pictures_are_encoded_by_then_for_the_page_and_for_the_table_of_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    colour = get_benchmark("colour")
    monkeypatch.setattr(question_pictures, "_remembered", {})
    get_ready(sweep_of(colour))
    monkeypatch.setattr(question_pictures, "_encode", None)
    for example in colour.take(LIMIT):
        assert question_pictures.encode_picture(example.open_images()[0]) == question_pictures.thumbnail(example)


def test_questions_that_cannot_be_read_are_left_to_whoever_asks_them() -> None:
    def gone() -> Any:
        raise UserError("no such file")

    broken = SimpleNamespace(name="gone", load=gone)
    get_ready(sweep_of(broken, get_benchmark("colour")))


def test_it_begins_with_the_first_stage_that_was_trained_where_other_processes_compute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[Any] = []
    monkeypatch.setattr(run, "start_report_ahead", begun.append)
    trial = made_trial()
    for beside, stages, wanted in ((True, (0, 1, 2), 1), (True, (0,), 0), (False, (0, 1, 2), 0)):
        begun.clear()
        reporter = object.__new__(run.ProgressReporter)
        reporter.runs, reporter.before, reporter._tracker = set(), set(), None
        reporter._display = SimpleNamespace(stage_done=lambda *_, **__: None)  # type: ignore[assignment]
        reporter._context, reporter._may_get_ready = SimpleNamespace(sweep="sweep"), beside  # type: ignore[assignment]
        for stage in stages:
            reporter.stage_done(trial, {"stage": stage})
        assert begun == ["sweep"] * wanted


def test_what_the_page_imports_when_it_is_drawn_is_what_is_imported_ahead(tmp_path: Path) -> None:
    code = (
        "import sys; from lmmcl.runner import run; from lmmcl.runner.reporting.report_ahead import LIBRARIES; "
        "print(*(name for name in LIBRARIES if name.split('.')[0] in sys.modules and name in sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not shown.stdout.split() or shown.stdout.split() == ["lmmcl.reports.page.page"], "a command begins without"
