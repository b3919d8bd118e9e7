"""GPU memory that a stage and the evaluations of a checkpoint need, estimated before they run. Rough, and without torch.

As the trainer holds them (`training/stage/loop.py`): a trained parameter is in fp32 (4 bytes) with its gradient (4) and AdamW's two
states (8), and in half precision a copy that arithmetic is done with (2); a frozen one has its own precision and nothing else. DDP
copies the gradients once more for their way to the other workers. Quantised weights take 4 bits and their scales, and one layer
at a time is dequantised; the adapters of earlier stages lie beside them in fp32. DeepSpeed holds all in half precision, and of what
trains divides the fp32 weights and the two states (ZeRO, arXiv 1910.02054, section 3.1: 2 + 2 + 12 bytes), and the fp32
gradients of an update. FSDP divides all, and holds all in fp32.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from lmmcl.config.cluster import EvaluationPlacement, TrainingPlacement
from lmmcl.config.settings import BYTES
from lmmcl.methods.recipes.adapters import OSF
from lmmcl.models.lmm import LMM
from lmmcl.models.roles import select
from lmmcl.planning.activations import cache_bytes, peak_activation_bytes, training_activations
from lmmcl.steps import Checkpoint, Evaluate, Finetune, ProbeStep, ScoringStep, stages_of
from lmmcl.steps.count_trained import count_trained, trains_head
from lmmcl.steps.optimizers import STATE_BYTES
from lmmcl.steps.quantized import dequantized_bytes, weight_bytes
from lmmcl.steps.strategy_fit import why_loss_apart

"""Of a parameter, by precision."""
GB = 10**9
RESERVE = 2 * GB
"""CUDA context, kernels' work space, fragmentation."""
BUCKET = 5 * 10**8
"""Numbers that DeepSpeed gathers before it reduces them (`reduce_bucket_size`)."""
LIVE = 10**9
"""Parameters that ZeRO-3 keeps whole on a GPU at a time (`stage3_max_live_parameters`)."""


