"""What a stage needs of each GPU, before it is spent: weights, gradients, optimizer states, activations. Rough, and without torch.

A trained parameter is held in fp32 (4 bytes) with its gradient (4) and AdamW's two states (8): 16 bytes, and in half
precision a copy that arithmetic is done with (2; ZeRO, arXiv 1910.02054, section 3.1). A frozen one has its own precision
and nothing else. Activations are the inputs and outputs of the linear layers of the language model, which is
within a third of the per-layer count of arXiv 2205.05198 (section 4.1) for blocks whose attention is not kept; with
gradient checkpointing, a block's input for each block and one block in whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from lmmcl.errors import UserError
from lmmcl.methods.mitigation import check_divided
from lmmcl.models.base import LMM
from lmmcl.models.linears import linear_shapes
from lmmcl.spec.cluster import Cluster, TrainingPlacement
from lmmcl.spec.steps import Finetune
from lmmcl.spec.trained import trained_of

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Of a parameter, by precision."""
TEXT_TOKENS = 128
"""Tokens of an example beside those of its image."""
ANSWER_TOKENS = 256
"""Of these, those whose logits are computed."""
GB = 10**9
RESERVE = 2 * GB
"""CUDA context, kernels' work space, fragmentation."""


@dataclass(frozen=True)
class StageMemory:
    """Bytes on each GPU while a stage trains; `activations` is 0 for a model that does not tell its layers.

    `mitigation` is what it keeps of the weights, in fp32 and undivided.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    mitigation: int = 0

    @property
    def total(self) -> int:
        """With what CUDA takes for itself."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.mitigation + RESERVE

    def to_dict(self) -> dict[str, int]:
        """For `--json`."""
        return {**asdict(self), "total": self.total}


@dataclass(frozen=True)
class Place:
    """How a stage fits a node: so many of its GPUs, shared in that way, and the memory that each needs."""

    gpus: int
    strategy: str
    memory: StageMemory

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"gpus": self.gpus, "strategy": self.strategy, **self.memory.to_dict()}

    def __str__(self) -> str:
        shared = f" ({self.strategy})" if self.gpus > 1 else ""
        return f"{_gb(self.memory.total)} on {self.gpus} GPU{'s' if self.gpus > 1 else ''}{shared}"


NODE_GPUS, NODE_GB = 8, 80.0
"""The node that a plan without a cluster file is told for."""


def smallest_place(step: Finetune, gpus: int = NODE_GPUS, gb: float = NODE_GB) -> Place | None:
    """The fewest of `gpus` GPUs of `gb` gigabytes that a stage fits, with checkpointing and one example each; None if none do."""
    one = TrainingPlacement(workers=1, gpus_per_worker=1, micro_batch_size=1, gradient_checkpointing=True)
    tried: list[tuple[int, str, dict[str, Any]]] = [(1, "one GPU", {})]
    for workers in (2, 4, 8):
        if workers <= gpus and step.training.global_batch_size % workers == 0:
            zero = {"workers": workers, "strategy": "deepspeed"}
            tried += [(workers, f"ZeRO-{stage}", {**zero, "zero_stage": stage}) for stage in (2, 3)]
    for number, strategy, change in tried:
        place = one.model_copy(update=change)
        if _goes_with(step, place) and (memory := stage_memory(step, place)).total <= gb * GB:
            return Place(number, strategy, memory)
    return None


def _goes_with(step: Finetune, placement: TrainingPlacement) -> bool:
    """Whether the mitigation of a stage reads nothing that the strategy divides."""
    try:
        check_strategy(step, placement)
    except UserError:
        return False
    return True


def check_strategy(step: Finetune, placement: TrainingPlacement) -> None:
    """Raises UserError when the mitigation of a stage reads what the strategy divides; told before anything is loaded."""
    divided = f"zero{placement.zero_stage}" if placement.strategy == "deepspeed" else placement.strategy
    check_divided(step.mitigation, divided)


def example_tokens(lmm: LMM) -> int:
    """Tokens of an example: a photograph of 1024 × 768 pixels as this family sees it, and a short question."""
    architecture = getattr(lmm, "architecture", None)
    return TEXT_TOKENS + (architecture.tokens if architecture else 1024)


def stage_memory(step: Finetune, placement: TrainingPlacement) -> StageMemory:
    """What training `step` needs on each of its GPUs."""
    precision = BYTES[step.training.precision]
    total = sum(step.model.role_counts().values())
    trained = trained_of(step.recipe, step.model).trained
    workers = max(placement.workers, 1)
    zero = placement.zero_stage
    sharded = placement.strategy == "fsdp" or (placement.strategy == "deepspeed" and zero == 3)
    half = precision < 4
    weights = (total - trained) * precision + trained * precision
    masters = 4 * trained if half else 0
    gradients, optimizer = 4 * trained, 8 * trained
    if placement.strategy == "deepspeed":
        optimizer += masters  # DeepSpeed divides them like the optimizer's states
    else:
        weights += masters
    if placement.strategy != "ddp":
        optimizer //= workers
        gradients //= workers if sharded or zero >= 2 else 1
        weights //= workers if sharded else 1
    if placement.offload != "none":
        optimizer = 0
        gradients = 0 if zero >= 2 else gradients
    if placement.offload == "parameters":
        weights = _largest_block(step.model) * precision * 2
    kept = 4 * trained * step.mitigation.copies if step.mitigation else 0
    return StageMemory(weights, gradients, optimizer, _activations(step, placement, precision), kept)


