"""Judges that run in the process that asks: loaded once, one at a time, on the device of the evaluation, and given back."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made import MadeModel, made_examples, write_sweep

from lmmcl.config.cluster import Cluster, EvaluationPlacement
from lmmcl.config.settings import Evaluation
from lmmcl.config.sweep import load_sweep
from lmmcl.evaluation import engines
from lmmcl.evaluation.engines import Engine
from lmmcl.evaluation.judging import local_judge
from lmmcl.evaluation.judging.local_judge import LocalJudges
from lmmcl.ledger import Ledger
from lmmcl.models import get_model
from lmmcl.planning.memory_estimate import asked_memory
from lmmcl.runner import execute
from lmmcl.steps import Evaluate, Pretrained
from lmmcl.tasks.metrics.judge import Judge, LocalJudge
from lmmcl.tasks.skills import Benchmark


class Model:
    """Loads things that can be counted."""

    def __init__(self) -> None:
        self.devices: list[str] = []
        self.alive: list[int] = []
        self.loaded: list[weakref.ref[Any]] = []

    def load_model(self, *, precision: str, device: str) -> Any:
        self.alive.append(sum(model() is not None for model in self.loaded))
        self.devices.append(device)
        model = MadeModel()
        self.loaded.append(weakref.ref(model))
        return model

    def load_processor(self) -> Any:
        return SimpleNamespace()


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setattr(local_judge, "_of_lmm", lambda judge, model, reader, prompts: iter(["yes"] * len(prompts)))
    return Model()


def judge(model: Any, content: str) -> Judge:
    return Judge("made", json.dumps(content), local=LocalJudge(model, "bf16"))


def test_a_judge_is_loaded_once_on_the_device_and_gone_at_the_end(model: Model) -> None:
    replies: dict[str, str] = {}
    with LocalJudges("meta") as judges:
        for prompt in ("one", "two"):
            judges.ask(judge(model, "same"), [prompt], replies.__setitem__)
        assert model.devices == ["meta"] and model.loaded[0]() is not None
    assert model.loaded[0]() is None and set(replies) == {"one", "two"}


def test_a_judge_of_other_content_at_the_same_place_is_another_and_takes_the_place_of_the_first(model: Model) -> None:
    with LocalJudges("cpu") as judges:
        for content in ("before", "after", "after"):
            judges.ask(judge(model, content), ["one"], lambda prompt, reply: None)
    assert len(model.loaded) == 2 and model.alive == [0, 0]


def test_an_evaluation_on_a_gpu_has_its_judge_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (trial,) = load_sweep(write_sweep(tmp_path, SWEEP)).trials
    devices: list[str] = []
    monkeypatch.setattr(execute, "pick_device", lambda gpus: "cpu" if gpus == 1 else "another")
    monkeypatch.setattr(LocalJudges, "__init__", lambda self, device: devices.append(device))
    monkeypatch.setattr(LocalJudges, "__exit__", lambda self, *error: None)
    monkeypatch.setattr(execute, "_ask_model", lambda *arguments: None)
    steps = trial.stages[0].asked[:1]
    cluster = Cluster(evaluation=EvaluationPlacement(gpus=1))
    execute._ask(steps, Ledger(str(tmp_path)), cluster, lambda key, note: None)
    assert devices == ["cpu"]


SWEEP = """
name: judged
orders: {main: [counting]}
benchmarks: {held_out: [colour]}
training: {max_steps: 2, global_batch_size: 2, precision: fp32}
evaluation: {precision: fp32, limit: 2}
grids:
  - {model: [tiny-onevision], recipe: [sa_proj], learning_rate: [1.0e-3]}
"""


class Judged(Benchmark):
    """A benchmark that a large local model judges."""

    @property
    def judge(self) -> Judge:
        return judge(get_model("llava-onevision-7b"), "large")


def test_the_weights_of_a_judge_are_counted_beside_the_model_that_is_asked() -> None:
    model = get_model("llava-onevision-0.5b")
    judged, plain = (
        Evaluate(Pretrained(model), kind("open", 1, "exact_match", made_examples), Evaluation())
        for kind in (Judged, Benchmark)
    )
    place = EvaluationPlacement(gpus=1)
    weights = 2 * sum(get_model("llava-onevision-7b").role_counts().values())
    assert asked_memory(plain, place).judge == 0
    assert asked_memory(judged, place).total == asked_memory(plain, place).total + weights
    other = EvaluationPlacement(gpus=1, engine="vllm")
    alone = asked_memory(judged, other)
    assert alone.weights + alone.judge == weights, "the engine is closed before the judge is loaded"


class Answering(Engine):
    """An engine that always says the same."""

    name = "made"
    image_backend = None

    def answers(self, benchmark: Benchmark, limit: int | None, *, answered: Sequence[str] = ()) -> Iterator[Any]:
        return ((example, "yes") for example in benchmark.take(limit))


def test_an_engine_is_closed_before_a_local_judge_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    @contextmanager
    def opened(*arguments: Any) -> Iterator[Engine]:
        yield Answering()
        happened.append("closed")

    def ask(self: LocalJudges, judge: Judge, prompts: Sequence[str], on_reply: Callable[[str, str], None]) -> None:
        happened.append("judged")
        for prompt in prompts:
            on_reply(prompt, "VERDICT: yes")

    monkeypatch.setattr(engines, "get_engine", lambda name: SimpleNamespace(open=opened))
    monkeypatch.setattr(LocalJudges, "ask", ask)
    step = Evaluate(
        Pretrained(get_model("tiny-onevision")), Judged("open", 1, "exact_match", made_examples), Evaluation()
    )
    ledger, cluster = Ledger(str(tmp_path)), Cluster(evaluation=EvaluationPlacement(engine="vllm"))
    assert execute._ask_engine("made", [step], ledger, cluster, LocalJudges("cpu"), lambda key, note: None) == []
    record = ledger.find(step)
    assert record is not None and (record["score"], record["engine"]) == (100.0, "made")
    assert happened[:2] == ["closed", "judged"]
