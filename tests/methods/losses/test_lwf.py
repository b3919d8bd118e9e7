"""LwF against the two-model form: the same gradients, exact with the whole vocabulary, near with its likeliest tokens."""

from __future__ import annotations

from copy import deepcopy
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_parts import BASE, Parts, difference, parts, shake, stage, weights
from torch import Tensor

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods import get_mitigation
from lmmcl.methods.divided import check_divided
from lmmcl.methods.losses import divergence
from lmmcl.methods.losses.lwf import LwF
from lmmcl.methods.mitigation import HIDDEN, ROWS
from lmmcl.models.head import Head, head_inputs
from lmmcl.training.finetune import finetune


def two_models(
    teacher: torch.nn.Module, student: torch.nn.Module, batch: dict[str, Tensor], temperature: float
) -> Tensor:
    """T²·KL summed over answer tokens, written out position by position with both models at hand."""
    inputs = {key: value for key, value in batch.items() if key not in ("labels", ROWS, HIDDEN)}
    with torch.no_grad():
        wise = teacher(**inputs).logits.double()
    said = student(**inputs).logits.double()
    total = said.new_zeros(())
    for row, labels in enumerate(batch["labels"]):
        for position in range(1, len(labels)):
            if labels[position] != -100:
                p = (wise[row, position - 1] / temperature).softmax(-1)
                q = (said[row, position - 1] / temperature).softmax(-1)
                total = total + (p * (p.log() - q.log())).sum()
    return temperature**2 * total


def gradients(loss: Tensor, made: Parts) -> Tensor:
    found = torch.autograd.grad(loss, list(made.trained().values()))
    return torch.cat([gradient.flatten().double() for gradient in found])


def shown(made: Parts, rows: list[int]) -> tuple[Any, dict[str, Tensor]]:
    """The model's outputs on some rows, and their batch as a mitigation is given it in training."""
    batch = {**made.context.batch_of(rows), ROWS: torch.tensor(rows)}
    with head_inputs(made.model) as seen:
        outputs = made.context.forward(batch)
    return outputs, {**batch, HIDDEN: seen[-1]}


def compared(mitigation: LwF, made: Parts) -> tuple[float, float, Tensor, Tensor]:
    """The penalty and its gradient, from what was kept and from two models, after the student has moved."""
    teacher = deepcopy(made.model)
    state = mitigation.start(made.context)
    shake(made.model)
    outputs, batch = shown(made, [7, 0, 2, 5])
    penalty = mitigation.token_penalty(state, made.model, outputs, batch)
    expected = mitigation.weight * two_models(teacher, made.model, batch, mitigation.temperature)
    return float(penalty.detach()), float(expected.detach()), gradients(penalty, made), gradients(expected, made)


