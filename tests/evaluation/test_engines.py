"""Engines: the same questions in the same tokens, whichever engine answers; what is not installed is reported before anything starts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_vllm
import pytest
from fake_vllm import FakeLLM
from made import write_sweep
from rich.console import Console
from typer.testing import CliRunner

from lmmcl.cli import app
from lmmcl.config.cluster import Cluster
from lmmcl.config.settings import Evaluation
from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.evaluation import engines
from lmmcl.evaluation.engines import get_engine
from lmmcl.evaluation.engines.parity import compare_engines
from lmmcl.evaluation.engines.vllm_prompts import Vllm
from lmmcl.evaluation.samples import Sample
from lmmcl.ledger import Ledger
from lmmcl.models import get_model
from lmmcl.models.processing.encode import encode, prompt_ids
from lmmcl.runner.engines import engine_parity
from lmmcl.runner.run import run_sweep
from lmmcl.search.run_context import RunContext
from lmmcl.steps import Evaluate, Pretrained
from lmmcl.tasks import get_benchmark
from lmmcl.tasks.examples import ask
from lmmcl.tasks.metrics.judge import Judge
from lmmcl.tasks.skills import Benchmark

SWEEP = """
name: engines
orders: {main: [counting]}
benchmarks: {held_out: [colour]}
training: {max_steps: 2, global_batch_size: 2, learning_rate: 1.0e-3, precision: fp32}
evaluation: {precision: fp32, limit: 6}
grids:
  - {model: [tiny-onevision], recipe: [sa_proj], seed: [0]}
