"""EAFT and DFT: the loss of a batch and its gradient equal formulas written out token by token in double precision."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stage_parts import difference, parts, stage, weights
from torch import Tensor

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods import get_mitigation
from lmmcl.methods.losses.dft import DFT
from lmmcl.methods.losses.eaft import EAFT
from lmmcl.methods.mitigation import ROWS
from lmmcl.training.finetune import finetune

ROWS_ASKED = [7, 0, 2, 5]


def entropy_of_largest(logits: np.ndarray, k: int) -> float:
    """The entropy of the softmax over the k largest logits, over its greatest value ln k; plain numpy."""
    top = np.sort(logits)[-k:]
    p = np.exp(top - top.max())
    p /= p.sum()
    return float(-(p * np.log(p)).sum() / math.log(k))


def probability(logits: np.ndarray, token: int) -> float:
    return float(np.exp(logits[token] - logits.max()) / np.exp(logits - logits.max()).sum())


def written_out(mitigation: Any, logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over answer tokens of factor · −log p, the factor a plain number: position by position."""
    total, count = logits.new_zeros(()), 0
    for row in range(len(labels)):
        for column in range(1, labels.shape[1]):
            if (token := int(labels[row, column])) != -100:
                at = logits[row, column - 1]
                values = at.detach().numpy()
                factor = (
                    probability(values, token)
                    if isinstance(mitigation, DFT)
                    else entropy_of_largest(values, mitigation.top_k) ** mitigation.alpha
                )
                total = total - factor * at.log_softmax(-1)[token]
                count += 1
    return total / count


@pytest.mark.parametrize("mitigation", [EAFT(), EAFT(top_k=5, alpha=2.0), DFT()], ids=lambda own: own.label)
def test_loss_and_gradient_are_those_of_the_formula(mitigation: Any, tmp_path: Path) -> None:
    made = parts(stage(mitigation), tmp_path)
    made.model.double()
    batch = made.trainer.prepare_batch({**made.context.batch_of(ROWS_ASKED), ROWS: torch.tensor(ROWS_ASKED)})
    made.trainer.current_gradient_accumulation_steps = 1
    tokens = (batch["labels"] != -100).sum()
    batch = {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}
    loss = made.trainer.compute_loss(made.model, batch, num_items_in_batch=tokens)
    own = list(made.trained().values())
    moved = torch.cat([one.flatten().double() for one in torch.autograd.grad(loss, own)])
    inputs = {key: value for key, value in batch.items() if key not in ("labels", ROWS)}
    expected = written_out(mitigation, made.model(**inputs).logits, batch["labels"])
    wanted = torch.cat([one.flatten() for one in torch.autograd.grad(expected, list(made.trained().values()))])
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6, abs=1e-6)
    assert (moved - wanted).norm() < 1e-6 * wanted.norm(), "the factor has no gradient"


def test_a_factor_is_between_nothing_and_all() -> None:
    sure = torch.zeros(1, 30).index_fill(1, torch.tensor([4]), 200.0)
    tokens = torch.tensor([4])
    assert float(EAFT().token_weights(None, sure, tokens)) == pytest.approx(0, abs=1e-6)
    assert float(EAFT().token_weights(None, torch.zeros(1, 30), tokens)) == pytest.approx(1, abs=1e-6)
    assert float(EAFT().token_weights(None, torch.zeros(1, 6), tokens)) == pytest.approx(1), (
        "K is at most the vocabulary"
    )
    assert float(DFT().token_weights(None, sure, tokens)) == pytest.approx(1)
    assert float(DFT().token_weights(None, sure, torch.tensor([5]))) == pytest.approx(0)


def test_an_exponent_of_zero_is_plain_fine_tuning(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    plain, flat, weighted = stage(), stage(EAFT(alpha=0)), stage(EAFT())
    for step in (plain, flat, weighted):
        finetune(step, ledger, TrainingPlacement())
    assert difference(weights(plain, ledger), weights(flat, ledger)) < 1e-6
    assert difference(weights(plain, ledger), weights(weighted, ledger)) > 1e-4


@pytest.mark.parametrize("name", ["eaft", "dft"])
def test_a_stage_is_the_same_however_its_batches_are_cut(name: str, tmp_path: Path) -> None:
    whole, cut = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "cut"))
    step = stage(get_mitigation(name).in_training)
    finetune(step, whole, TrainingPlacement())
    finetune(step, cut, TrainingPlacement(micro_batch_size=1))
    assert difference(weights(step, whole), weights(step, cut)) < 1e-4


def test_two_that_weight_the_same_tokens_are_refused() -> None:
    with pytest.raises(UserError, match="eaft and dft both weight the cross entropy of each token"):
        get_mitigation(["eaft", "dft"])
    assert get_mitigation(["l2_sp", "eaft", "token_masking", "replay"]).name == "replay+token_masking+eaft+l2_sp"


@pytest.mark.parametrize("settings", [{"top_k": 1}, {"alpha": -0.1}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UserError, match=rf"eaft\.{next(iter(settings))}"):
        get_mitigation({"eaft": settings})