@pytest.mark.parametrize("recipe", ["llm", "sa_proj"])
@pytest.mark.parametrize(("weight", "temperature"), [(1.0, 2.0), (0.5, 1.0)])
def test_value_and_gradient_are_those_of_two_models(
    weight: float, temperature: float, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LMM-CL (arXiv 2510.08564): T²·KL over the whole vocabulary, whether or not the head trains, in chunks of any size."""
    monkeypatch.setattr(divergence, "CHUNK_ENTRIES", 1)
    mitigation = LwF(weight=weight, temperature=temperature)
    made = parts(stage(mitigation, recipe=recipe), tmp_path)
    made.model.double()  # the formulas are compared, not a processor's roundings: those of fp32 reach 1e-5 on some
    penalty, expected, found, wanted = compared(mitigation, made)
    assert expected > 0.01
    assert penalty == pytest.approx(expected, rel=1e-9)
    assert (found - wanted).norm() < 1e-9 * wanted.norm()


def with_tail(made: Parts, after: Any, **config: float) -> Parts:
    """The same model, with logits that its head's outputs become by `after`, and what its configuration says of that."""
    kind = type(made.model)

    @wraps(kind.forward)
    def forward(self: Any, *args: Any, **inputs: Any) -> Any:
        outputs = kind.forward(self, *args, **inputs)
        outputs.logits = after(outputs.logits)
        return outputs

    made.model.__class__ = type(kind.__name__, (kind,), {"forward": forward})  # a copy of it, the teacher, does so too
    for name, value in config.items():
        setattr(made.model.config.get_text_config(), name, value)
    return made


@pytest.mark.parametrize(
    ("after", "config"),
    [
        (lambda logits: 5 * (logits / 5).tanh(), {"final_logit_softcapping": 5.0}),
        (lambda logits: logits / 8, {"logits_scaling": 8.0}),
        (lambda logits: logits * 0.0625, {"logit_scale": 0.0625}),
    ],
    ids=["soft cap", "divided", "multiplied"],
)
def test_a_head_that_scales_or_caps_its_logits_is_run_as_the_model_runs_it(
    after: Any, config: dict[str, float], tmp_path: Path
) -> None:
    mitigation = LwF()
    made = with_tail(parts(stage(mitigation), tmp_path), after, **config)
    made.model.double()
    penalty, expected, found, wanted = compared(mitigation, made)
    assert expected > 1e-6
    assert penalty == pytest.approx(expected, rel=1e-6)
    assert (found - wanted).norm() < 1e-6 * wanted.norm()


@pytest.mark.parametrize("top_k", [None, 8])
def test_logits_that_are_not_those_of_the_head_are_refused_with_a_remedy(top_k: int | None, tmp_path: Path) -> None:
    mitigation = LwF(top_k=top_k)
    made = with_tail(parts(stage(mitigation), tmp_path), lambda logits: logits + logits.sin())
    if top_k:
        assert mitigation.start(made.context)["rows"], "the likeliest tokens need no head"
        return
    with pytest.raises(UserError, match=r"are not those of its head.*lwf with top_k"):
        mitigation.start(made.context)


def test_a_head_that_is_no_linear_layer_is_refused_with_a_remedy(tmp_path: Path) -> None:
    mitigation = LwF()
    made = parts(stage(mitigation), tmp_path)
    made.model.get_output_embeddings = lambda: torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(UserError, match=r"is Sequential, not a plain linear layer; lwf with top_k"):
        mitigation.start(made.context)


def test_an_update_without_answer_tokens_adds_nothing() -> None:
    hidden = torch.zeros(0, 4, requires_grad=True)
    weights = {"weight": torch.ones(7, 4)}
    total = divergence.head_divergence(
        Head(), hidden, torch.zeros(0, 4), student=weights, teacher=weights, temperature=2.0
    )
    total.backward()
    assert float(total.detach()) == 0
    assert hidden.grad is not None


def test_a_record_says_what_was_kept_of_the_start_model(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    exact = finetune(stage(LwF(), recipe="llm"), ledger, TrainingPlacement())["mitigation"]
    some = finetune(stage(LwF(top_k=4)), ledger, TrainingPlacement())["mitigation"]
    assert (exact["vocabulary"], exact["head"]) == ("whole", "copied"), "the head of `llm` trains"
    assert some["top_k"] == 4
    assert 0.01 < some["covered_probability"] < 0.999
    assert some["kept_bytes"] > 0


def test_stages_with_top_k_keep_the_keys_that_they_had() -> None:
    """Version 1 kept 64 tokens where nothing was said."""
    assert LwF(top_k=64).identity() == {"name": "lwf", "version": 1, "weight": 1.0, "temperature": 2.0, "top_k": 64}
    assert LwF().identity()["version"] == 2


@pytest.mark.parametrize("precision", ["bf16"])
def test_in_half_precision_the_penalty_is_near_that_of_two_models(precision: str, tmp_path: Path) -> None:
    mitigation = LwF()
    made = parts(stage(mitigation, recipe="llm", precision=precision), tmp_path)
    state = mitigation.start(made.context)
    teacher = deepcopy(made.model)
    shake(made.model)
    outputs, batch = shown(made, [7, 0, 2, 5])
    with made.context.autocast():
        penalty = mitigation.token_penalty(state, made.model, outputs, batch)
        expected = two_models(teacher, made.model, batch, 2.0)
    assert float(penalty.detach()) == pytest.approx(float(expected.detach()), rel=0.05)
    found, wanted = gradients(penalty, made), gradients(expected, made)
    assert (found - wanted).norm() < 0.05 * wanted.norm()


def test_a_divided_head_is_run_from_a_copy_and_one_that_trains_is_refused(tmp_path: Path) -> None:
    mitigation = LwF()
    made = parts(stage(mitigation), tmp_path)
    made.context.is_divided = True
    state = mitigation.start(made.context)
    assert state["head"]["weight"].shape == made.model.get_output_embeddings().weight.shape
    check_divided(mitigation, "zero3", trains_head=lambda: False)
    check_divided(mitigation, "zero2", trains_head=lambda: True)
    check_divided(LwF(top_k=8), "zero3", trains_head=lambda: True)
    for strategy in ("zero3", "fsdp"):
        with pytest.raises(UserError, match=f"which trains and which {strategy} divides"):
            check_divided(mitigation, strategy, trains_head=lambda: True)


def test_the_likeliest_tokens_and_one_tail_come_near_and_never_above(tmp_path: Path) -> None:
    errors = []
    for top_k in (1, 16, 64):
        mitigation = LwF(top_k=top_k)
        penalty, expected, found, wanted = compared(mitigation, parts(stage(mitigation, recipe="llm"), tmp_path))
        assert penalty <= expected * (1 + 1e-6)
        errors.append(float((found - wanted).norm() / wanted.norm()))
    print("relative error of the gradient for k = 1, 16, 64:", errors)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1


def test_a_start_model_that_has_not_moved_pulls_nowhere(tmp_path: Path) -> None:
    mitigation = LwF()
    made = parts(stage(mitigation), tmp_path)
    state = mitigation.start(made.context)
    outputs, batch = shown(made, [0, 1])
    penalty = mitigation.token_penalty(state, made.model, outputs, batch)
    assert abs(float(penalty.detach())) < 1e-5
    assert gradients(penalty, made).abs().max() < 1e-4


def test_what_is_kept_holds_answer_tokens_alone_and_rows_that_train_alone(tmp_path: Path) -> None:
    mitigation = LwF(top_k=8)
    made = parts(stage(mitigation, max_steps=1), tmp_path)
    whole = LwF().start(made.context)["rows"]
    state = mitigation.start(made.context)["rows"]
    assert {row: len(kept) for row, kept in whole.items()} == {row: len(kept) for row, kept in state.items()}
    assert set(state) == set(made.context.rows) and len(state) == 4
    for row, kept in state.items():
        labels = made.context.batch_of([row])["labels"]
        assert kept.shape == (int((labels != -100).sum()), 2 * 8 + 1)
        assert torch.allclose(kept[:, :9].exp().sum(dim=-1), torch.ones(len(kept)), atol=1e-5)


def test_padding_and_batch_mates_do_not_change_what_the_teacher_says(tmp_path: Path) -> None:
    mitigation = LwF(top_k=8)
    alone = mitigation.start(parts(stage(mitigation), tmp_path, micro_batch_size=1).context)["rows"]
    together = mitigation.start(parts(stage(mitigation), tmp_path).context)["rows"]
    for row, kept in alone.items():
        assert torch.allclose(kept[:, :9], together[row][:, :9], atol=1e-4)


def test_a_stage_is_the_same_however_its_batches_are_cut(tmp_path: Path) -> None:
    whole, cut = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "cut"))
    step = stage(LwF(weight=4.0))
    finetune(step, whole, TrainingPlacement())
    finetune(step, cut, TrainingPlacement(micro_batch_size=1))
    assert difference(weights(step, whole), weights(step, cut)) < 1e-4


def test_a_stage_stays_nearer_to_its_start_the_larger_the_weight(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    start = weights(BASE, ledger)
    steps = [stage(mitigation, max_steps=8) for mitigation in (None, LwF(weight=0), LwF(weight=1), LwF(weight=30))]
    for step in steps:
        finetune(step, ledger, TrainingPlacement())
    free, none, some, much = (weights(step, ledger) for step in steps)
    assert difference(free, none) < 1e-6
    lengths = [sum(float((w[n] - start[n]).detach().square().sum()) for n in start) for w in (free, some, much)]
    assert lengths[0] > lengths[1] > lengths[2]


@pytest.mark.parametrize("settings", [{"weight": -1}, {"temperature": 0}, {"top_k": 0}, {"weight": float("nan")}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UserError, match=rf"lwf\.{next(iter(settings))}"):
        get_mitigation({"lwf": settings})
