"""What each Ray Train worker runs for a stage: load the parent, train what the recipe names, prove it, hand back what moved."""

from __future__ import annotations

import gc
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import ray.train
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods.mitigation import ROWS, StageContext, TrainingMitigation
from lmmcl.methods.mixing import Mix
from lmmcl.models.experts import grown
from lmmcl.spec.cluster import TrainingPlacement
from lmmcl.spec.keys import canonical_json
from lmmcl.spec.steps import Finetune, Snapshot, skills_of
from lmmcl.tasks.base import Example, Skill
from lmmcl.training.adapters import attach, earlier_adapters
from lmmcl.training.auto_batch import choose
from lmmcl.training.collate import Batches, Collator, StageData, encode_row, limited, row_order
from lmmcl.training.encodings import DiskCache
from lmmcl.training.errors import StageError
from lmmcl.training.handover import output_folder
from lmmcl.training.memory import peak_bytes, start_peak
from lmmcl.training.notice import SaveAtNotice, heeding_sigterm
from lmmcl.training.proof import prove
from lmmcl.training.resume import ReportCheckpoint, resume_point
from lmmcl.training.snapshots import StopAfter, WriteSnapshots, can_write
from lmmcl.training.strategies import CheckStrategy, check_strategy, describe, make_whole
from lmmcl.training.trainer import Progress, StageTrainer, answer_span, training_arguments
from lmmcl.weights.checkpoint import base_digest, digest_tensors, load_checkpoint, named_tensors
from lmmcl.weights.delta import save_delta

CURVE = "curve.jsonl"


@dataclass(frozen=True)
class Job:
    """A stage to train, to its end or, for a `snapshot`, to that one's update.

    `output` takes the results and `runs` the Trainer's checkpoints; both None in a worker group.
    """

    step: Finetune
    ledger: Ledger
    placement: TrainingPlacement
    batches: Batches
    output: Path | None = None
    runs: Path | None = None
    progress: Progress | None = None
    snapshot: Snapshot | None = None

    @property
    def key(self) -> str:
        """The key of what is computed."""
        return (self.snapshot or self.step).key


def train_loop(config: dict[str, Job]) -> None:
    """Run by Ray Train in each worker; rank 0 reports a folder with the delta and the curve, and the record's fields."""
    job = config["job"]
    if not job.placement.gpus_per_worker:
        os.environ.setdefault(
            "DS_ACCELERATOR", "cpu"
        )  # accelerate imports DeepSpeed, which else warns that it found no GPU
    if job.output is not None and job.runs is not None:  # local mode: the caller's own folders
        _settle()
        fields = teach(job, job.output, job.runs)
        ray.train.report(fields, checkpoint=ray.train.Checkpoint.from_directory(job.output))
        return
    torch.set_num_threads(max(1, int(job.placement.cpus_per_worker)))
    first = ray.train.get_context().get_world_rank() == 0
    with (
        output_folder(job.ledger, job.key, first=first) as (output, reported),
        tempfile.TemporaryDirectory(prefix="lmmcl-run-") as runs,
    ):
        fields = teach(job, output, Path(runs))
        ray.train.report(fields, checkpoint=ray.train.Checkpoint.from_directory(reported) if first else None)


@cache
def _settle() -> None:
    """Take what is imported by now out of garbage collection, which the Trainer forces at every start (0.25 s)."""
    gc.collect()
    gc.freeze()


def teach(job: Job, output: Path, runs: Path) -> dict[str, Any]:
    """Train one stage in this process (one of `job.batches.workers`); returns the fields of its record."""
    started = time.perf_counter()
    step, training = job.step, job.step.training
    check_strategy(step, job.placement)
    start_peak()
    model = load_checkpoint(step.parent, job.ledger, precision=training.precision, attention=job.placement.attention)
    before = digest_tensors(named_tensors(model))
    pupil = attach(step, model)
    own = named_tensors(model)
    before |= digest_tensors({name: own[name] for name in pupil.additions})
    trained, roles = pupil.trained, pupil.roles
    dtypes = _unfreeze(model, trained, uniform=job.placement.strategy == "fsdp")

    job, trainer, context = _ready(job, model, trained, runs)
    if job.snapshot:
        trainer.add_callback(StopAfter(job.snapshot.update))
    elif step.snapshots and can_write(step, pupil, job.placement):
        trainer.add_callback(WriteSnapshots(step, job.ledger, pupil, before, dtypes))
    trainer.rates = pupil.rates()
    if step.mitigation:
        trainer.memory = step.mitigation.start(context)
    begun = time.perf_counter()
    with heeding_sigterm(trainer):
        trainer.train_from(resume_point(runs, before=job.snapshot.update if job.snapshot else None))
    updates = trainer.state.global_step
    if job.snapshot and updates != job.snapshot.update:
        raise StageError.of(
            step, f"was trained for {updates} updates to make its snapshot of update {job.snapshot.update}"
        )
    strategy = describe(trainer, job.placement)
    if job.placement.micro_batch_size == "auto":
        strategy |= {"micro_batch_size": job.batches.micro, "accumulation": job.batches.accumulation}
    make_whole(model, job.placement)
    if step.mitigation:
        with torch.no_grad():
            step.mitigation.end(trainer.memory, model)
    train_seconds = time.perf_counter() - begun

    own = dict(model.named_parameters())
    for name, dtype in dtypes.items():
        own[name].data = own[name].data.to(dtype)
    size_trained = {
        "trained_parameters": sum(own[name].numel() for name in trained),
        "trained_tensors": len(trained),
        "trained_bytes": sum(own[name].nbytes for name in trained),
    }
    adapter = pupil.settle(before, output)
    own = dict(model.named_parameters())
    after = digest_tensors(named_tensors(model))
    # The first update of a warm-up has no learning rate: a snapshot of it may be all that the stage started from.
    proof = prove(step, roles, pupil.stored, before, after, must_move=not job.snapshot)
    size = save_delta(
        output,
        {name: own[name] for name in proof.moved},
        parent_key=step.parent.key,
        base_digest=base_digest(step.model, training.precision),
        experts=grown(model),
    )
    curve = trainer.curve()
    (output / CURVE).write_text("".join(json.dumps(row) + "\n" for row in curve), encoding="utf-8")
    return {
        "precision": training.precision,
        **size_trained,
        **adapter,
        "total_parameters": sum(parameter.numel() for parameter in own.values()),
        "checkpoint_bytes": size,
        "proof": proof.fields(),
        "updates": updates,
        "examples": updates * training.global_batch_size,
        "train_seconds": train_seconds,
        "seconds": time.perf_counter() - started,
        "updates_per_second": (updates - trainer._initial_global_step) / train_seconds,
        "peak_memory_bytes": peak_bytes(model.device),
        "loss": curve[-1]["loss"],
        "strategy": strategy,
    }