@dataclass(frozen=True)
class StageMemory:
    """Bytes on each GPU while a stage trains; `activations` is 0 for a model that does not tell its layers.

    `mitigation` is what it keeps of the weights, in fp32 and undivided; `exchange` what passes between workers: gradients on
    their way, and weights that are gathered to be used.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    mitigation: int = 0
    exchange: int = 0

    @property
    def total(self) -> int:
        """With what CUDA takes for itself."""
        return sum(asdict(self).values()) + RESERVE

    def to_dict(self) -> dict[str, int]:
        """For `--json`."""
        return {**asdict(self), "total": self.total}


@dataclass(frozen=True)
class AskedMemory:
    """Bytes on a GPU while a checkpoint is asked: `cache` are keys and values of a batch, `activations` its way through a block.

    `judge` are the weights of a local judge beside it; what these compute comes after the batches, in the memory of theirs.
    """

    weights: int
    cache: int
    activations: int
    judge: int = 0

    @property
    def total(self) -> int:
        """With what CUDA takes for itself."""
        return sum(asdict(self).values()) + RESERVE

    def to_dict(self) -> dict[str, int]:
        """For `--json`."""
        return {**asdict(self), "total": self.total}


def stage_memory(step: Finetune, placement: TrainingPlacement) -> StageMemory:
    """What training `step` needs on each of its GPUs."""
    precision = BYTES[step.training.precision]
    trained = count_trained(step.recipe, step.model).trained
    total = sum(step.model.role_counts().values()) + _added(step)
    share = {"deepspeed": _zero, "fsdp": _fsdp}.get(placement.strategy, _whole)
    weights, gradients, optimizer, exchange = share(step, placement, precision, total, trained)
    activations = training_activations(
        step,
        micro_batch(step, placement),
        checkpointing=placement.gradient_checkpointing,
        precision=precision,
        fused=placement.liger and why_loss_apart(step.mitigation, placement) is None,
    )
    return StageMemory(
        weights,
        gradients,
        optimizer,
        activations + dequantized_bytes(step.model, step.training.precision),
        _kept_by_mitigation(step, placement, trained),
        exchange,
    )


def _kept_by_mitigation(step: Finetune, placement: TrainingPlacement, trained: int) -> int:
    """Copies of what trains; of a head that the mitigation runs a frozen one where it trains (and its gradient) or is divided."""
    if step.mitigation is None:
        return 0
    size = 4 * trained * step.mitigation.copies
    trains, divided = trains_head(step.recipe, step.model), placement.strategy_name in ("zero3", "fsdp")
    if step.mitigation.runs_head and (trains or divided):
        size += (2 if trains else 1) * 4 * step.model.role_counts().get("llm.embeddings", 0)
    return size


def _whole(
    step: Finetune, placement: TrainingPlacement, precision: int, total: int, trained: int
) -> tuple[int, int, int, int]:
    """Weights, gradients, optimizer and exchange of one worker alone, or of DDP, which has buckets for one worker too."""
    copies = precision if precision < 4 else 0
    weights = precision * (total - trained) + (4 + copies) * trained
    weights += _held_otherwise(step.model, step.training.precision, step.parent)
    optimizer = int(STATE_BYTES[step.training.optimizer] * trained)
    return weights, 4 * trained, optimizer, 4 * trained if placement.workers else 0


def _held_otherwise(lmm: LMM, precision: str, checkpoint: Checkpoint) -> int:
    """What quantised weights, with the adapters of the stages up to `checkpoint` beside them, take more (less) than plain ones."""
    if lmm.settings.base is None:
        return 0
    recipes = [stage.recipe for stage in stages_of(checkpoint) if isinstance(stage, Finetune)]
    beside = sum(count_trained(recipe, lmm).adapter for recipe in recipes)
    return weight_bytes(lmm, precision) - BYTES[precision] * sum(lmm.role_counts().values()) + BYTES["fp32"] * beside


def _zero(
    step: Finetune, placement: TrainingPlacement, precision: int, total: int, trained: int
) -> tuple[int, int, int, int]:
    """The same of DeepSpeed: what its stage divides, and what it holds while workers exchange it."""
    workers, stage = placement.workers, placement.zero_stage
    weights = precision * total // (workers if stage == 3 else 1)
    gradients = precision * trained // (workers if stage >= 2 else 1) + 4 * trained // workers
    optimizer = (12 if precision < 4 else 8) * trained // workers
    exchange = precision * (BUCKET + (min(total, LIVE) if stage == 3 else 0))
    if placement.offload != "none":
        optimizer, gradients = 0, 0 if stage >= 2 else precision * trained
    return 0 if placement.offload == "parameters" else weights, gradients, optimizer, exchange


def _fsdp(
    step: Finetune, placement: TrainingPlacement, precision: int, total: int, trained: int
) -> tuple[int, int, int, int]:
    """The same of FSDP: all in fp32 and divided; gathered are a block, the one after it, and what lies outside the blocks."""
    workers, block = placement.workers, _largest_block(step.model)
    outside = sum(count for role, count in step.model.role_counts().items() if ".blocks." not in role)
    exchange = precision * (2 * block + outside) + 4 * block
    return 4 * total // workers, 4 * trained // workers, 8 * trained // workers, exchange


def _added(step: Finetune) -> int:
    """Parameters that an adapter adds; of OSF also the directions that stay, which lie beside the weights."""
    adapter = step.recipe.adapter
    if adapter is None:
        return 0
    counts = step.model.role_counts()
    own = select({role: role for role in counts}, step.recipe.train, model=step.model.name)
    added = count_trained(step.recipe, step.model).trained - sum(counts[role] for role in own)
    return int(added / (1 - adapter.preserved)) if isinstance(adapter, OSF) else added


def micro_batch(step: Finetune, placement: TrainingPlacement) -> int:
    """Examples in one forward pass of one worker."""
    share = max(1, step.training.global_batch_size // placement.fewest_workers)
    wanted = placement.micro_batch_size
    if wanted == "auto":
        return 1  # what it may come down to
    return min(wanted or share, share)


def _largest_block(lmm: LMM) -> int:
    sizes: dict[str, int] = {}
    for role, count in lmm.role_counts().items():
        if ".blocks." in role:
            block = ".".join(role.split(".")[:3])
            sizes[block] = sizes.get(block, 0) + count
    return max(sizes.values(), default=0)


def grown_by(checkpoint: Checkpoint) -> int:
    """Parameters (of experts) that its stages left in the model beside its own."""
    recipes = [stage.recipe for stage in stages_of(checkpoint) if isinstance(stage, Finetune)]
    growing = [recipe for recipe in recipes if recipe.adapter and recipe.adapter.adds_experts]
    return max((count_trained(recipe, checkpoint.model).changed for recipe in growing), default=0)


def asked_memory(step: ScoringStep, placement: EvaluationPlacement) -> AskedMemory:
    """What asking `step` of its checkpoint needs on a GPU; another engine than transformers holds its cache to what is left."""
    precision = BYTES[step.evaluation.precision]
    lmm = step.checkpoint.model
    weights = precision * (sum(lmm.role_counts().values()) + grown_by(step.checkpoint))
    weights += _held_otherwise(lmm, step.evaluation.precision, step.checkpoint)
    if isinstance(step, ProbeStep) and step.probe.needs_base:
        weights *= 2
    judge = _judge_bytes(step)
    if placement.engine != "transformers":  # it is closed before a judge is loaded
        return AskedMemory(weights, 0, 0, max(0, judge - weights))
    cache = cache_bytes(lmm, step.benchmark.max_new_tokens, precision) if isinstance(step, Evaluate) else 0
    return AskedMemory(
        weights,
        placement.batch_size * cache,
        placement.batch_size * peak_activation_bytes(lmm, precision)
        + dequantized_bytes(lmm, step.evaluation.precision),
        judge,
    )


def _judge_bytes(step: ScoringStep) -> int:
    """The weights of a judge that runs in the process that asks."""
    judge = step.benchmark.judge if isinstance(step, Evaluate) else None
    if judge is None or judge.local is None:
        return 0
    model = judge.local.model
    entries = sum(model.role_counts().values()) if isinstance(model, LMM) else model.parameters
    return BYTES[judge.local.precision] * entries
