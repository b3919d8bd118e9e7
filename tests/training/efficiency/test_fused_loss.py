"""Head and loss in one give the loss and the gradients of both apart."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_parts import difference, made_skill, parts, shades, stage, weights
from torch import Tensor
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.methods import get_mitigation
from lmmcl.models import get_model
from lmmcl.steps import Finetune, Pretrained
from lmmcl.training.efficiency import fused_loss
from lmmcl.training.finetune import finetune

NEAR = 0.15
"""Of the way that weights went: Adam's first updates are ± the learning rate, and rounding decides the sign of tiny gradients."""
LIGER = TrainingPlacement(liger=True, gpus_per_worker=1)


def in_parts(weight: Tensor, hidden: Tensor, targets: Tensor, bias: Tensor | None = None) -> Tensor:
    """What Liger's kernel computes, three tokens at a time, in plain PyTorch."""

    def of(states: Tensor, wanted: Tensor) -> Tensor:
        return cross_entropy(linear(states, weight, bias).float(), wanted, reduction="sum")

    assert hidden.dim() == 2 and len(hidden) == len(targets), "answer positions alone"
    pieces = zip(hidden.split(3), targets.split(3), strict=True)
    return torch.stack([checkpoint(of, *piece, use_reentrant=False) for piece in pieces]).sum()


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `liger: true` on a GPU, by a kernel that a CPU has."""
    monkeypatch.setattr("lmmcl.training.stage.preparation.choose_kernel", lambda *_: (in_parts, None))


def learnt(step: Finetune, folder: Path, **placement: Any) -> tuple[list[float], dict[str, Tensor]]:
    ledger = Ledger(str(folder))
    finetune(step, ledger, TrainingPlacement(micro_batch_size=2, **placement))
    return [row["loss"] for row in ledger.read_lines(step.path, "curve.jsonl")], weights(step, ledger)


@pytest.mark.parametrize("recipe", ["sa_proj", "full"])
@pytest.mark.parametrize("packing", [False, True])
def test_a_stage_learns_the_same(recipe: str, packing: bool, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    step = stage(skill=made_skill("shades", shades(8)), recipe=recipe, max_steps=2)
    losses, apart = learnt(step, tmp_path / "apart", packing=packing)
    request.getfixturevalue("fused")
    fused_losses, together = learnt(step, tmp_path / "fused", packing=packing)
    assert fused_losses == pytest.approx(losses, rel=1e-4)
    start = weights(step.parent, Ledger(str(tmp_path / "apart")))
    assert difference(apart, together) < NEAR * difference(apart, start)


@pytest.mark.parametrize("recipe", ["sa_proj", "full"])
@pytest.mark.parametrize("packing", [False, True])
def test_gradients_are_the_same(recipe: str, packing: bool, tmp_path: Path) -> None:
    trainer = parts(stage(recipe=recipe), tmp_path, micro_batch_size=2, packing=packing).trainer
    batch = trainer.prepare_batch(trainer.data_collator([trainer.train_dataset[n] for n in range(2)]))  # type: ignore[index]
    gradients = []
    for trainer.kernel in (None, in_parts):
        trainer.taught.zero_grad()
        trainer.compute_loss(trainer.taught, batch, num_items_in_batch=torch.tensor(9)).backward()
        gradients.append({name: p.grad.clone() for name, p in trainer.taught.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 8
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(
            gradients[1][name], gradient, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_logits_are_never_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmmcl.training.stage.preparation.choose_kernel", lambda *_: (in_parts, None))
    trainer = parts(stage(), tmp_path, micro_batch_size=2).trainer
    batch = trainer.prepare_batch(trainer.data_collator([trainer.train_dataset[n] for n in range(2)]))  # type: ignore[index]
    _, outputs = trainer.compute_loss(trainer.taught, batch, return_outputs=True, num_items_in_batch=torch.tensor(9))
    assert outputs.logits.shape == (1, 1, 1)
    head: Any = trainer.taught.get_output_embeddings()
    assert "forward" not in vars(head), "afterwards the head is as it was"


def test_what_keeps_a_loss_from_being_fused_is_said() -> None:
    model = get_model("tiny-onevision").load_model()
    assert fused_loss.choose_kernel(TrainingPlacement(), None, model) == (None, None)
    kernel, note = fused_loss.choose_kernel(LIGER, get_mitigation({"lwf": {"weight": 1.0, "temperature": 2.0}}), model)
    assert kernel is None and note == "no: mitigation lwf is shown the logits"
    zero3 = LIGER.model_copy(update={"workers": 2, "strategy": "deepspeed", "zero_stage": 3})
    assert fused_loss.choose_kernel(zero3, None, model) == (None, "no: with zero3 the head runs as it is")
    model.config.get_text_config().final_logit_softcapping = 30.0
    assert fused_loss.choose_kernel(LIGER, None, model) == (
        None,
        "no: it computes final_logit_softcapping after its head",
    )


def test_head_of_a_family_that_scales_its_logits_is_left_alone() -> None:
    model = get_model("tiny-qwen").load_model()
    assert fused_loss.why_not_fused(model) is None
    model.config.get_text_config().logits_scaling = 8.0
    assert fused_loss.why_not_fused(model) == "it computes logits_scaling after its head"


LIGER_ITSELF = """
import torch
from torch.nn.functional import cross_entropy, linear
from lmmcl.training.efficiency.fused_loss import liger_kernel

