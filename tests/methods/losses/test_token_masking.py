"""Selective token masking: which tokens surprise the start model, and that they are neither taught nor counted."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from stage_parts import difference, parts, shake, stage, weights

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods import get_mitigation
from lmmcl.methods.losses.token_masking import TokenMasking
from lmmcl.methods.mitigation import ROWS
from lmmcl.training.finetune import finetune
from lmmcl.training.stage_errors import StageError


def surprises(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[tuple[int, int], float]:
    """Perplexity of every answer token by (row, column), one at a time."""
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    with torch.no_grad():
        logits = model(**inputs).logits.double()
    return {
        (row, column): 1 / float(logits[row, column - 1].softmax(-1)[int(token)])
        for row, labels in enumerate(batch["labels"])
        for column, token in enumerate(labels)
        if token != -100
    }


def test_tokens_above_the_threshold_are_ignored_and_no_others(tmp_path: Path) -> None:
    made = parts(stage(TokenMasking()), tmp_path)
    rows = [5, 1, 3, 8]
    batch = made.context.batch_of(rows)
    found = surprises(made.model, batch)
    threshold = math.sqrt(sorted(found.values())[len(found) // 2 - 1] * sorted(found.values())[len(found) // 2])
    mitigation = TokenMasking(threshold=threshold)
    state = mitigation.start(made.context)
    shake(made.model)  # what the model becomes later does not matter
    changed = mitigation.batch(state, {**batch, ROWS: torch.tensor(rows)})["labels"]
    ignored = {(row, column) for row, column in found if changed[row, column] == -100}
    assert ignored == {place for place, perplexity in found.items() if perplexity > threshold}
    assert 0 < len(ignored) < len(found)
    kept = changed != -100
    assert torch.equal(changed[kept], batch["labels"][kept])


def test_a_threshold_above_all_perplexities_is_plain_fine_tuning(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    plain, all_taught = stage(), stage(TokenMasking(threshold=1e12))
    for step in (plain, all_taught):
        finetune(step, ledger, TrainingPlacement())
    assert difference(weights(plain, ledger), weights(all_taught, ledger)) == 0


def test_a_masked_stage_is_another_and_the_same_however_it_is_cut(tmp_path: Path) -> None:
    whole, cut = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "cut"))
    plain, masked = stage(), stage(TokenMasking(threshold=20.0))
    for step in (plain, masked):
        finetune(step, whole, TrainingPlacement())
    finetune(masked, cut, TrainingPlacement(micro_batch_size=1))
    assert difference(weights(plain, whole), weights(masked, whole)) > 1e-4
    assert difference(weights(masked, whole), weights(masked, cut)) < 1e-4


class NothingTaught(TokenMasking):
    """Ignores every label."""

    def batch(self, state, batch):  # type: ignore[no-untyped-def]
        return {**batch, "labels": torch.full_like(batch["labels"], -100)}


def test_an_update_in_which_nothing_is_taught_leaves_the_weights_alone(tmp_path: Path) -> None:
    step = stage(NothingTaught(threshold=1e12), max_steps=2)
    with pytest.raises(StageError, match=r"no parameter that .* changed"):  # and not: the loss is nan
        finetune(step, Ledger(str(tmp_path)), TrainingPlacement())


def test_a_stage_in_which_no_token_is_expected_is_refused(tmp_path: Path) -> None:
    mitigation = TokenMasking(threshold=1.0000001)
    with pytest.raises(UserError, match="no answer token has a perplexity of 1 or less"):
        mitigation.start(parts(stage(mitigation), tmp_path).context)


@pytest.mark.parametrize("threshold", [1, 0, float("inf")])
def test_a_threshold_that_makes_no_sense_is_refused(threshold: float) -> None:
    with pytest.raises(UserError, match=r"token_masking\.threshold"):
        get_mitigation({"token_masking": {"threshold": threshold}})