"""
VLLM = {"evaluation": {"engine": "vllm", "batch_size": 4}}


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with fake_vllm.installed(monkeypatch):
        yield


def swept(folder: Path, settings: dict[str, Any]) -> tuple[Ledger, Any]:
    folder.mkdir(exist_ok=True)
    ledger = Ledger(str(folder / "store"))
    sweep = load_sweep(write_sweep(folder, SWEEP))
    cluster = Cluster.model_validate(settings)
    outcome = run_sweep(RunContext.resolve(sweep, ledger), cluster, console=Console(quiet=True), inline=True)
    assert outcome.failures == {}
    return ledger, sweep


def test_there_are_two_engines_and_a_wrong_name_is_answered_with_the_near_ones(tmp_path: Path) -> None:
    assert [get_engine(name).name for name in ("transformers", "vllm")] == ["transformers", "vllm"]
    with pytest.raises(UserError, match=r"evaluation\.engine: unknown evaluation engine 'vlm'; did you mean 'vllm'"):
        swept(tmp_path, {"evaluation": {"engine": "vlm"}})


def test_an_engine_that_is_not_installed_is_told_before_anything_starts(tmp_path: Path) -> None:
    if get_engine("vllm").package in sys.modules:
        pytest.skip("vllm is installed")
    with pytest.raises(UserError, match=r'pip install "lmmcl\[vllm\]"'):
        swept(tmp_path, VLLM)
    assert not list((tmp_path / "store").rglob("record.json"))


@pytest.mark.parametrize("name", ["tiny-onevision", "tiny-next", "tiny-qwen"])
def test_prompts_for_engines_are_those_of_transformers_with_one_mark_an_image(name: str) -> None:
    processor = get_model(name).load_processor()
    mark = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    for example in get_benchmark("colour").load()[:3]:
        expanded = encode(processor, example, with_answer=False)["input_ids"].tolist()
        ids = prompt_ids(processor, example)
        assert ids.count(mark) == len(example.images) == 1
        at = ids.index(mark)
        assert expanded[:at] == ids[:at] and expanded[len(expanded) - len(ids) + at + 1 :] == ids[at + 1 :]
        assert len(expanded) > len(ids)


def test_a_sweep_evaluated_by_another_engine_has_the_same_keys_and_scores(tmp_path: Path, vllm: None) -> None:
    ours, sweep = swept(tmp_path / "transformers", {"evaluation": {"batch_size": 4}})
    theirs, other = swept(tmp_path / "vllm", VLLM)
    assert list(sweep.steps) == list(other.steps), "an engine is where and how, and in no key"
    asked = [step for step in sweep.steps.values() if step.kind == "evaluate"]
    assert len(asked) == 4
    for step in asked:
        first, second = ours.find(step), theirs.find(step)
        assert (first["engine"], second["engine"]) == ("transformers", "vllm")
        assert first["sample_scores"] == second["sample_scores"]
    assert len(FakeLLM.asked) == 4 * 6
    assert len(FakeLLM.made) == 1, "one engine serves both checkpoints"
    settings = FakeLLM.made[0]
    assert (settings["dtype"], settings["generation_config"], settings["max_num_seqs"]) == ("float32", "vllm", 4)


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (lambda: [replace(ask("many", "Which?", "red"), images=(Path("none.png"),) * 9)], "example many: shows 9 images.* 8 per question"),
        (lambda: Undecoded([0]), "example at row 0: cannot be read: broken"),
    ],
)  # fmt: skip
def test_a_question_that_vllm_cannot_be_asked_is_told_with_its_benchmark(
    tmp_path: Path, vllm: None, load: Any, said: str
) -> None:
    model = get_model("tiny-onevision")
    model.load_model(precision="fp32").save_pretrained(tmp_path)
    processor = model.load_processor()
    processor.save_pretrained(tmp_path)
    engine = Vllm(tmp_path, processor, Cluster().evaluation, "fp32")
    with pytest.raises(UserError, match=f"benchmark odd: {said}"):
        list(engine.answers(Benchmark("odd", 1, "exact_match", load=load), None))


class Undecoded(list):  # type: ignore[type-arg]
    def __getitem__(self, at: Any) -> Any:
        raise OSError("broken")


def test_probes_stay_with_transformers(tmp_path: Path, vllm: None) -> None:
    text = SWEEP + "probes: [{number_bias: {examples: 2}}]\n"
    ledger = Ledger(str(tmp_path / "store"))
    sweep = load_sweep(write_sweep(tmp_path, text))
    cluster = Cluster.model_validate(VLLM)
    outcome = run_sweep(RunContext.resolve(sweep, ledger), cluster, console=Console(quiet=True), inline=True)
    assert outcome.failures == {}
    assert all(ledger.find(step) is not None for step in sweep.steps.values())


def test_parity_is_told_on_the_command_line(tmp_path: Path, vllm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [
        "eval",
        "tiny-onevision",
        "-b",
        "colour",
        "--engine",
        "vllm",
        "--parity",
        "--limit",
        "5",
        "--store",
        str(tmp_path),
    ]
    told = CliRunner().invoke(app, words, catch_exceptions=False).stdout
    assert "identical answers to 5 of 5 questions (100.0%)" in told
    monkeypatch.setattr(FakeLLM, "_say", lambda self, prompt, settings: self.processor.tokenizer("red")["input_ids"])
    [found] = json.loads(CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False).stdout)
    assert found["asked"] == 5 and found["same"] < 5 and len(found["differing"]) == 5 - found["same"]
    assert not list(tmp_path.glob("scores/**/record.json")), "a comparison records no score"


class JudgedBenchmark(Benchmark):
    """A benchmark that a judge scores."""

    @property
    def judge(self) -> Judge:
        return Judge("made-judge", '"made-judge"', address="http://127.0.0.1:9/v1")


def test_engines_are_not_compared_on_what_a_judge_scores_and_none_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "get_engine", lambda name: pytest.fail(f"{name} was opened"))
    judged = JudgedBenchmark("colour", 1, "exact_match", load=lambda: [])
    steps = [
        Evaluate(Pretrained(get_model("tiny-onevision")), benchmark, Evaluation(limit=2))
        for benchmark in (get_benchmark("shape"), judged)
    ]
    with pytest.raises(UserError, match=r"colour.*scored by a judge.*allowed: benchmarks .* metric"):
        engine_parity(steps, Ledger("unused"), Cluster.model_validate(VLLM))


def test_engines_that_were_asked_other_questions_are_not_compared() -> None:
    first, second = Sample("a", "?", ("x",), "x", 1.0), Sample("b", "?", ("x",), "x", 1.0)
    with pytest.raises(ValueError, match="different questions"):
        compare_engines("made", [first], [second])


@pytest.mark.gpu
@pytest.mark.slow
def test_vllm_itself_says_what_transformers_says(tmp_path: Path) -> None:
    """On a GPU with the extra `vllm`, for a checkpoint named in LMMCL_PARITY_MODEL (default: LLaVA-1.5-7B of the hub)."""
    import os

    pytest.importorskip("vllm")
    model = os.environ.get("LMMCL_PARITY_MODEL", "llava-1.5-7b")
    words = ["eval", model, "-b", "colour", "--engine", "vllm", "--parity", "--limit", "200", "--precision", "bf16"]
    (tmp_path / "gpu.yaml").write_text("evaluation: {gpus: 1, batch_size: 32}\n")
    more = ["--store", str(tmp_path), "--cluster", str(tmp_path / "gpu.yaml"), "--json"]
    [found] = json.loads(CliRunner().invoke(app, [*words, *more], catch_exceptions=False).stdout)
    assert found["same"] >= 0.95 * found["asked"]
    assert abs(found["first"] - found["second"]) <= 2.0
