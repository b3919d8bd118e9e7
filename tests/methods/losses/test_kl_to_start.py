"""KL to the start model on the stage's answers: equal to two models at hand, in both directions."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Literal

import pytest
import torch
from stage_parts import parts, shake, stage

from lmmcl.errors import UserError
from lmmcl.methods import get_mitigation
from lmmcl.methods.divided import check_divided
from lmmcl.methods.losses import divergence
from lmmcl.methods.losses.kl_to_start import KLToStart
from lmmcl.methods.losses.lwf import LwF
from lmmcl.methods.mitigation import HIDDEN, ROWS
from lmmcl.models.head import head_inputs


@pytest.mark.parametrize("recipe", ["llm", "sa_proj"])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_value_and_gradient_are_those_of_two_models(
    direction: Literal["forward", "reverse"], recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(divergence, "CHUNK_ENTRIES", 1)
    mitigation = KLToStart(weight=0.7, direction=direction)
    made = parts(stage(mitigation, recipe=recipe), tmp_path)
    made.model.double()
    start_model = deepcopy(made.model)
    state = mitigation.start(made.context)
    shake(made.model)
    rows = [7, 0, 2, 5]
    batch = {**made.context.batch_of(rows), ROWS: torch.tensor(rows)}
    with head_inputs(made.model) as seen:
        outputs = made.context.forward(batch)
    penalty = mitigation.token_penalty(state, made.model, outputs, {**batch, HIDDEN: seen[-1]})
    inputs = {key: value for key, value in batch.items() if key not in ("labels", ROWS)}
    with torch.no_grad():
        before = start_model(**inputs).logits.double()
    after, expected = made.model(**inputs).logits.double(), torch.zeros((), dtype=torch.float64)
    for row, labels in enumerate(batch["labels"]):
        for position in range(1, len(labels)):
            if labels[position] != -100:
                old, new = before[row, position - 1].softmax(-1), after[row, position - 1].softmax(-1)
                p, q = (old, new) if direction == "forward" else (new, old)
                expected = expected + (p * (p / q).log()).sum()
    own = list(made.trained().values())
    gained, wanted = (
        torch.cat([one.flatten() for one in torch.autograd.grad(value, own)]) for value in (penalty, 0.7 * expected)
    )
    assert expected > 0.01
    assert float(penalty.detach()) == pytest.approx(0.7 * float(expected.detach()), rel=1e-6)
    assert (gained - wanted).norm() < 1e-6 * wanted.norm()


def test_forward_is_lwf_without_a_temperature(tmp_path: Path) -> None:
    values = []
    for mitigation in (KLToStart(weight=2.0), LwF(weight=2.0, temperature=1.0)):
        made = parts(stage(mitigation), tmp_path)
        state = mitigation.start(made.context)
        shake(made.model)
        batch = {**made.context.batch_of([1, 4]), ROWS: torch.tensor([1, 4])}
        with head_inputs(made.model) as seen:
            outputs = made.context.forward(batch)
        values.append(float(mitigation.token_penalty(state, made.model, outputs, {**batch, HIDDEN: seen[-1]}).detach()))
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_a_head_that_trains_and_is_divided_is_refused_with_what_is_allowed() -> None:
    check_divided(KLToStart(), "zero3", trains_head=lambda: False)
    with pytest.raises(
        UserError, match=r"kl_to_start runs the head.*zero_stage 1 or 2, or a recipe that leaves"
    ) as refused:
        check_divided(KLToStart(), "fsdp", trains_head=lambda: True)
    assert "top_k" not in str(refused.value)


def test_a_direction_that_there_is_not_is_refused() -> None:
    with pytest.raises(UserError, match=r"kl_to_start\.direction"):
        get_mitigation({"kl_to_start": {"direction": "both"}})