def _unfreeze(model: PreTrainedModel, trained: Sequence[str], *, uniform: bool) -> dict[str, torch.dtype]:
    """Let only `trained` learn, in fp32 (an update of 1e-6 vanishes in a bf16 weight); returns the dtypes they had.

    `uniform` makes the others fp32 too: FSDP divides only parameters of one dtype.
    """
    names = set(trained)
    dtypes = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
        if name in names or uniform:
            dtypes[name] = parameter.dtype
            parameter.data = parameter.data.float()
    return dtypes


def _ready(
    job: Job, model: PreTrainedModel, trained: Sequence[str], runs: Path
) -> tuple[Job, StageTrainer, StageContext]:
    """The job with batches that fit the memory, its Trainer, and what the mitigation is shown."""
    if job.placement.micro_batch_size != "auto":
        return job, *_prepare(job, model, trained, runs)

    def start(trainer: StageTrainer, context: StageContext) -> None:
        if job.step.mitigation:
            trainer.memory = job.step.mitigation.start(context)

    batches, trainer, context = choose(
        job.batches, job.placement, lambda batches: _prepare(replace(job, batches=batches), model, trained, runs), start
    )
    return replace(job, batches=batches), trainer, context


def _prepare(job: Job, model: PreTrainedModel, trained: Sequence[str], runs: Path) -> tuple[StageTrainer, StageContext]:
    """The Trainer with its data, and what the mitigation is shown."""
    step, mitigation = job.step, job.step.mitigation
    processor = step.model.load_processor()
    earlier = [limited(skill, step.training.examples) for skill in skills_of(step.parent)]
    examples = limited(step.skill, step.training.examples).load()
    if not examples:
        raise UserError("has no training examples", file=f"skill {step.skill.name}")
    updates = step.training.updates(len(examples))
    mixes = mitigation is not None and type(mitigation).data is not TrainingMitigation.data
    if mitigation is not None and mixes:
        examples = mitigation.data(examples, earlier, step.seed)
    rows = row_order(len(examples), updates * step.training.global_batch_size, step.seed)
    own, *mixed = _cache_keys(step, examples, mixes)
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
    )
    trainer = StageTrainer(
        step,
        model,
        job.progress,
        args=training_arguments(step, job.placement, job.batches, updates=updates, folder=runs),
        train_dataset=data,
    )
    changes = mitigation is not None and type(mitigation).batch is not TrainingMitigation.batch
    trainer.data_collator = Collator(
        processor, (lambda batch: mitigation.batch(trainer.memory, batch)) if mitigation and changes else None
    )
    trainer.add_callback(CheckStrategy(trainer, job.placement))
    if job.placement.workers:
        trainer.add_callback(ReportCheckpoint(every_worker=job.placement.strategy != "ddp"))
    trainer.add_callback(SaveAtNotice(in_group=bool(job.placement.workers)))

    return trainer, _context(job, trainer, trained, data, earlier)


def _cache_keys(step: Finetune, examples: Sequence[Example], mixes: bool) -> list[str]:
    """Names of encodings in the cache: of `examples` as a whole, then of each source of a Mix."""

    def key(skill: Any) -> str:
        cut = {"max_length": step.training.max_length} if step.training.max_length else {}
        return canonical_json({"model": step.model.identity(), "skill": skill, **cut})

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

    def collate(some: Sequence[Example]) -> dict[str, Tensor]:
        rows = range(len(some))
        return pad_batch([encode_row(data.processor, data.skill, some, row, data.max_tokens) for row in rows])

    def forward(batch: Mapping[str, Tensor]) -> Any:
        inputs = trainer._prepare_inputs({key: batch[key] for key in batch if key not in ("labels", ROWS)})
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
        earlier_adapters=lambda: earlier_adapters(job.step.parent, job.ledger),
    )