torch.manual_seed(0)
shapes = [(97, 32), (13, 32), (97,)]
one = [torch.randn(shape, requires_grad=True) for shape in shapes]
two = [tensor.detach().clone().requires_grad_() for tensor in one]
targets = torch.randint(0, 97, (13,))
loss = liger_kernel()(one[0], one[1], targets, one[2])
(loss / 5).backward()
expected = cross_entropy(linear(two[1], two[0], two[2]), targets, reduction="sum")
(expected / 5).backward()
torch.testing.assert_close(loss, expected)
for mine, theirs in zip(one, two):
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5)
print("equal")
"""
LIGER_IN_A_STAGE = """
from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.training.finetune import finetune
from stage_parts import made_skill, shades, stage

step = stage(skill=made_skill("shades", shades(8)), recipe="full", max_steps=2)
curves = []
for liger in ("loss", False):
    ledger = Ledger(f"{FOLDER}/{liger}")
    # a placement that the cluster file refuses on a CPU
    place = TrainingPlacement.model_construct(**{**TrainingPlacement().model_dump(), "liger": liger, "micro_batch_size": 2})
    record = finetune(step, ledger, place)
    assert record["strategy"].get("fused_loss", False) is bool(liger), record["strategy"]
    curves.append([row["loss"] for row in ledger.read_lines(step.path, "curve.jsonl")])
assert all(abs(one - two) < 1e-4 * two for one, two in zip(*curves, strict=True)), curves
print("equal")
"""


@pytest.mark.slow
@pytest.mark.parametrize("code", [LIGER_ITSELF, LIGER_IN_A_STAGE], ids=["kernel", "stage"])
def test_ligers_kernel_is_the_cross_entropy_of_the_heads_outputs(code: str, tmp_path: Path) -> None:
    """On a CPU in Triton's interpreter."""
    if find_spec("liger_kernel") is None:
        pytest.skip("needs the package liger-kernel")
    done = subprocess.run(
        [sys.executable, "-c", f"FOLDER = {str(tmp_path)!r}\n{code}"],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.stdout.strip().endswith("equal"), done.stderr[-2000:]


def test_the_tiny_families_have_heads_that_can_be_fused() -> None:
    for name in ("tiny-onevision", "tiny-next", "tiny-qwen"):
        assert fused_loss.why_not_fused(Pretrained(get_model(name)).model.load_model()) is None
