"""`micro_batch_size: auto`: as many examples in a forward pass as the memory holds, found by trying before the first update.

A trial is one forward and backward pass of the stage's own loss, mitigation included, over its longest examples, with room
taken for what the optimizer will hold. When memory runs out (or nearly so) the size is halved. All workers try the same
size and go down together. Nothing of a trial is left: no gradient, no random number drawn. The choice is how, not what: it
is in the record and in no key.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import get_device_states, set_device_states

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.models.processing.padding import IGNORED
from lmmcl.training.distributed.batches import Batches
from lmmcl.training.efficiency.padding_share import PaddingCount
from lmmcl.training.stage.collate import StageData
from lmmcl.training.stage_errors import StageError

if TYPE_CHECKING:
    from lmmcl.methods.mitigation import StageContext
    from lmmcl.training.stage.trainer import StageTrainer

    Build = Callable[[Batches], tuple[StageTrainer, StageContext]]

LOOKED_AT = 64
"""Rows among which the longest are looked for: to encode all of a large skill would take longer than to train on it."""
FULL = 0.92
"""Of a GPU's memory: what a trial may take. Later batches may be longer, and memory breaks up into pieces."""
STATE_BYTES = 8
"""AdamW's two moments of a trained parameter, in fp32."""


def sizes(share: int) -> Iterator[int]:
    """The sizes that are tried: the largest divisors of a worker's share at or below each halving of it, down to 1."""
    wanted = share
    while wanted:
        largest = max(size for size in range(1, wanted + 1) if share % size == 0)
        yield largest
        wanted = largest // 2


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's memory (not the host's) is full; some kernels say so only in words."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    words = ("CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "DefaultCPUAllocator")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def choose(
    batches: Batches, placement: TrainingPlacement, build: Build, start: Callable[[StageTrainer, StageContext], None]
) -> tuple[Batches, StageTrainer, StageContext]:
    """The largest batches that fit, and what `build` made for them, as new; `start` readies a mitigation for a trial.

    Raises StageError when a single example does not fit.
    """
    share = batches.accumulation * batches.micro
    for micro in sizes(share):
        tried = replace(batches, micro=micro, accumulation=share // micro)
        trainer, context = build(tried)
        with _same_random_numbers():
            fits = _fits(trainer, placement, lambda trainer=trainer, context=context: start(trainer, context))  # type: ignore[misc]
        trainer.mitigation_state, trainer.has_gradient, trainer.padding = None, False, PaddingCount()
        _free()
        if not _anywhere(not fits, trainer):
            return tried, trainer, context
    raise StageError.of(trainer.step, f"one example does not fit into GPU memory; {_remedies(placement)}")


def _remedies(placement: TrainingPlacement) -> str:
    """What a person may change, the cheapest first. A divided model is tried whole: it is divided only when training starts."""
    remedies = [] if placement.gradient_checkpointing else ["training.gradient_checkpointing: true"]
    if placement.strategy_name in ("fsdp", "zero3"):
        remedies.append("training.micro_batch_size as a number (auto tries a model whole, before it is divided)")
    else:
        remedies.append("training.strategy: deepspeed with zero_stage: 3, or a GPU with more memory")
    return "; or ".join(remedies)


def _fits(trainer: StageTrainer, placement: TrainingPlacement, start: Callable[[], None]) -> bool:
    model: Any = trainer.taught  # whose `to` is annotated for its own class alone
    device = trainer.args.device
    home, was_training = next(model.parameters()).device, model.training
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        start()
        model.to(device)
        _trial(trainer, placement)
    except (RuntimeError, torch.OutOfMemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        for parameter in model.parameters():
            parameter.grad = None
        if placement.gradient_checkpointing:
            model.gradient_checkpointing_disable()
        model.train(was_training)
        model.to(home)  # what is divided among workers is divided from where it was loaded
    return not _nearly_full(device)


def _trial(trainer: StageTrainer, placement: TrainingPlacement) -> None:
    """One forward and backward pass of the stage's loss over its longest examples, beside what the optimizer will hold."""
    model = trainer.taught
    if placement.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.disable_input_require_grads()  # as in training, see `checkpointing.py`
    model.train()
    reserved = _reserved(trainer, placement, trainer.args.device)
    batch = trainer.prepare_batch(longest(trainer, trainer.args.per_device_train_batch_size))
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    tokens = (batch["labels"] != IGNORED).sum()
    with trainer.compute_loss_context_manager():
        loss = trainer.compute_loss(model, batch, num_items_in_batch=tokens)
    loss.backward()
    del loss, batch, reserved


def _reserved(trainer: StageTrainer, placement: TrainingPlacement, device: torch.device) -> Tensor:
    """Memory that the optimizer takes at the first update (and DDP, for gradients on their way)."""
    if placement.offload != "none":
        return torch.empty(0, device=device)
    count = sum(parameter.numel() for parameter in trainer.taught.parameters() if parameter.requires_grad)
    workers = max(placement.workers, 1)
    size = count * STATE_BYTES // (workers if placement.strategy != "ddp" else 1)
    if placement.strategy == "ddp" and workers > 1:
        size += count * 4
    return torch.empty(size, dtype=torch.uint8, device=device)


def longest(trainer: Any, count: int) -> dict[str, Tensor]:
    """A batch ((count, length) each) of the longest among the stage's first rows, repeated where there are fewer."""
    data: StageData = trainer.train_dataset
    rows = list(dict.fromkeys(data.rows[:LOOKED_AT]))
    by_length = sorted(range(len(rows)), key=lambda at: -_length(data.encoded(rows[at])))
    chosen = [rows[at] for at in by_length[:count]]
    return trainer.data_collator([data.read(chosen[n % len(chosen)]) for n in range(count)])


def _length(encoded: Mapping[str, Tensor]) -> int:
    """Tokens of the text and numbers of the images: both take memory."""
    return int(encoded["input_ids"].numel()) + sum(
        tensor.numel() for name, tensor in encoded.items() if name.startswith("pixel")
    )


def _nearly_full(device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    return torch.cuda.max_memory_reserved(device) > FULL * torch.cuda.get_device_properties(device).total_memory


def _anywhere(flag: bool, trainer: Any) -> bool:
    """Whether any worker says so: all must take the same size, or one would wait for another for ever."""
    if not torch.distributed.is_initialized() or trainer.args.world_size == 1:
        return flag
    value = torch.tensor([float(flag)], device=trainer.args.device)
    torch.distributed.all_reduce(value, op=torch.distributed.ReduceOp.MAX)
    return bool(value.item())


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Draw none, as far as what comes after can tell."""
    cpu = torch.get_rng_state()
    devices, states = get_device_states(torch.empty(0, device="cuda")) if torch.cuda.is_available() else ([], [])
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        if devices:
            set_device_states(devices, states)
