"""The weights inside a stage: written as its training passes an update, or made by training up to that update again.

Both ways give the same bits. The first needs the model's own tensors whole in one process: adapters that are merged at the end,
divided models and mitigations that change weights at the end take the second.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import TrainerControl, TrainerState

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.ledger.provenance import provenance
from lmmcl.models.experts import grown
from lmmcl.steps import Finetune, Snapshot
from lmmcl.training.stage.trainable import TrainableModel
from lmmcl.weights.checkpoint import base_digest
from lmmcl.weights.delta import save_delta
from lmmcl.weights.fast_digest import fast_digests


def can_write(step: Finetune, trainable_model: TrainableModel, placement: TrainingPlacement) -> bool:
    """Whether the weights are as they would be stored after every update of the stage, and not only at its end."""
    settles = type(trainable_model).merge_adapters is not TrainableModel.merge_adapters
    ends = step.mitigation is not None and step.mitigation.uses("end")
    return not (settles or ends) and placement.strategy_name in ("single", "ddp")


class WriteSnapshots(TrainerCallback):
    """Records the snapshots that `step` names, where the ledger lacks them, after their updates.

    `before` are fast digests of all tensors at the stage's start, `dtypes` those that trained parameters had then: a snapshot holds
    what differs, as the stage's own checkpoint does.
    """

    def __init__(
        self,
        step: Finetune,
        ledger: Ledger,
        trainable_model: TrainableModel,
        before: Mapping[str, str],
        dtypes: Mapping[str, torch.dtype],
    ) -> None:
        self._step, self._ledger, self._pupil = step, ledger, trainable_model
        self._before, self._dtypes = before, dtypes

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step in self._step.snapshots and state.is_world_process_zero:
            snapshot = Snapshot(self._step, state.global_step)
            if not self._ledger.has_usable(snapshot):
                self._write(snapshot)

    def _write(self, snapshot: Snapshot) -> None:
        started = time.time()
        model, precision = self._pupil.model, self._step.training.precision
        own = dict(model.named_parameters())
        values = {
            name: own[name].detach().to(self._dtypes.get(name, own[name].dtype)) for name in self._pupil.saved_names
        }
        digests = fast_digests(values)
        moved = {name: value for name, value in values.items() if digests[name] != self._before[name]}
        with self._ledger.writing(snapshot) as draft:
            size = save_delta(
                draft.folder,
                self._pupil.saved_tensors(moved, moved),
                parent_key=self._step.parent.key,
                base_digest=base_digest(self._step.model, precision),
                experts=grown(model),
            )
            draft.commit(
                {
                    "precision": precision,
                    "checkpoint_bytes": size,
                    "updates": snapshot.update,
                    "moved": len(moved),
                    "seconds": time.time() - started,
                    "provenance": provenance(started),
                }
            )


class StopAfter(TrainerCallback):
    """Ends training after an update, with a last row of the curve; schedule and data are those of the whole stage."""

    def __init__(self, update: int) -> None:
        self._update = update

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step >= self._update:
            control.should_training_stop = control.should_log = True
