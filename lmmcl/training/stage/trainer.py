"""The Hugging Face Trainer with what a stage needs: a mitigation's hooks, checkpoints of trained tensors, a checked loss.

What it leaves out is overhead that a tiny model would feel: no FLOP counts, no reports, no progress bars.
"""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback
from transformers.trainer_callback import PrinterCallback, TrainerControl, TrainerState

from lmmcl.errors import UserError
from lmmcl.methods.mitigation import HIDDEN, LABELS, ROWS, TrainingMitigation
from lmmcl.models.head import head_inputs
from lmmcl.models.kernels.last_mlp import at_last_positions
from lmmcl.models.partition.fused import Slice
from lmmcl.models.partition.modules import decayed_names
from lmmcl.private_api.trainer_private import TrainerWithPrivateParts
from lmmcl.steps import Finetune
from lmmcl.training.distributed.workers import update_of
from lmmcl.training.efficiency.answer_loss import TokenWeights, answer_columns, answer_loss, answer_span, answer_targets
from lmmcl.training.efficiency.fused_loss import Kernel, fused_head
from lmmcl.training.efficiency.packed_rows import LENGTHS, packed_positions
from lmmcl.training.efficiency.padding_share import PaddingCount
from lmmcl.training.recovery.moving_state import read_moving, write_moving
from lmmcl.training.stage.arguments import split_by_rate
from lmmcl.training.stage.collate import COMPANION, told_by_loader
from lmmcl.training.stage.first_batch import CheckGradient, check_first_batch, check_first_packed
from lmmcl.training.stage.rollouts import Rollouts
from lmmcl.training.stage_errors import StageError

TRAINED = "trained.safetensors"

Progress = Callable[[dict[str, Any]], None]


