"""Runs whose steps are pretended: records as real ones leave them, scores from a formula, in milliseconds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lmmcl.cli import app
from lmmcl.ledger import Ledger
from lmmcl.steps import Checkpoint, CheckpointStep, Evaluate, Finetune, Merge, ScoringStep

QUESTIONS = 50

SEARCH = """
name: small
orders: {main: [counting, clock, birds]}
benchmarks: {held_out: [colour, shape]}
training: {precision: fp32}
grids:
  - {model: [tiny-onevision], recipe: [sa_proj], learning_rate: [1.0e-6, 1.0e-5, 1.0e-4, 1.0e-3]}
"""


def strength(step: Checkpoint) -> float:
    """0 at a learning rate of 1e-6, 3 at 1e-3; a merge halves it."""
    if isinstance(step, Merge):
        return strength(step.tuned) / 2
    return math.log10(step.training.learning_rate) + 6 if isinstance(step, Finetune) else 0.0


def chance(step: Evaluate) -> float:
    """What is taught is known better the higher the rate; what is not is lost with its square, stage by stage."""
    taught, checkpoint = set(), step.checkpoint
    while checkpoint.parents:
        tuned = checkpoint.tuned if isinstance(checkpoint, Merge) else checkpoint
        taught.add(tuned.skill.name)
        checkpoint = tuned.parent
    x = strength(step.checkpoint)
    return 0.2 + 0.25 * x if step.benchmark.name in taught else 0.8 - 0.02 * x**2 * len(taught)


class Pretence:
    """Computes by formula in place of the runner; `computed` are the steps in their order."""

    def __init__(self) -> None:
        self.computed: list[str] = []
        self.breaks: Any = lambda step: None

    def compute(self, steps: Sequence[Any], ledger: Ledger, **_: Any) -> None:
        if isinstance(steps[0], CheckpointStep):
            self.breaks(steps[0])
            self._record(steps[0], ledger, {})
        else:
            self._answer(steps, ledger)

    def _answer(self, steps: Sequence[ScoringStep], ledger: Ledger) -> None:
        for step in steps:
            right = round(QUESTIONS * chance(step)) if isinstance(step, Evaluate) else 0
            scores = [1.0] * right + [0.0] * (QUESTIONS - right)
            self._record(step, ledger, {"sample_scores": scores, "score": 100 * right / QUESTIONS})

    def _record(self, step: Any, ledger: Ledger, fields: dict[str, Any]) -> None:
        with ledger.writing(step) as draft:
            draft.commit({"seconds": 1.0, **fields})
        self.computed.append(step.key)


@pytest.fixture
def pretence(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretence]:
    made = Pretence()
    monkeypatch.setattr("lmmcl.runner.inline.compute", made.compute)
    # The page and the picture have tests of their own, and take seconds.
    for module in ("command", "reporting.report_command", "reporting.report_files"):
        monkeypatch.setattr(f"lmmcl.runner.{module}.write_report", lambda results, folder, *_: [folder / "index.html"])
    yield made


def tell_provenance(made: Pretence) -> None:
    """Have the records of steps say with what and on what they were computed."""
    record = made._record
    said = {"provenance": {"lmmcl": "0.1.0", "torch": "2.9.1+cpu"}, "strategy": {"workers": 2, "device": "cuda"}}
    made._record = lambda step, ledger, fields: record(step, ledger, {**fields, **said})  # type: ignore[method-assign]


def lmmcl(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run(sweep: Path, *more: str) -> Result:
    return lmmcl("run", sweep, "--store", sweep.parent / "store", "--inline", "--mlflow", "off", *more)


def told(command: str, sweep: Path, *more: str) -> dict[str, Any]:
    """What a command tells of the sweep as JSON."""
    as_json = ["--format", "json"] if command == "report" else ["--json"]
    return json.loads(lmmcl(command, sweep, "--store", sweep.parent / "store", *as_json, *more).stdout)


def rates(trials: Sequence[dict[str, Any]], **having: Any) -> list[float]:
    """Learning rates of the reported trials that have these values, ascending."""
    return sorted(t["learning_rate"] for t in trials if all(t[name] == value for name, value in having.items()))
