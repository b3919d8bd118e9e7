"""How routed benchmarks are asked: one model at a time, timed by benchmark, resumed after a kill, shown as they go."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lmmcl.config.settings import Evaluation
from lmmcl.evaluation import expert_answers, partial_answers
from lmmcl.evaluation.expert_answers import record_routed
from lmmcl.evaluation.judging.local_judge import LocalJudges
from lmmcl.ledger import Ledger
from lmmcl.models import get_model
from lmmcl.steps import Checkpoint, Evaluate, Pretrained
from lmmcl.tasks import get_benchmark
from lmmcl.tasks.examples import Example
from lmmcl.tasks.skills import Benchmark
from lmmcl.weights.expert_routing import Routing

CHECKPOINT = Pretrained(get_model("tiny-onevision"))
ROUTER, FIRST, SECOND = (Pretrained(get_model(name)) for name in ("tiny-next", "tiny-onevision", "llava-onevision-7b"))
ROUTING = Routing((FIRST, SECOND), ROUTER, ("birds", "counting"))
STEPS = [
    Evaluate(CHECKPOINT, get_benchmark(name), Evaluation(limit=4, precision="fp32")) for name in ("colour", "shape")
]


class Killed(Exception):
    """In place of SIGKILL."""


class Model:
    """A loaded model, by the name of its checkpoint."""

    def __init__(self, name: str) -> None:
        self.name = name


@dataclass
class Asking:
    """What was loaded and asked, in order; `seconds` for each call, and a kill before the call of that number."""

    seconds: float = 0.0
    kill_at: int | None = None
    loaded: list[str] = field(default_factory=list)
    alive: list[int] = field(default_factory=list)
    calls: list[tuple[str, str, tuple[int, ...]]] = field(default_factory=list)
    shown: list[tuple[int, str]] = field(default_factory=list)
    _models: list[weakref.ref[Model]] = field(default_factory=list)

    def load(self, checkpoint: Checkpoint) -> Model:
        self.alive.append(sum(model() is not None for model in self._models))
        model = Model(checkpoint.model.name)
        self._models.append(weakref.ref(model))
        self.loaded.append(model.name)
        return model

    def said(
        self,
        model: Model,
        processor: Any,
        questions: Benchmark,
        *,
        limit: int | None,
        answered: Sequence[str],
        rows: Sequence[int],
        **others: Any,
    ) -> Iterator[tuple[Example, str]]:
        if len(self.calls) == self.kill_at:
            raise Killed
        self.calls.append((model.name, questions.name, tuple(rows)))
        time.sleep(self.seconds)
        examples = questions.take(limit)
        for place in rows:
            text = "AB"[place % 2] if model.name == ROUTER.model.name else f"{model.name} {place}"
            yield examples[place], text

    def begun(self, number: int, doing: str) -> Any:
        self.shown.append((number, doing))
        return lambda answered, questions: None

    def run(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(expert_answers, "said", self.said)
        missing = [step for step in STEPS if ledger.find(step) is None]
        with LocalJudges("cpu") as judges:
            record_routed(
                missing,
                ledger,
                ROUTING,
                self.load,
                CHECKPOINT.model.load_processor(),
                batch_size=2,
                judges=judges,
                progress_of=self.begun,
            )


@pytest.fixture(autouse=True)
def kept_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_answers, "LEAST_SECONDS", 0.0)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path))


def test_one_model_is_in_memory_at_a_time(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    asking = Asking()
    asking.run(ledger, monkeypatch)
    assert asking.loaded == [checkpoint.model.name for checkpoint in (ROUTER, FIRST, SECOND)]
    assert asking.alive == [0, 0, 0]


def test_seconds_are_those_of_a_benchmarks_own_questions(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = time.monotonic()
    asking = Asking(seconds=0.2)
    asking.run(ledger, monkeypatch)
    whole = time.monotonic() - begun
    seconds = [ledger.find(step)["seconds"] for step in STEPS]  # type: ignore[index]
    assert len(asking.calls) == 6
    assert all(taken >= 0.6 for taken in seconds) and sum(seconds) <= whole


def test_what_router_and_experts_said_before_a_kill_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, ledger = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "killed"))
    Asking().run(whole, monkeypatch)
    first = Asking(seconds=0.1, kill_at=5)
    with pytest.raises(Killed):
        first.run(ledger, monkeypatch)
    second = Asking(seconds=0.1)
    second.run(ledger, monkeypatch)
    assert second.loaded == [SECOND.model.name] and len(second.calls) == 1
    for step in STEPS:
        assert ledger.read_lines(step.path, "samples.jsonl") == whole.read_lines(step.path, "samples.jsonl")
        record = ledger.find(step)
        assert record is not None and record["routed"] == {"experts": [2, 2], "unreadable": 0}
        assert record["seconds"] >= 0.3, "of both tries"
    assert not list(tmp_path.glob("killed/runs/*"))


def test_a_benchmark_is_recorded_when_its_last_question_is_answered(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the second benchmark every question goes to the first expert."""

    class OneExpert(Asking):
        def said(self, model: Model, processor: Any, questions: Benchmark, **others: Any) -> Any:
            for example, text in super().said(model, processor, questions, **others):
                yield example, "A" if text == "B" and questions.name == "shape" else text

    with pytest.raises(Killed):
        OneExpert(kill_at=4).run(ledger, monkeypatch)
    assert [ledger.find(step) is not None for step in STEPS] == [False, True]


def test_it_is_shown_what_is_done_with_each_benchmark(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    asking = Asking()
    asking.run(ledger, monkeypatch)
    assert asking.shown == [
        *((number, expert_answers.CHOOSING) for number in (1, 2)),
        *((number, expert_answers.ANSWERING) for _ in ROUTING.experts for number in (1, 2)),
    ]