class StageTrainer(TrainerWithPrivateParts):
    """Teaches one stage. `mitigation_state` is what the mitigation's `start` returned, `rates` learning rates by parameter name."""

    def __init__(self, step: Finetune, model: PreTrainedModel, progress: Progress | None, **more: Any) -> None:
        self.step = step
        self.mitigation: TrainingMitigation | None = step.mitigation
        self.mitigation_state: Any = None
        self.rates: Mapping[str, float] = {}
        self.after_update: Callable[[], None] | None = None
        self.slices: Mapping[str, Slice] = {}
        """Of fused tensors that train in part, the slice that does, by parameter name."""
        self.taught = model
        self.has_gradient = False
        """Whether a batch of the update under way reached what trains."""
        self._is_checked = False
        self.packs = False
        """Whether batches are packed."""
        self.kernel: Kernel | None = None
        """What computes head and loss in one, if anything does; else `kernel_note` says why not, where it was asked for."""
        self.kernel_note: str | None = None
        self.last_mlp: torch.nn.Module | None = None
        self.padding = PaddingCount()
        self.progress = progress
        self.first_update = 0
        self._last_log = (0, time.perf_counter())
        # A mitigation may want all logits; for the loss those that predict answers are enough, and most of the memory.
        takes = inspect.signature(model.forward).parameters
        self.can_cut_logits = "logits_to_keep" in takes
        # The Trainer tells the outer configuration alone to keep no keys and values: the language model of some families keeps
        # them for every block, and with them lets packed rows see one another.
        self._keeps_nothing = {"use_cache": False} if "use_cache" in takes else {}
        self._keeps_few_logits = self.can_cut_logits and not (self.mitigation and self.mitigation.reads_all_logits)
        # With a loss function of ours the Trainer counts the tokens of the global batch for every family; without one it
        # believes Qwen2.5-VL, which says that it does not take it, and averages the means of the parts.
        super().__init__(model=model, compute_loss_func=answer_loss, **more)
        self.remove_callback(PrinterCallback)
        self.add_callback(LogLastUpdate())
        self.add_callback(CheckGradient(self))

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Cross entropy over the answer tokens of the global batch, and the mitigation's term.

        A batch in which nothing reaches what trains (rows without an image, where only what looks at images does) adds nothing to
        its update; see `CheckGradient`. Raises StageError when the loss is not finite.
        """
        outputs, loss = None, inputs["labels"].new_zeros((), dtype=torch.float32)
        self.padding.add(inputs)
        if not (self.mitigation and self.mitigation.replaces_cross_entropy):
            outputs, loss = self._answers_loss(model, inputs, num_items_in_batch)
        if self.mitigation and self.mitigation.uses("sample_loss"):
            total = self.mitigation.sample_loss(self.mitigation_state, Rollouts(self, model, inputs[ROWS].tolist()))
            loss = loss if total is None else loss + total / self.step.training.global_batch_size
        loss = loss * self.accelerator.num_processes  # DDP takes the mean of the workers' gradients; the sum is wanted
        if self.mitigation is not None:
            penalty = self.mitigation.penalty(self.mitigation_state, self.taught, outputs, inputs)
            loss = loss if penalty is None else loss + penalty / self.current_gradient_accumulation_steps
        if COMPANION in inputs and outputs is not None:
            loss = loss + 0.0 * outputs.logits[-1].float().sum()
        elif loss.requires_grad:
            self.has_gradient = True
        elif self.accelerator.num_processes > 1:  # no companion: the stage has no image at all
            raise StageError.of(
                self.step, f"no row reaches what {list(self.step.recipe.selectors)} names: none has an image"
            )
        else:
            loss = loss + 0.0 * sum(p.reshape(-1)[:1].sum() for p in self.taught.parameters() if p.requires_grad)
        if not torch.isfinite(loss):
            raise StageError.of(
                self.step, f"loss is {loss.item()} at update {self.state.global_step + 1} of {self.state.max_steps}"
            )
        return (loss, outputs) if return_outputs else loss

    def _answers_loss(self, model: Any, inputs: dict[str, Any], tokens: Tensor) -> tuple[Any, Tensor]:
        """The model's outputs, and the cross entropy of the answers with what a mitigation adds for each token."""
        labels = inputs["labels"]
        columns = answer_columns(labels) if self.packs and self._keeps_few_logits else None
        tokens = tokens.clamp(min=1)  # a mitigation may leave no token of an update to teach
        kernel = None if COMPANION in inputs else self.kernel
        keep = self._kept(inputs, columns)
        last = at_last_positions(self.last_mlp, keep if isinstance(keep, int) else None)
        with self._hidden_states() as hidden, self._fused(kernel, labels, columns), last:
            outputs = model(**self.model_inputs(inputs, keep))
        shown = {**inputs, HIDDEN: hidden[-1]} if hidden else inputs
        if kernel is None:
            loss = answer_loss(outputs.logits, labels, tokens, columns, self._token_weights())
        else:
            loss = outputs.logits.sum() / tokens
        if self.mitigation is not None:
            total = self.mitigation.token_penalty(self.mitigation_state, self.taught, outputs, shown)
            loss = loss if total is None else loss + total / tokens
        return outputs, loss

    def _token_weights(self) -> TokenWeights | None:
        """The mitigation's factors of the cross entropy of each answer token, where it has some."""
        if self.mitigation is None or not self.mitigation.uses("token_weights"):
            return None
        return partial(self.mitigation.token_weights, self.mitigation_state)

    def _hidden_states(self) -> AbstractContextManager[list[Tensor]]:
        """What the head is given inside the `with`, where the mitigation runs it itself."""
        runs_head = self.mitigation is not None and self.mitigation.runs_head
        return head_inputs(self.taught) if runs_head else nullcontext([])

    def _fused(self, kernel: Kernel | None, labels: Tensor, columns: Tensor | None) -> AbstractContextManager[None]:
        """The model's head computes the loss inside the `with`, where there is a kernel for it."""
        if kernel is None:
            return nullcontext()
        return fused_head(self.taught, kernel, lambda kept: answer_targets(labels, kept, columns))

    def _kept(self, inputs: Mapping[str, Tensor], columns: Tensor | None) -> int | Tensor | None:
        """The positions whose logits are needed: a number of last ones, or a list; None: all."""
        if columns is not None:
            last = torch.tensor([inputs["labels"].shape[1] - 1], device=columns.device)
            return torch.cat([columns, last]) if COMPANION in inputs else columns
        return answer_span(inputs["labels"]) + 1 if self._keeps_few_logits else None

    def model_inputs(self, batch: Mapping[str, Any], keep: int | Tensor | None) -> dict[str, Any]:
        """Of a batch what the model takes; with the positions whose logits are wanted, if it takes them."""
        ours = ("labels", LABELS, ROWS, COMPANION, LENGTHS)
        inputs = {name: value for name, value in batch.items() if name not in ours} | self._keeps_nothing
        if LENGTHS in batch:
            inputs["position_ids"] = packed_positions(self.taught, batch)
        return inputs | ({"logits_to_keep": keep} if keep is not None and self.can_cut_logits else {})

    def padding_share(self) -> float:
        """Padding as a share of what was computed on since the stage began or was resumed, over all workers."""
        return self.padding.share(lambda counts: self.accelerator.reduce(counts, "sum"), self.args.device)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """As the Trainer's (the loss, a scalar), once the first batch of the stage was checked."""
        if not self._is_checked:
            self._is_checked = True
            check_first_batch(self)
            if self.packs:
                check_first_packed(self)
        return super().training_step(model, inputs, num_items_in_batch)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW over the trained parameters, shown to the mitigation."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if is_new and self.rates:
            names = {id(parameter): name for name, parameter in self.taught.named_parameters()}
            split_by_rate(optimizer, names, self.rates)
        if is_new and self.slices and self.args.weight_decay:
            optimizer.register_step_pre_hook(partial(self._decay_slices, dict(self.taught.named_parameters())))
        if is_new and self.mitigation is not None:
            self.mitigation.optimizer(self.mitigation_state, self.taught, optimizer)
        if is_new and (after := self.after_update) is not None:
            optimizer.register_step_post_hook(lambda *_: after())
        return optimizer

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """What weight decay is for; slices are decayed by us, since the optimizer would decay the whole tensor."""
        return [name for name in decayed_names(model) if name not in self.slices]

    @torch.no_grad()
    def _decay_slices(self, own: Mapping[str, Tensor], optimizer: Any, args: Any, kwargs: Any) -> None:
        """What AdamW's decay does before an update, for the slices that train."""
        rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
        for name, part in self.slices.items():
            shrunk = part.take(own[name].data) * (1 - rates[id(own[name])] * self.args.weight_decay)
            part.put(own[name].data, shrunk)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: it walks over all parameters at every batch."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the throughput, keep the row for the curve, notify observers."""
        update, now = self.state.global_step, time.perf_counter()
        before, then = self._last_log
        if "loss" in logs:
            logs["updates_per_second"] = (update - before) / (now - then)
            self._last_log = (update, now)
            if self.progress and self.is_world_process_zero():
                shown = {"update": update, "updates": self.state.max_steps, "loss": logs["loss"]}
                self.progress({**shown, "updates_per_second": logs["updates_per_second"]})
        super().log(logs, start_time)

    @contextmanager
    def resuming(self, checkpoint: Path | None) -> Iterator[str | None]:
        """Make ready to train from a Trainer checkpoint (where there is one), and give what `train` wants to know of it.

        An error of a row that a loader process could not read comes out as it was raised there.
        """
        self.first_update = update_of(checkpoint) if checkpoint else 0
        self._last_log = (self.first_update, time.perf_counter())
        if checkpoint and self.mitigation:
            read_moving(self, checkpoint)
        if self.args.dataloader_num_workers:
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # loader processes are parallel enough
        try:
            yield str(checkpoint) if checkpoint else None
        except UserError as error:
            if (original := told_by_loader(error)) is not error:
                raise original from None
            raise

    def curve(self) -> list[dict[str, float]]:
        """Rows of update, loss (mean since the row before), learning rate, gradient norm before clipping, updates per second."""
        return [
            {
                "update": row["step"],
                "loss": row["loss"],
                "learning_rate": row["learning_rate"],
                "grad_norm": row["grad_norm"],
                "updates_per_second": row["updates_per_second"],
            }
            for row in self.state.log_history
            if "loss" in row
        ]

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As the Trainer does; with DeepSpeed, whose own checkpoint holds the weights, only a sign that it was written."""
        if not self.is_deepspeed_enabled:
            super().save_model(output_dir, _internal_call)
        elif self.args.should_save:
            folder = Path(output_dir or str(self.args.output_dir))
            folder.mkdir(parents=True, exist_ok=True)
            save_file({}, folder / TRAINED)
        if self.mitigation:
            write_moving(self, Path(output_dir or str(self.args.output_dir)))

    def write_model(self, folder: Path) -> None:
        """Of the model, save the trained parameters alone (the parent has the others), in the precision they train in."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: p.detach().cpu().contiguous() for name, p in self.taught.named_parameters() if p.requires_grad},
            folder / TRAINED,
        )

    def read_model(self, folder: Path) -> None:
        """Set the trained parameters to what `write_model` wrote."""
        restore(self.taught, load_file(folder / TRAINED))


def restore(model: PreTrainedModel, tensors: Mapping[str, Tensor]) -> None:
    """Set parameters by name, in place."""
    own = dict(model.named_parameters())
    for name, tensor in tensors.items():
        own[name].data.copy_(tensor)


class LogLastUpdate(TrainerCallback):
    """The last update ends the curve, whatever the distance between its rows."""

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step == state.max_steps:
            control.should_log = True
