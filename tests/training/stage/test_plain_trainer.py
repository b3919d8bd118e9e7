"""A stage beside the script that people write now: the same weights, to the last bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bench.plain_script import load, train
from made import SWEEP, write_sweep

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger
from lmmcl.steps import Finetune
from lmmcl.training.finetune import finetune
from lmmcl.training.stage import trainer
from lmmcl.weights.checkpoint import load_checkpoint, named_tensors


@pytest.mark.parametrize("recipe", ["sa_proj", "llm"])
def test_a_stage_ends_in_the_weights_of_the_plain_trainer(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the logits of all tokens, as the script has them; those of the answers alone sum up in another order."""
    text = SWEEP.replace("[sa_proj, gate_up]", f"[{recipe}]").replace("epochs: 1", "epochs: 3, warmup_ratio: 0.2")
    trial = load_sweep(write_sweep(tmp_path, text)).trials[0]
    train(trial, 1, "base", tmp_path)
    theirs = named_tensors(load(str(tmp_path / "model"), trial.model.name))
    monkeypatch.setattr(trainer, "answer_span", lambda labels: labels.shape[1])
    step = next(step for step in trial.steps().values() if isinstance(step, Finetune) and step.depth == 1)
    ledger = Ledger(str(tmp_path / "store"))
    record = finetune(step, ledger, TrainingPlacement())
    ours = named_tensors(load_checkpoint(step, ledger, precision="fp32"))
    assert record["updates"] == 6
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
