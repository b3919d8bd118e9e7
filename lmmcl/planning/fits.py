"""Whether what is to be computed fits the cluster file: memory of its GPUs, what its strategy divides, how a batch is cut."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lmmcl.config.cluster import Cluster, EvaluationPlacement, TrainingPlacement
from lmmcl.config.sweep import Sweep
from lmmcl.errors import UserError
from lmmcl.planning.memory_estimate import GB, AskedMemory, StageMemory, asked_memory, grown_by, stage_memory
from lmmcl.steps import Evaluate, Finetune, Merge, ProbeStep, ScoringStep, Snapshot, Step
from lmmcl.steps.optimizers import check_placed_optimizer
from lmmcl.steps.quantized import check_quantized_engine
from lmmcl.steps.single_model import why_no_single_model
from lmmcl.steps.strategy_fit import check_packed, check_strategy_fit
from lmmcl.training.distributed.batches import cut_batches, worker_counts

NODE_GPUS, NODE_GB = 8, 80.0
"""The node that a plan without a cluster file assumes."""
TOLD = 8
"""Refusals that a message lists."""
ANYWAY = "remove gpu_memory_gb to skip this check"


@dataclass(frozen=True)
class Placement:
    """How a stage fits a node: on how many of its GPUs, by which strategy, and the memory that each needs."""

    gpus: int
    strategy: str
    memory: StageMemory

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"gpus": self.gpus, "strategy": self.strategy, **self.memory.to_dict()}

    def __str__(self) -> str:
        shared = f" ({self.strategy})" if self.gpus > 1 else ""
        return f"{_gb(self.memory.total)} on {self.gpus} GPU{'s' if self.gpus > 1 else ''}{shared}"


def smallest_place(step: Finetune, gpus: int = NODE_GPUS, gb: float = NODE_GB) -> Placement | None:
    """The fewest of `gpus` GPUs of `gb` gigabytes that a stage fits, with checkpointing and one example each; None if none do."""
    one = TrainingPlacement(gpus_per_worker=1, micro_batch_size=1, gradient_checkpointing=True)
    tried: list[tuple[int, str, dict[str, Any]]] = [(1, "one GPU", {})]
    for workers in (2, 4, 8):
        if workers <= gpus and step.training.global_batch_size % workers == 0:
            zero = {"workers": workers, "strategy": "deepspeed"}
            tried += [(workers, f"ZeRO-{stage}", {**zero, "zero_stage": stage}) for stage in (2, 3)]
    for number, strategy, change in tried:
        place = one.model_copy(update=change)
        if _is_feasible(step, place) and (memory := stage_memory(step, place)).total <= gb * GB:
            return Placement(number, strategy, memory)
    return None


def refuse(reasons: Sequence[str]) -> None:
    """Raises UserError with the `reasons` why steps do not fit, if there are any; of many, the first."""
    more = [f"{len(reasons) - TOLD} more (`lmmcl plan --json` has all)"] if len(reasons) > TOLD else []
    if reasons:
        listed = [*reasons[:TOLD], *more]
        raise UserError(listed[0] if len(listed) == 1 else "\n" + "\n".join(f"- {line}" for line in listed))


def find_infeasible(
    sweep: Sweep, cluster: Cluster, steps: Iterable[Step], is_missing: Callable[[Step], bool], *, of_all: bool = True
) -> tuple[str, ...]:
    """What of `steps` is still to be computed, or may be proposed by a search, and cannot be on this cluster, with what would help.

    Told once for each model, recipe and mitigation, and for what a model is asked. The store is asked (`is_missing`) only about
    what does not fit. Without `of_all`, mitigations that the strategy cannot have are left out: their trials end by
    themselves as soon as they begin to train, and the others are not to wait for that.
    """
    corners = [step for space in sweep.spaces for corner in space.extremes for step in corner.steps().values()]
    coming = {step.key for step in corners}
    whys: dict[tuple[str, ...], str | None] = {}
    reasons: dict[tuple[str, ...], str] = {}
    for step in (*steps, *corners):
        checked = step.finetune if isinstance(step, Snapshot) else step
        if not isinstance(checked, Finetune | Evaluate | ProbeStep) or (alike := _memory_signature(checked)) in reasons:
            continue
        if alike not in whys:
            whys[alike] = _why_not(checked, cluster, of_all)
        if whys[alike] and (step.key in coming or is_missing(step)):
            reasons[alike] = str(_why_not(checked, cluster, of_all))  # in words of this step: the first may be recorded
    return tuple(dict.fromkeys(reasons.values()))


def _why_not(step: Finetune | ScoringStep, cluster: Cluster, of_all: bool) -> str | None:
    try:
        if isinstance(step, Finetune):
            if of_all or _goes_with(step, cluster.training):
                check_stage(step, cluster)
        else:
            check_asked(step, cluster)
    except UserError as error:
        return str(error)
    return None


def _memory_signature(step: Finetune | ScoringStep) -> tuple[str, ...]:
    """What decides whether a step fits."""
    if isinstance(step, Finetune):
        training = step.training
        held = step.model.settings.base.describe() if step.model.settings.base else ""
        batch = str(training.global_batch_size)
        own = (step.model.name, step.recipe.label, *_protection(step))
        return *own, batch, training.precision, training.optimizer, held
    grown = str(grown_by(step.checkpoint))
    asked = str(step.benchmark.max_new_tokens) if isinstance(step, Evaluate) else step.label
    routes = str(isinstance(step.checkpoint, Merge) and step.checkpoint.rule.routes)
    settings = step.checkpoint.model.settings
    held = settings.base.describe() if settings.base else ""
    return step.checkpoint.model.name, grown, routes, step.kind, asked, step.evaluation.precision, held


def _protection(step: Finetune) -> tuple[str, ...]:
    """What of a mitigation decides it: settings may decide what it holds (LwF with `top_k` runs no head)."""
    own = step.mitigation
    return (
        (own.name, str(own.copies), str(own.runs_head), str(own.compares_logits), str(own.rows_in_pass))
        if own
        else ("",)
    )


def _goes_with(step: Finetune, placement: TrainingPlacement) -> bool:
    """Whether a stage needs nothing whole that the strategy divides."""
    try:
        check_strategy_fit(step, placement.strategy_name)
        check_placed_optimizer(step.training, placement)
    except UserError:
        return False
    return True


def _is_feasible(step: Finetune, placement: TrainingPlacement) -> bool:
    """Whether also the global batch can be cut so."""
    try:
        cut_batches(step.training, placement)
    except UserError:
        return False
    return _goes_with(step, placement)


def check_stage(step: Finetune, cluster: Cluster) -> None:
    """Raises UserError, with what would help, when a stage cannot be trained as the cluster file says."""
    place = cluster.training
    check_strategy_fit(step, place.strategy_name)
    check_placed_optimizer(step.training, place)
    if place.packing:
        check_packed(step.mitigation)
    worker_counts(step.training, place)
    if cluster.gpu_memory_gb is None or not place.gpus_per_worker:
        return
    need, have = stage_memory(step, place), _have(cluster.gpu_memory_gb, place.gpus_per_worker)
    if need.total > have:
        raise UserError(
            f"Training {step.label!r} on {step.model.name} needs about {_told(need)} per GPU, but only {_gb(have)} is "
            f"available. {_remedy(step, place, have)}, or {ANYWAY}.",
            place="training",
        )


def check_asked(step: ScoringStep, cluster: Cluster) -> None:
    """Raises UserError, with what would help, when a checkpoint cannot be asked as the cluster file says."""
    place = cluster.evaluation
    check_quantized_engine(step.checkpoint.model, place.engine)
    if place.engine != "transformers" and isinstance(step, Evaluate) and (why := why_no_single_model(step.checkpoint)):
        raise UserError(
            f"Evaluating {step.checkpoint.label!r}: the engine {place.engine} loads a plain model, and this checkpoint {why}; "
            "allowed: engine: transformers",
            place="evaluation.engine",
        )
    if cluster.gpu_memory_gb is None or not place.gpus:
        return
    need, have = asked_memory(step, place), _have(cluster.gpu_memory_gb, place.gpus)
    if place.engine != "transformers":  # it may divide a model over all of its GPUs
        have = int(cluster.gpu_memory_gb * GB * place.gpus)
    if need.total > have:
        raise UserError(
            f"Evaluating {step.label!r} on {step.checkpoint.model.name} with batch_size {place.batch_size} needs about "
            f"{_told(need)} per GPU, but only {_gb(have)} is available. {_smaller_batch(step, place, have)}, or {ANYWAY}.",
            place="evaluation",
        )


def _told(need: StageMemory | AskedMemory) -> str:
    parts = {name: size for name, size in need.to_dict().items() if size and name != "total"}
    return f"{_gb(need.total)} ({', '.join(f'{name} {_gb(size)}' for name, size in parts.items())})"


def _have(gb: float, gpus: float) -> int:
    """Bytes that one process may take: a part of a GPU is that share of its memory, and of several it uses one."""
    return int(gb * GB * min(1.0, gpus))


def _smaller_batch(step: ScoringStep, place: EvaluationPlacement, have: int) -> str:
    for size in range(place.batch_size - 1, 0, -1):
        if asked_memory(step, place.model_copy(update={"batch_size": size})).total <= have:
            return f"Try batch_size: {size}"
    return "Even batch_size 1 does not fit: use GPUs with more memory"


def _remedy(step: Finetune, placement: TrainingPlacement, have: int) -> str:
    """The smallest changes of the cluster file that make a stage fit, one of each kind."""
    fitting = []
    for kind in _changes(placement):
        for change in kind:
            new = {name: value for name, value in change.items() if getattr(placement, name) != value}
            changed = placement.model_copy(update=new)
            if new and _is_feasible(step, changed) and stage_memory(step, changed).total <= have:
                words = [
                    f"{name}: {value if isinstance(value, str) else json.dumps(value)}" for name, value in new.items()
                ]
                fitting.append(f"{{{', '.join(words)}}}")
                break
    if fitting:
        return f"Try {' or '.join(fitting)}, a recipe that trains less"
    return "No setting of the cluster file makes it fit: use a recipe that trains less, or GPUs with more memory"


def _changes(placement: TrainingPlacement) -> Iterator[list[dict[str, Any]]]:
    """Kinds of changes to a placement, the harmless first; of each kind, the smaller change first."""
    saving = {"gradient_checkpointing": True, "micro_batch_size": 1}
    yield [{"gradient_checkpointing": True}, {"micro_batch_size": 1}, saving]
    if placement.strategy == "ddp" and placement.workers == 1:
        yield [{"workers": 0}, {**saving, "workers": 0}]  # in the step's own process there are no buckets
    zero = {**saving, "strategy": "deepspeed", "min_workers": None}
    numbers = [workers for workers in (2, 4, 8) if workers >= placement.workers]
    yield [{**zero, "workers": workers, "zero_stage": stage} for workers in numbers for stage in (2, 3)]
    one = {**zero, "workers": max(1, placement.workers)}  # slow, and needs much of the host's memory
    yield [{**one, "zero_stage": 2, "offload": "optimizer"}, {**one, "zero_stage": 3, "offload": "parameters"}]


def _gb(size: int) -> str:
    return f"{size / GB:.1f} GB"
