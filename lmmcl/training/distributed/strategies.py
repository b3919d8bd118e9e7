"""How several workers share one model: DDP copies it, DeepSpeed's ZeRO and FSDP divide it. Asked for in the cluster file alone.

What is asked for is checked before the first update against what the Trainer really did (its FSDP option silently becomes
DDP on a CPU). After training, a divided model is made whole again, so that proof and delta know nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel, Trainer, TrainerCallback
from transformers.trainer_callback import TrainerControl, TrainerState

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.steps import Finetune
from lmmcl.steps.optimizers import check_placed_optimizer
from lmmcl.steps.strategy_fit import check_packed, check_strategy_fit
from lmmcl.training.stage_errors import StageError

WHOLE = "whole"
"""The layout of a model that is not divided: see `checkpoint_layout`."""


def checkpoint_layout(placement: TrainingPlacement) -> str:
    """How checkpoints inside a stage are written: what was written in one layout cannot be resumed from in another.

    A whole model and its optimizer fit any number of workers; parts of a divided one belong to as many as divided it.
    """
    name = placement.strategy_name
    if name in ("single", "ddp"):
        return WHOLE
    return f"{name} by {placement.workers}, offload {placement.offload}"


def strategy_arguments(placement: TrainingPlacement, model: nn.Module) -> dict[str, Any]:
    """The `TrainingArguments` that set the strategy, kernels and compilation for a model."""
    arguments: dict[str, Any] = {}
    if placement.gradient_checkpointing:
        arguments |= {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    if placement.compile:
        arguments["torch_compile"] = True
    if placement.workers and placement.strategy == "deepspeed":
        arguments["deepspeed"] = deepspeed_config(placement)
    if placement.workers and placement.strategy == "fsdp":
        config = {"fsdp_version": 2, "reshard_after_forward": True}
        layers = {"transformer_layer_cls_to_wrap": _divided_layers(model)}
        arguments |= {"fsdp": "full_shard auto_wrap", "fsdp_config": {**config, **layers}}
    return arguments


def _divided_layers(model: nn.Module) -> list[str]:
    """The classes of the layers that FSDP gathers one at a time: those that the model's classes name and that it has.

    A vision tower without its pooling head names that head's class anyway, and accelerate refuses a name that is not there.
    Raises UserError where none is left.
    """
    named = set(getattr(model, "_no_split_modules", None) or ())
    layers = sorted(named & {type(module).__name__ for module in model.modules()})
    if not layers:
        listed = f"only {', '.join(sorted(named))}, which it has none of" if named else "nothing"
        raise UserError(
            f"fsdp gathers a model layer by layer, and {type(model).__name__} does not say which of its modules are layers "
            f"(`_no_split_modules` names {listed}); allowed for this model: deepspeed, or ddp",
            place="training.strategy",
        )
    return layers


def deepspeed_config(placement: TrainingPlacement) -> dict[str, Any]:
    """DeepSpeed's settings; `auto` are those that the Trainer fills in. AdamW is torch's own, as in every other strategy."""
    zero: dict[str, Any] = {"stage": placement.zero_stage, "contiguous_gradients": True}
    if placement.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if placement.offload == "parameters":
        zero["offload_param"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": "auto"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }


def check_strategy(step: Finetune, placement: TrainingPlacement) -> None:
    """Raise UserError when `step` needs whole what the strategy divides, the strategy needs GPUs, or a kernel is not installed."""
    check_strategy_fit(step, placement.strategy_name)
    check_placed_optimizer(step.training, placement)
    if placement.packing:
        check_packed(step.mitigation)
    if placement.strategy_name == "fsdp" and not placement.gpus_per_worker:
        raise UserError("fsdp needs GPUs (on a CPU the Trainer would use DDP instead)", place="training.strategy")
    if placement.liger:
        from importlib.util import find_spec

        if find_spec("liger_kernel") is None:
            raise UserError("needs the package liger-kernel, which is not installed", place="training.liger")


def active_strategy(trainer: Trainer) -> str:
    """What really shares the model among the workers, in the words of `TrainingPlacement.strategy_name`."""
    from torch.distributed.tensor import DTensor

    wrapped: Any = trainer.model_wrapped
    if trainer.is_deepspeed_enabled:
        return f"zero{wrapped.zero_optimization_stage()}"
    if any(isinstance(parameter, DTensor) for parameter in wrapped.parameters()):
        return "fsdp"
    return "ddp" if isinstance(wrapped, DistributedDataParallel) else "single"


class CheckStrategy(TrainerCallback):
    """Ends a stage before its first update when another strategy is in force than was asked for."""

    def __init__(self, trainer: Any, placement: TrainingPlacement) -> None:
        self._trainer, self._placement = trainer, placement

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        describe(self._trainer, self._placement)


def describe(trainer: Any, placement: TrainingPlacement) -> dict[str, Any]:
    """What is in force, for the record; raises StageError when it is not what was asked for."""
    expected, active, workers = placement.strategy_name, active_strategy(trainer), max(placement.workers, 1)
    if active != expected or trainer.args.world_size != workers:
        raise StageError.of(
            trainer.step,
            f"requested {expected} over {workers} workers, but the Trainer applied {active} over {trainer.args.world_size}",
        )
    distributed = torch.distributed.is_initialized() and placement.workers
    strategy: dict[str, Any] = {
        "name": active,
        "workers": workers,
        "backend": torch.distributed.get_backend() if distributed else None,
        "device": str(trainer.args.device),
        "attention": trainer.taught.config._attn_implementation,
    }
    if placement.offload != "none":
        engine = trainer.model_wrapped
        if not engine.zero_cpu_offload():
            raise StageError.of(trainer.step, f"requested offload of {placement.offload}, but the Trainer applied none")
        strategy["offload"] = placement.offload
    if placement.liger is True and not has_liger(model_type := trainer.taught.config.model_type):
        raise StageError.of(
            trainer.step,
            f"training.liger is true, but liger-kernel has no kernels for {model_type} models; set liger: loss",
        )
    switches = ("gradient_checkpointing", "packing", "liger", "compile")
    return strategy | {name: value for name in switches if (value := getattr(placement, name))}


def has_liger(model_type: str) -> bool:
    """Whether Liger replaces anything in models of this type; for others the Trainer silently leaves it out."""
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    return model_type in MODEL_TYPE_TO_APPLY_LIGER_FN


def apply_liger(model: PreTrainedModel) -> None:
    """Let Liger's norms, rotary positions and MLPs replace a model's; raises UserError where its release cannot.

    Not its forward passes that compute a loss: some ignore `logits_to_keep` and so compute all logits.
    """
    from transformers.integrations.liger import apply_liger_kernel

    try:
        apply_liger_kernel(model, {"fused_linear_cross_entropy": False})
    except ImportError as error:
        raise UserError(
            f"this release of liger-kernel has no {model.config.model_type} kernels that go with this release of transformers "
            f"({error}); set liger: loss, which needs none",
            place="training.liger",
        ) from error


def gather_full_model(model: PreTrainedModel, placement: TrainingPlacement) -> None:
    """Give every worker all of a divided model again (in the host's memory), one parameter at a time."""
    if placement.strategy_name == "zero3":
        from deepspeed import zero

        for parameter in model.parameters():
            with zero.GatheredParameters([parameter]):
                whole = parameter.detach().cpu().clone()
            parameter.data = whole
    elif placement.strategy_name == "fsdp":
        full_parameters: dict[int, nn.Parameter] = {}
        for module in model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                if id(parameter) not in full_parameters:  # tied weights stay tied
                    sharded: Any = parameter
                    full = sharded.full_tensor().detach().cpu()
                    full_parameters[id(parameter)] = nn.Parameter(full, requires_grad=parameter.requires_grad)
                setattr(module, name, full_parameters[id(parameter)])


@contextmanager
def deepspeed_forgotten() -> Iterator[None]:
    """Let this process load whole models again at the end: after a ZeRO 3 stage transformers would divide whatever comes next.

    It keeps the last settings of DeepSpeed for the process. Without that, a merge, an evaluation or the next stage of a sweep
    under torchrun would find empty tensors.
    """
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    try:
        yield
    finally:
        unset_hf_deepspeed_config()
