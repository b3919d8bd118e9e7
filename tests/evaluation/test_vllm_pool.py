"""One engine a base: checkpoints come into it as weights or as adapters, and say the same as in transformers."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_vllm
import pytest
import torch
from fake_vllm import FakeLLM
from made import write_sweep
from rich.console import Console
from safetensors.torch import load_file

from lmmcl.config.cluster import Cluster
from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.evaluation.engines import vllm_pool
from lmmcl.evaluation.engines.vllm_worker import merged_tensors
from lmmcl.ledger import Ledger
from lmmcl.runner.execute import compute
from lmmcl.runner.run import run_sweep
from lmmcl.search.run_context import RunContext
from lmmcl.steps import Pretrained
from lmmcl.weights.changed_export import export_base, export_changed
from lmmcl.weights.checkpoint import export

SWEEP = """
name: engines
orders: {main: [counting, clock]}
benchmarks: {held_out: [colour]}
training: {max_steps: 2, global_batch_size: 2, learning_rate: 3.0e-3, precision: fp32}
evaluation: {precision: fp32, limit: 4}
grids:
  - {model: [tiny-onevision], recipe: [sa_proj, {lora_all: {rank: 4, alpha: 16}}], seed: [0]}
  - {model: [tiny-onevision], recipe: [sa_proj], mitigation: [{wise_ft: {alpha: 0.5}}], seed: [0]}
"""
SWAPPED = ["swap_weights", "reset_prefix_cache", "reset_mm_cache", "reset_encoder_cache"]


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with fake_vllm.installed(monkeypatch):
        yield


def swept(folder: Path, **evaluation: Any) -> tuple[Ledger, Any]:
    folder.mkdir(exist_ok=True)
    ledger = Ledger(str(folder / "store"))
    sweep = load_sweep(write_sweep(folder, SWEEP))
    cluster = Cluster.model_validate({"evaluation": {"batch_size": 4, **evaluation}})
    outcome = run_sweep(RunContext.resolve(sweep, ledger), cluster, console=Console(quiet=True), inline=True)
    assert outcome.failures == {}
    return ledger, sweep


def with_checkpoints(folder: Path, ours: tuple[Ledger, Any]) -> Ledger:
    """A store with the checkpoints of another, and no scores."""
    shutil.copytree(Path(ours[0].store) / "checkpoints", folder / "store" / "checkpoints")
    return Ledger(str(folder / "store"))


def asked_again(folder: Path, ours: tuple[Ledger, Any], **evaluation: Any) -> tuple[Ledger, Any]:
    """The same sweep by another engine, on the checkpoints that there are."""
    with_checkpoints(folder, ours)
    return swept(folder, **evaluation)


def scores(ledger: Ledger, sweep: Any) -> dict[str, Any]:
    asked = [step for step in sweep.steps.values() if step.kind == "evaluate"]
    return {step.path: ledger.find(step)["sample_scores"] for step in asked}  # type: ignore[index]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ledger, Any]:
    return swept(tmp_path_factory.mktemp("transformers"))


@pytest.mark.parametrize("rank", [0, 8])
def test_one_engine_answers_as_trained_merged_and_adapted_checkpoints_of_a_base_what_transformers_answers(
    rank: int, ours: tuple[Ledger, Any], tmp_path: Path, vllm: None
) -> None:
    theirs = asked_again(tmp_path, ours, engine="vllm", lora_rank=rank)
    assert scores(*theirs) == scores(*ours)
    assert len(FakeLLM.made) == 1
    assert FakeLLM.made[0].get("max_lora_rank") == (rank or None)
    adapters = [request for request in FakeLLM.adapters if request]
    assert len({request.lora_int_id for request in adapters}) == (2 if rank else 0)  # after each of two stages
    assert FakeLLM.calls[:4] == SWAPPED and FakeLLM.calls.count("swap_weights") == (5 if rank else 6)


def test_an_adapter_of_a_higher_rank_is_merged_into_the_weights(
    tmp_path: Path, vllm: None, ours: tuple[Ledger, Any]
) -> None:
    theirs = asked_again(tmp_path, ours, engine="vllm", lora_rank=4)  # the sum over two stages is 8
    assert scores(*theirs) == scores(*ours)
    assert len({request.lora_int_id for request in FakeLLM.adapters if request}) == 1
    assert len(FakeLLM.made) == 1


def test_a_checkpoint_that_does_not_fit_gets_an_engine_of_its_own_and_the_log_says_why(
    ours: tuple[Ledger, Any],
    tmp_path: Path,
    vllm: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shapes = vllm_pool.shapes_in
    monkeypatch.setattr(
        vllm_pool,
        "shapes_in",
        lambda folder: {n: (*s, 1) if folder.name == "changed" else s for n, s in shapes(folder).items()},
    )
    ledger = with_checkpoints(tmp_path, ours)
    step = next(
        step for step in ours[1].steps.values() if step.kind == "evaluate" and step.checkpoint.kind == "finetune"
    )
    with caplog.at_level(logging.WARNING):
        compute([step], ledger, Cluster.model_validate({"evaluation": {"engine": "vllm"}}), lambda *_: None)
    assert ledger.find(step)["sample_scores"] == ours[0].find(step)["sample_scores"]  # type: ignore[index]
    assert "swap_weights" not in FakeLLM.calls and len(FakeLLM.made) == 2
    assert "of its tensors have other names or shapes than the base's" in caplog.text


def test_an_engine_whose_weights_could_not_be_swapped_is_ended(
    ours: tuple[Ledger, Any], vllm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, sweep = ours
    trained = next(step for step in sweep.steps.values() if step.kind == "finetune")
    placement = Cluster.model_validate({"evaluation": {"engine": "vllm"}}).evaluation

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(FakeLLM, "collective_rpc", broken)
    with pytest.raises(RuntimeError, match="out of memory"), vllm_pool.engine_of(trained, ledger, placement, "fp32"):
        pass
    assert not vllm_pool._RUNNING


def test_what_differs_over_the_base_is_the_whole_export(ours: tuple[Ledger, Any], tmp_path: Path) -> None:
    ledger, sweep = ours
    base = tmp_path / "base"
    first, *trained = [step for step in sweep.steps.values() if step.kind in ("pretrained", "finetune")]
    assert isinstance(first, Pretrained)
    export_base(first, ledger, base, "fp32")
    for number, step in enumerate(trained):
        export_changed(step, ledger, tmp_path / f"changed{number}", "fp32")
        whole = load_file(export(step, ledger, tmp_path / f"whole{number}") / "model.safetensors")
        merged = dict(merged_tensors(base, tmp_path / f"changed{number}"))
        assert merged.keys() == whole.keys() and all(torch.equal(merged[name], whole[name]) for name in whole)
        changed = load_file(tmp_path / f"changed{number}" / "model.safetensors")
        assert 0 < len(changed) < len(whole)


def test_a_rank_above_what_vllm_takes_is_refused(ours: tuple[Ledger, Any], vllm: None) -> None:
    ledger, sweep = ours
    placement = Cluster.model_validate({"evaluation": {"engine": "vllm", "lora_rank": 600}}).evaluation
    first = next(step for step in sweep.steps.values() if step.kind == "pretrained")
    with (
        pytest.raises(UserError, match=r"evaluation\.lora_rank: vLLM takes adapters up to rank 512"),
        vllm_pool.engine_of(first, ledger, placement, "fp32"),
    ):
        pass
