"""EWC: importance against brute-force gradients of single examples, the penalty in closed form, and whose data is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from stage_parts import BASE, Parts, difference, made_skill, parts, shades, shake, stage, weights
from torch import Tensor
from torch.nn.functional import cross_entropy

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods import get_mitigation
from lmmcl.methods.losses.ewc import EWC, fisher
from lmmcl.methods.losses.l2_sp import L2SP
from lmmcl.tasks.examples import Example
from lmmcl.training.finetune import finetune

ROUNDING = float(torch.finfo(torch.float32).eps)
"""Importances are kept in fp32."""


def brute_force(made: Parts, examples: list[Example]) -> dict[str, Tensor]:
    """Mean of squared gradients, one example after the other, from the model's own loss times its number of tokens."""
    total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in made.trained().items()}
    for example in examples:
        batch = made.context.collate([example])
        labels = batch.pop("labels")
        made.model.zero_grad()
        logits = made.model(**batch).logits
        cross_entropy(logits[0, :-1], labels[0, 1:], ignore_index=-100, reduction="sum").backward()
        for name, parameter in made.trained().items():
            total[name] += parameter.grad.double() ** 2 / len(examples)
    made.model.zero_grad()
    return total


def test_importance_is_the_mean_of_squared_gradients_of_single_examples(tmp_path: Path) -> None:
    made = parts(stage(EWC(), recipe="llm"), tmp_path)
    made.model.double()  # the formulas are compared: how fp32 rounds depends on the processor
    found, wanted = fisher(made.context, shades(5)), brute_force(made, shades(5))
    assert set(found) == set(made.trained())
    for name, each in found.items():
        assert torch.allclose(each.double(), wanted[name], rtol=4 * ROUNDING, atol=ROUNDING * float(wanted[name].max()))
    whole = torch.cat([each.flatten().double() for each in found.values()])
    expected = torch.cat([wanted[name].flatten() for name in found])
    assert (whole - expected).norm() < 4 * ROUNDING * expected.norm()


def test_it_is_not_the_square_of_a_batchs_gradient(tmp_path: Path) -> None:
    made = parts(stage(EWC()), tmp_path)
    batch = made.context.collate(shades(5))
    labels = batch.pop("labels")
    logits = made.model(**batch).logits
    loss = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum") / 5
    squared = {
        n: g**2 for n, g in zip(made.trained(), torch.autograd.grad(loss, list(made.trained().values())), strict=True)
    }
    found = fisher(made.context, shades(5))
    assert sum(float(each.sum()) for each in found.values()) > 1.05 * sum(
        float(each.sum()) for each in squared.values()
    )


def test_importance_has_mean_one_over_what_trains_and_the_penalty_is_the_formula(tmp_path: Path) -> None:
    mitigation = EWC(weight=3.0, examples=4)
    made = parts(stage(mitigation), tmp_path)
    state = mitigation.start(made.context)
    assert set(state) == set(made.context.trained)
    everything = torch.cat([each.flatten() for _, each in state.values()])
    assert float(everything.mean()) == pytest.approx(1.0, rel=1e-4)
    before = {name: p.detach().double().clone() for name, p in made.trained().items()}
    assert float(mitigation.penalty(state, made.model, None, {}).detach()) == 0
    shake(made.model)
    penalty = mitigation.penalty(state, made.model, None, {})
    gradients = torch.autograd.grad(penalty, list(made.trained().values()))
    expected = 0.0
    for gradient, (name, parameter) in zip(gradients, made.trained().items(), strict=True):
        moved, each = parameter.detach().double() - before[name], state[name][1].double()
        expected += 1.5 * float((each * moved**2).sum())
        assert torch.allclose(gradient.double(), 3.0 * each * moved, rtol=1e-4, atol=1e-9)
    assert float(penalty.detach()) == pytest.approx(expected, rel=1e-5)


def measured(mitigation: EWC, made: Parts, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []

    def note(context: Any, examples: list[Example]) -> dict[str, Tensor]:
        seen.extend(f"{example.id}-{example.target}" for example in examples)
        return {name: torch.ones_like(p) for name, p in made.trained().items()}

    monkeypatch.setattr("lmmcl.methods.losses.ewc.fisher", note)
    mitigation.start(made.context)
    return seen


def test_whose_examples_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = stage(skill=made_skill("first", shades(6)), max_steps=1)
    finetune(first, Ledger(str(tmp_path / "store")), TrainingPlacement())
    later = {"parent": first, "skill": made_skill("later", shades(40)[20:])}
    own = {f"{example.id}-{example.target}" for example in shades(40)[20:]}
    old = {f"{example.id}-{example.target}" for example in shades(6)}

    alone = measured(EWC(examples=8), parts(stage(EWC(), **later), tmp_path), monkeypatch)
    assert set(alone) == old and len(alone) == 6, "fewer than wanted: all of them"
    current = measured(EWC(importance="current", examples=8), parts(stage(EWC(), **later), tmp_path), monkeypatch)
    assert set(current) < own and len(set(current)) == 8
    at_first = measured(EWC(examples=8), parts(stage(EWC(), skill=later["skill"]), tmp_path), monkeypatch)
    assert set(at_first) < own
    with_before = get_mitigation({"ewc": {"before": "general", "examples": 9}})
    both = measured(with_before, parts(stage(with_before, **later), tmp_path), monkeypatch)
    assert sum(each.startswith("general-train-") for each in both) == 4 and len(both) == 9


def test_a_stage_stays_nearer_to_its_start_and_is_the_same_however_it_is_cut(tmp_path: Path) -> None:
    whole, cut = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "cut"))
    free, held = stage(), stage(EWC(weight=30.0, examples=6))
    for step in (free, held):
        finetune(step, whole, TrainingPlacement())
    finetune(held, cut, TrainingPlacement(micro_batch_size=1))
    assert difference(weights(held, whole), weights(held, cut)) < 1e-4
    start = weights(BASE, whole)
    free_way, held_way = (
        sum(float((w[n] - start[n]).detach().square().sum()) for n in start)
        for w in (weights(free, whole), weights(held, whole))
    )
    assert held_way < free_way


def test_with_equal_importance_it_is_l2_sp(tmp_path: Path) -> None:
    made = parts(stage(EWC()), tmp_path)
    start = L2SP(weight=2.0).start(made.context)
    shake(made.model)
    flat = {name: (theta, torch.ones_like(theta)) for name, theta in start.items()}
    one = EWC(weight=2.0).penalty(flat, made.model, None, {})
    assert float(one.detach()) == pytest.approx(float(L2SP(weight=2.0).penalty(start, made.model, None, {}).detach()))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"weight": -1}, "weight"),
        ({"importance": "later"}, "importance"),
        ({"before": "genral"}, "did you mean 'general'"),
        ({"before": "general", "importance": "current"}, "only with importance: earlier"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        get_mitigation({"ewc": settings})


def test_whose_examples_are_measured_enters_the_key() -> None:
    plain, more = EWC(), get_mitigation({"ewc": {"before": ["general"]}})
    assert plain.identity() != more.identity() != EWC(importance="current").identity()
    assert (plain.label, more.label) == ("ewc", "ewc(before=general)")
