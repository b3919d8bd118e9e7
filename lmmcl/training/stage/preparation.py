"""From a stage and its loaded model to a Trainer with its data, and to what the stage's mitigation is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.methods.data.mixing import Mix
from lmmcl.methods.mitigation import ROWS, StageContext
from lmmcl.models.kernels.last_mlp import last_mlp
from lmmcl.models.processing.position_limit import position_limits
from lmmcl.models.processing.resizing import RESIZING
from lmmcl.steps import Finetune, examples_of, skills_of
from lmmcl.steps.keys import canonical_json
from lmmcl.tasks.examples import Example
from lmmcl.tasks.skills import Skill
from lmmcl.training.distributed.auto_batch import choose
from lmmcl.training.distributed.batches import Batches
from lmmcl.training.distributed.strategies import CheckStrategy, apply_liger
from lmmcl.training.distributed.workers import Workers
from lmmcl.training.efficiency.answer_loss import answer_span
from lmmcl.training.efficiency.checkpointing import NoGradientOfInputs
from lmmcl.training.efficiency.fused_loss import choose_kernel
from lmmcl.training.efficiency.length_order import LengthOrder
from lmmcl.training.efficiency.row_lengths import RowLengths
from lmmcl.training.job import Job
from lmmcl.training.recovery.checksums import WriteChecksums
from lmmcl.training.recovery.preemption import SaveOnPreemption
from lmmcl.training.recovery.start_state import start_state
from lmmcl.training.recovery.timed_saves import SaveByTime
from lmmcl.training.stage.adapter_names import earlier_adapters
from lmmcl.training.stage.arguments import training_arguments
from lmmcl.training.stage.collate import Collator, StageData, companion_of, encode_row, limited, row_order
from lmmcl.training.stage.encoding_cache import DiskCache
from lmmcl.training.stage.trainer import StageTrainer


def ready(
    job: Job, model: PreTrainedModel, trained: Sequence[str], runs: Path, workers: Workers
) -> tuple[Job, StageTrainer, StageContext]:
    """The job with batches that fit the memory, its Trainer, and what the mitigation is shown."""
    if job.placement.micro_batch_size != "auto":
        return job, *prepare(job, model, trained, runs, workers)

    def start(trainer: StageTrainer, context: StageContext) -> None:
        if job.step.mitigation:
            trainer.mitigation_state = start_state(job.step.mitigation, context, runs, alone=workers.saves_by_time)

    def build(batches: Batches) -> tuple[StageTrainer, StageContext]:
        return prepare(replace(job, batches=batches), model, trained, runs, workers)

    batches, trainer, context = choose(job.batches, job.placement, build, start)
    return replace(job, batches=batches), trainer, context


def prepare(
    job: Job, model: PreTrainedModel, trained: Sequence[str], runs: Path, workers: Workers
) -> tuple[StageTrainer, StageContext]:
    """The Trainer with its data, and what the mitigation is shown; `trained` are names of parameters, `runs` takes checkpoints."""
    step, mitigation = job.step, job.step.mitigation
    taught = zip(skills_of(step.parent), examples_of(step.parent), strict=True)
    earlier = [limited(skill, examples) for skill, examples in taught]
    data, updates = _data(job, earlier, position_limits(model))
    trainer = StageTrainer(
        step,
        model,
        job.progress,
        args=training_arguments(step, job.placement, job.batches, model, updates=updates, folder=runs),
        train_dataset=data,
    )
    if job.placement.liger is True:
        apply_liger(model)
    if job.placement.strategy_name == "single" and not (job.placement.compile or job.placement.gradient_checkpointing):
        trainer.last_mlp = last_mlp(model)
    trainer.packs = job.placement.packing
    trainer.kernel, trainer.kernel_note = choose_kernel(job.placement, mitigation, model)
    changes = mitigation is not None and mitigation.uses("batch")
    trainer.data_collator = Collator(
        data.processor,
        (lambda batch: mitigation.batch(trainer.mitigation_state, batch)) if mitigation and changes else None,
        companion_of(data) if job.batches.workers > 1 else None,
        packs=job.placement.packing,
    )
    trainer.add_callback(CheckStrategy(trainer, job.placement))
    if job.placement.gradient_checkpointing:
        trainer.add_callback(NoGradientOfInputs(model))
    # Checksums come before what hands a checkpoint over, or ends the stage.
    timed = [SaveByTime()] if workers.saves_by_time else []
    for callback in (WriteChecksums(), *workers.callbacks(job.placement), *timed, SaveOnPreemption(workers)):
        trainer.add_callback(callback)
    return trainer, _context(job, trainer, trained, data, earlier)


def _data(job: Job, earlier: Sequence[Skill], limits: Mapping[str, int]) -> tuple[StageData, int]:
    """The examples of a stage, as its mitigation has them, in training order; and the number of updates."""
    step, mitigation = job.step, job.step.mitigation
    examples = limited(step.skill, step.training.examples).load()
    if not examples:
        raise UserError("has no training examples", file=f"skill {step.skill.name}")
    updates = step.training.updates(len(examples))
    mixes = mitigation is not None and mitigation.uses("data")
    if mitigation is not None and mixes:
        examples = mitigation.data(examples, earlier, step.seed)
    own, *mixed = _cache_keys(step, examples, mixes)
    rows = row_order(len(examples), updates * step.training.global_batch_size, step.seed)
    processor = step.model.load_processor()
    order = None
    if job.batches.workers * job.batches.accumulation > 1:  # in one batch the order of rows changes no padding
        lengths = RowLengths(processor, examples, step.training.max_length)
        order = LengthOrder(rows, step.training.global_batch_size, lengths)
    data = StageData(
        step.skill.name,
        examples,
        rows,
        processor,
        own,
        tells_rows=bool(mitigation),
        mix_keys=mixed,
        max_tokens=step.training.max_length,
        disk=_disk_cache(job.placement),
        limits=limits,
        order=order,
    )
    return data, updates


def _cache_keys(step: Finetune, examples: Sequence[Example], mixes: bool) -> list[str]:
    """Names of encodings in the cache: of `examples` as a whole, then of each source of a Mix."""

    def key(skill: Any) -> str:
        cut = {"max_length": step.training.max_length} if step.training.max_length else {}
        return canonical_json({"model": step.model.identity(), "skill": skill, "resizing": RESIZING, **cut})

    if isinstance(examples, Mix):
        return [key(step.key), *(key(identity or step.skill.identity()) for identity in examples.identities)]
    return [key(step.key if mixes else step.skill.identity())]


def _disk_cache(placement: TrainingPlacement) -> DiskCache | None:
    if placement.encodings is None:
        return None
    writers = max(1, placement.workers) * max(1, placement.loader_workers)
    return DiskCache(Path(placement.encodings).expanduser(), placement.encodings_gb, writers)


def _context(
    job: Job, trainer: StageTrainer, trained: Sequence[str], data: StageData, earlier: Sequence[Skill]
) -> StageContext:
    """What the mitigation is shown of a stage that is about to train."""
    pad_batch = Collator(data.processor)

    def collate(examples: Sequence[Example]) -> dict[str, Tensor]:
        rows = range(len(examples))
        return pad_batch([encode_row(data.processor, data.skill, examples, row, data.max_tokens) for row in rows])

    def forward(batch: Mapping[str, Tensor]) -> Any:
        inputs = trainer.prepare_batch({key: batch[key] for key in batch if key not in ("labels", ROWS)})
        if trainer.can_cut_logits:
            inputs["logits_to_keep"] = answer_span(batch["labels"]) + 1
        with trainer.accelerator.autocast():
            return trainer.taught(**inputs)

    return StageContext(
        model=trainer.taught,
        trained=trained,
        examples=data.examples,
        earlier=earlier,
        collate=collate,
        seed=job.step.seed,
        rows=data.rows,
        batch_of=lambda rows: pad_batch([data.encoded(row) for row in rows]),
        batch_size=job.batches.micro,
        forward=forward,
        autocast=trainer.accelerator.autocast,
        is_divided=job.placement.strategy_name in ("zero3", "fsdp"),
        earlier_adapters=lambda: earlier_adapters(job.step.parent, job.ledger),
    )