def micro_batch(step: Finetune, placement: TrainingPlacement) -> int:
    """Examples in one forward pass of one worker."""
    share = max(1, step.training.global_batch_size // max(placement.workers, 1))
    wanted = placement.micro_batch_size
    if wanted == "auto":
        return 1  # what it may come down to
    return min(wanted or share, share)


def _activations(step: Finetune, placement: TrainingPlacement, precision: int) -> int:
    try:
        shapes = linear_shapes(step.model)
    except UserError:  # a model that does not tell its layers
        return 0
    blocks: dict[str, int] = {}
    widths: list[int] = []
    head = 0
    for role, layers in shapes.items():
        if match := re.match(r"llm\.blocks\.\d+", role):
            blocks[match[0]] = blocks.get(match[0], 0) + sum(outputs + inputs for outputs, inputs in layers)
            widths += [inputs for _, inputs in layers]
        elif role == "llm.head":
            head = max(outputs for outputs, _ in layers)
    examples = micro_batch(step, placement)
    elements = sum(blocks.values())
    if placement.gradient_checkpointing and blocks:
        elements = min(widths) * len(blocks) + max(blocks.values())
    logits = ANSWER_TOKENS * head * (precision + 8)
    return examples * (example_tokens(step.model) * elements * precision + logits)


def _largest_block(lmm: LMM) -> int:
    sizes: dict[str, int] = {}
    for role, count in lmm.role_counts().items():
        block = ".".join(role.split(".")[:3])
        sizes[block] = sizes.get(block, 0) + count
    return max(sizes.values())


def check_memory(step: Finetune, cluster: Cluster) -> None:
    """Raise UserError, with what would help, when a stage or its evaluation cannot fit the cluster's GPUs."""
    if cluster.gpu_memory_gb is None:
        return
    have = int(cluster.gpu_memory_gb * GB)
    if cluster.training.gpus_per_worker:
        need = stage_memory(step, cluster.training)
        if need.total > have:
            raise UserError(
                f"{step.label} of {step.model.name} needs about {_gb(need.total)} on each GPU (weights {_gb(need.weights)}, "
                f"gradients {_gb(need.gradients)}, optimizer {_gb(need.optimizer)}, activations {_gb(need.activations)}), "
                f"and there are {_gb(have)}. {_remedy(step, cluster.training, have)}",
                place="training",
            )
    if cluster.evaluation.gpus:
        weights = sum(step.model.role_counts().values()) * BYTES[step.training.precision]
        if weights + RESERVE > have * max(1, cluster.evaluation.gpus):
            raise UserError(
                f"{step.model.name} needs about {_gb(weights + RESERVE)} to be evaluated, and there are {_gb(have)}; "
                "take GPUs with more memory",
                place="evaluation",
            )


def _remedy(step: Finetune, placement: TrainingPlacement, have: int) -> str:
    """The smallest changes of the cluster file that make a stage fit."""
    fitting = [
        told
        for told, changed in _changes(step, placement)
        if _goes_with(step, changed) and stage_memory(step, changed).total <= have
    ]
    if fitting:
        return "It would fit with " + " or ".join(fitting[:3])
    return "No setting of the cluster file makes it fit: take a recipe that trains less, or GPUs with more memory"


def _changes(step: Finetune, placement: TrainingPlacement) -> Iterator[tuple[str, TrainingPlacement]]:
    """Changes to a placement, the harmless ones first, each with its words."""
    saving = {"gradient_checkpointing": True, "micro_batch_size": 1}
    tried: list[dict[str, Any]] = [{"gradient_checkpointing": True}, {"micro_batch_size": 1}, saving]
    zero = {**saving, "strategy": "deepspeed"}
    for workers in (2, 4, 8):
        if workers >= placement.workers and step.training.global_batch_size % workers == 0:
            tried += [{**zero, "workers": workers, "zero_stage": stage} for stage in (2, 3)]
    tried.append({**zero, "zero_stage": 2, "offload": "optimizer", "workers": max(1, placement.workers)})
    for change in tried:
        new = {name: value for name, value in change.items() if getattr(placement, name) != value}
        if new:
            told = ", ".join(f"{name}: {str(value).lower()}" for name, value in new.items())
            yield f"{{{told}}}", placement.model_copy(update=new)


def _gb(size: int) -> str:
    return f"{size / GB:.1f} GB"
