"""A stage's settings in the words of the Hugging Face Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, TrainingArguments

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.settings import Training
from lmmcl.errors import UserError
from lmmcl.private_api.trainer_private import leave_deepspeed_unloaded, remember_missing_packages, use_one_gpu
from lmmcl.steps import Finetune
from lmmcl.steps.optimizers import TRAINER_NAMES, check_optimizer_package, check_placed_optimizer
from lmmcl.training.distributed.batches import Batches
from lmmcl.training.distributed.strategies import strategy_arguments

CURVE_POINTS = 100


def training_arguments(
    step: Finetune,
    placement: TrainingPlacement,
    batches: Batches,
    model: PreTrainedModel,
    *,
    updates: int,
    folder: Path,
) -> TrainingArguments:
    """Our settings in the Trainer's words, for a model; `folder` takes its checkpoints.

    Raises UserError for fp16 on a CPU, for GPUs that are not there, and for an optimizer that cannot run so.
    """
    training, on_cpu = step.training, not placement.gpus_per_worker
    check_optimizer_package(training)
    check_placed_optimizer(training, placement)
    _check_devices(training, placement)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=updates,
        per_device_train_batch_size=batches.micro,
        gradient_accumulation_steps=batches.accumulation,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.lr_scheduler_type,
        # At least one update has a rate above 0; the first of a warm-up has none.
        warmup_steps=min(-int(-training.warmup_ratio * updates // 1), updates - 1),
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        adam_beta1=training.adam_beta1,
        adam_beta2=training.adam_beta2,
        adam_epsilon=training.adam_epsilon,
        optim=TRAINER_NAMES.get(training.optimizer, training.optimizer),
        bf16=training.precision == "bf16",
        fp16=training.precision == "fp16",
        seed=step.seed,
        data_seed=step.seed,
        train_sampling_strategy="sequential",  # the data set is in training order already
        remove_unused_columns=False,
        average_tokens_across_devices=True,
        ddp_find_unused_parameters=True,
        ddp_backend="gloo" if on_cpu and placement.workers else None,
        use_cpu=on_cpu,
        dataloader_num_workers=placement.loader_workers,
        dataloader_pin_memory=not on_cpu,
        logging_steps=max(1, updates // CURVE_POINTS),
        logging_nan_inf_filter=False,
        log_level="error",
        save_strategy="steps" if placement.save_every else "no",
        save_steps=placement.save_every or 500,
        save_total_limit=2,
        disable_tqdm=True,
        report_to="none",
        **strategy_arguments(placement, model),
    )
    use_one_gpu(arguments)
    remember_missing_packages()
    leave_deepspeed_unloaded()
    return arguments


def _check_devices(training: Training, placement: TrainingPlacement) -> None:
    """Raise UserError for fp16 on a CPU, and for GPUs that are not there."""
    on_cpu = not placement.gpus_per_worker
    if on_cpu and training.precision == "fp16":
        raise UserError(
            "fp16 trains on GPUs only; allowed on CPU: fp32, bf16 (or set training.gpus_per_worker in the cluster file)",
            place="training.precision",
        )
    if not on_cpu and not torch.cuda.is_available():
        raise UserError(
            f"{placement.gpus_per_worker:g} GPUs are requested, but none are visible to this process",
            place="training.gpus_per_worker",
        )


def split_by_rate(optimizer: torch.optim.Optimizer, names: Mapping[int, str], rates: Mapping[str, float]) -> None:
    """Split a fresh optimizer's groups so that the parameters in `rates` have those; `names` are names by `id`.

    The rates are peaks: the schedule scales each group's own. Groups with the trial's rate come first, for the curve shows theirs.
    """
    groups = []
    for group in optimizer.param_groups:
        by_rate: dict[float, list[Tensor]] = {}
        for parameter in group["params"]:
            by_rate.setdefault(rates.get(names[id(parameter)], group["lr"]), []).append(parameter)
        groups += [{**group, "params": params, "lr": rate} for rate, params in by_rate.items()]
    usual = optimizer.defaults["lr"]
    optimizer.param_groups[:] = sorted(groups, key=lambda group: group["lr"] != usual)
