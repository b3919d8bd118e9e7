"""On a GPU a stage learns what it learns on a CPU, whatever divides the model and whichever kernels compute it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from same_stage import apart, here, learnt, losses, ray_with, small

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods import get_mitigation
from lmmcl.training.finetune import finetune

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: torch sees none"),
]

NEAR = 0.15
"""Of the way that weights went: Adam's first updates are ± the learning rate, and rounding decides the sign of tiny gradients."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    pytest.importorskip("ray", reason="needs Ray")
    with ray_with(1, tmp_path_factory.mktemp("ray")):
        yield


@pytest.fixture
def in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """No TF32, so that sums are as exact as on a CPU."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.usefixtures("in_fp32")
def test_a_gpu_learns_what_a_cpu_learns(tmp_path: Path) -> None:
    step = small()
    record, gpu = learnt(step, tmp_path / "gpu", here())
    before, cpu = learnt(step, tmp_path / "cpu", TrainingPlacement())
    assert record["strategy"]["device"].startswith("cuda")
    assert record["proof"] == before["proof"]
    assert losses(step, gpu) == pytest.approx(losses(step, cpu), rel=1e-3)
    assert apart(step, cpu, gpu) < NEAR
    assert 0 < record["peak_memory_bytes"] < torch.cuda.get_device_properties(0).total_memory


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_and_stores_half_the_bytes(precision: str, tmp_path: Path) -> None:
    step, whole = small(precision=precision), small()
    record, half = learnt(step, tmp_path / "half", here())
    full, exact = learnt(whole, tmp_path / "whole", here())
    assert losses(step, half) == pytest.approx(losses(whole, exact), rel=0.05)
    assert record["checkpoint_bytes"] < 0.6 * full["checkpoint_bytes"]


@pytest.mark.parametrize("attention", ["eager", "flash_attention_2"])
def test_attention_kernels_agree(attention: str, tmp_path: Path) -> None:
    if attention == "flash_attention_2" and find_spec("flash_attn") is None:
        pytest.skip("needs the package flash-attn")
    step = small(precision="bf16")
    _, other = learnt(step, tmp_path / attention, here(attention=attention))
    _, sdpa = learnt(step, tmp_path / "sdpa", here())
    assert losses(step, other) == pytest.approx(losses(step, sdpa), rel=0.05)


@pytest.mark.parametrize("liger", ["loss", True])
def test_liger_kernels_agree_with_transformers(liger: Any, tmp_path: Path) -> None:
    if find_spec("liger_kernel") is None:
        pytest.skip("needs the package liger-kernel")
    from lmmcl.models import get_model
    from lmmcl.steps import Pretrained

    step = small(precision="bf16", parent=Pretrained(get_model("tiny-qwen")))  # a family that Liger has kernels for
    try:
        record, fused = learnt(step, tmp_path / "liger", here(liger=liger))
    except UserError as error:
        pytest.skip(str(error))
    _, plain = learnt(step, tmp_path / "plain", here())
    assert record["strategy"]["liger"] == liger and record["strategy"]["fused_loss"] is True
    assert losses(step, fused) == pytest.approx(losses(step, plain), rel=0.05)


@pytest.mark.usefixtures("in_fp32")
@pytest.mark.parametrize("attention", ["sdpa", "flash_attention_2"])
def test_packed_rows_teach_what_padded_ones_teach(attention: str, tmp_path: Path) -> None:
    if attention == "flash_attention_2" and find_spec("flash_attn") is None:
        pytest.skip("needs the package flash-attn")
    precision = "bf16" if attention == "flash_attention_2" else "fp32"
    step = small(precision=precision)
    record, packed = learnt(step, tmp_path / "packed", here(packing=True, attention=attention))
    _, padded = learnt(step, tmp_path / "padded", here(attention=attention))
    assert record["padding_share"] == 0
    assert losses(step, packed) == pytest.approx(losses(step, padded), rel=0.05 if precision == "bf16" else 1e-3)


def test_checkpointing_changes_memory_and_nothing_else(tmp_path: Path) -> None:
    step = small(global_batch_size=32)
    kept, one = learnt(step, tmp_path / "kept", here())
    again, other = learnt(step, tmp_path / "again", here(gradient_checkpointing=True))
    assert apart(step, one, other) < NEAR
    assert again["peak_memory_bytes"] < kept["peak_memory_bytes"]


def test_a_compiled_model_learns_the_same(tmp_path: Path) -> None:
    step = small()
    record, compiled = learnt(step, tmp_path / "compiled", here(compile=True))
    _, plain = learnt(step, tmp_path / "plain", here())
    assert record["strategy"]["compile"]
    assert losses(step, compiled) == pytest.approx(losses(step, plain), rel=0.02)


DIVIDED: dict[str, dict[str, Any]] = {
    "ddp": {"strategy": "ddp"},
    "zero2": {"strategy": "deepspeed", "zero_stage": 2},
    "zero3": {"strategy": "deepspeed", "zero_stage": 3},
    "zero3, offloaded": {"strategy": "deepspeed", "zero_stage": 3, "offload": "parameters"},
    "fsdp": {"strategy": "fsdp"},
}


@pytest.mark.usefixtures("cluster", "in_fp32")
@pytest.mark.parametrize("name", DIVIDED)
def test_a_strategy_is_applied_and_learns_the_same_weights(name: str, tmp_path: Path) -> None:
    if DIVIDED[name]["strategy"] == "deepspeed":
        pytest.importorskip("deepspeed", reason="needs DeepSpeed")
    step = small()
    record, divided = learnt(step, tmp_path / "divided", here(workers=1, save_every=2, **DIVIDED[name]))
    before, alone = learnt(step, tmp_path / "alone", here())
    assert record["strategy"]["name"] == name.split(",")[0]
    assert record["strategy"]["backend"] == "nccl"
    assert record["proof"] == before["proof"], "the same tensors moved, all others are bit-identical"
    assert losses(step, divided) == pytest.approx(losses(step, alone), rel=5e-3)
    assert apart(step, alone, divided) < NEAR
    after = small(parent=step)  # what one strategy saved, another resumes from
    assert finetune(after, divided, here())["proof"]["moved"] == record["proof"]["moved"]


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("name", ["zero2", "fsdp"])
def test_divided_models_train_in_bf16_with_accumulation(name: str, tmp_path: Path) -> None:
    if DIVIDED[name]["strategy"] == "deepspeed":
        pytest.importorskip("deepspeed", reason="needs DeepSpeed")
    step = small(precision="bf16", global_batch_size=8)
    _, divided = learnt(step, tmp_path / "divided", here(workers=1, micro_batch_size=2, **DIVIDED[name]))
    _, alone = learnt(step, tmp_path / "alone", here())
    assert losses(step, divided) == pytest.approx(losses(step, alone), rel=0.05)


@pytest.mark.parametrize("mitigation", [None, {"lwf": {"weight": 1.0, "temperature": 2.0}}], ids=["plain", "lwf"])
def test_auto_comes_down_to_what_the_memory_holds(mitigation: Any, tmp_path: Path) -> None:
    step = small(mitigation=get_mitigation(mitigation) if mitigation else None, global_batch_size=256, recipe="llm")
    peaks = {}
    for micro in (256, 16):
        record, ledger = learnt(step, tmp_path / str(micro), here(micro_batch_size=micro))
        peaks[micro] = record["peak_memory_bytes"]
    assert peaks[16] < 0.5 * peaks[256], "the batch is what fills the memory"
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(0.5 * (peaks[16] + peaks[256]) / total)
    try:
        record = finetune(step, Ledger(str(tmp_path / "auto")), here(micro_batch_size="auto"))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert 16 <= record["strategy"]["micro_batch_size"] < 256
    assert record["strategy"]["micro_batch_size"] * record["strategy"]["accumulation"] == 256
    assert losses(step, Ledger(str(tmp_path / "auto"))) == pytest.approx(losses(step, ledger), rel=0.01)


def test_answers_are_those_of_the_cpu(tmp_path: Path) -> None:
    from lmmcl.evaluation.generate import said
    from lmmcl.tasks import get_benchmark
    from lmmcl.weights.checkpoint import load_checkpoint

    step = small()
    _, ledger = learnt(step, tmp_path / "store", here())
    processor, told = step.model.load_processor(), []
    for device in ("cuda", "cpu"):
        model = load_checkpoint(step, ledger, precision="fp32", device=device)
        told.append([text for _, text in said(model, processor, get_benchmark("colour"), limit=32, batch_size=8)])
    same = sum(one == other for one, other in zip(*told, strict=True))
    assert same >= 31, "a tie between two tokens may fall the other way"


@pytest.mark.usefixtures("in_fp32")
def test_kept_image_features_teach_what_fresh_ones_teach_and_are_encoded_once(tmp_path: Path) -> None:
    step, kept = small(), {"features": str(tmp_path / "features")}
    _, fresh = learnt(step, tmp_path / "fresh", here())
    first, encoded = learnt(step, tmp_path / "encoded", here(**kept))
    again, read = learnt(step, tmp_path / "read", here(micro_batch_size=2, **kept))
    assert (first["image_features"]["encoded"], again["image_features"]["encoded"]) == (12, 0)
    assert losses(step, encoded) == pytest.approx(losses(step, fresh), rel=1e-3)
    assert apart(step, fresh, encoded) < NEAR and apart(step, encoded, read) < NEAR
