"""A stage in this process, one of its workers: load the parent, train what the recipe names, prove it, hand back what moved."""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from lmmcl.models.experts import grown
from lmmcl.models.processing.resizing import image_backend
from lmmcl.models.quantized.nf4 import count_parameters
from lmmcl.tasks.files.decode_ahead import images_decoded, shown_by
from lmmcl.training.attaching.attach import attach
from lmmcl.training.distributed.strategies import (
    check_strategy,
    deepspeed_forgotten,
    describe,
    gather_full_model,
)
from lmmcl.training.distributed.workers import Workers
from lmmcl.training.efficiency.checkpointing import checkpoint_what_learns
from lmmcl.training.efficiency.fixed_parameters import fixed_parameters
from lmmcl.training.job import Job
from lmmcl.training.recovery.moving_state import settle_counts
from lmmcl.training.recovery.preemption import handle_sigterm
from lmmcl.training.recovery.resume import resume_point
from lmmcl.training.recovery.start_state import start_state
from lmmcl.training.snapshots import StopAfter, WriteSnapshots, can_write
from lmmcl.training.stage.memory import peak_bytes, start_peak
from lmmcl.training.stage.module_modes import describe_modes, keep_frozen_in_evaluation
from lmmcl.training.stage.preparation import ready
from lmmcl.training.stage.proof import verify_updates
from lmmcl.training.stage.trainable import TrainableModel
from lmmcl.training.stage.trainer import StageTrainer
from lmmcl.training.stage_errors import StageError
from lmmcl.weights.checkpoint import Loaded, base_digest, load
from lmmcl.weights.delta import save_delta
from lmmcl.weights.fast_digest import fast_digests
from lmmcl.weights.image_features.feature_store import feature_store, features_written
from lmmcl.weights.image_features.kept_features import KeptFeatures, attach_features
from lmmcl.weights.image_features.repeated_batches import remember_features
from lmmcl.weights.quantized_base import named_tensors
from lmmcl.weights.resident import pretrained_proof, release
from lmmcl.weights.swapping import Difference, forget_loaded, stage_ended

CURVE = "curve.jsonl"
SHARING = ("single", "ddp")
"""Strategies under which no frozen parameter is written into: they start from the memory of the resident model."""


@cache
def _freeze_imports() -> None:
    """Take what is imported by now out of garbage collection, which the Trainer forces at every start (0.25 s)."""
    gc.collect()
    gc.freeze()


@contextmanager
def _forget_loaded_on_failure() -> Iterator[None]:
    """Drop what stays loaded when a stage fails, wherever it does: it may have written into the memory of the resident model."""
    try:
        yield
    except BaseException:
        forget_loaded()
        raise


@deepspeed_forgotten()
@_forget_loaded_on_failure()
@features_written()
def train_stage(job: Job, workers: Workers, output: Path, runs: Path) -> dict[str, Any]:
    """Train one stage in this process, one of `workers`; returns the fields of its record.

    `output` takes the delta and the curve (the first worker's are kept), `runs` the Trainer's checkpoints.
    """
    started = time.perf_counter()
    step = job.step
    if not job.placement.gpus_per_worker:  # accelerate imports DeepSpeed, which else warns that it found no GPU
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    _freeze_imports()
    check_strategy(step, job.placement)
    start_peak()
    shown = shown_by("skill", step.skill, step.training.examples) if workers.rank == 0 else ()
    with images_decoded(list(shown)):
        trainable_model, before, features = _loaded(job, workers)
    dtypes = _unfreeze(trainable_model.model, trainable_model.trained, uniform=job.placement.strategy == "fsdp")
    trainable_model.mask_gradients()
    job, trainer, context = ready(job, trainable_model.model, trainable_model.trained, runs, workers)
    if job.snapshot:
        trainer.add_callback(StopAfter(job.snapshot.update))
    elif step.snapshots and can_write(step, trainable_model, job.placement):
        trainer.add_callback(WriteSnapshots(step, job.ledger, trainable_model, before, dtypes))
    trainer.rates, trainer.after_update = trainable_model.rates(), trainable_model.after_update
    trainer.slices = {name: trained for name, (trained, _) in trainable_model.slices.items()}
    if step.mitigation:
        trainer.mitigation_state = start_state(step.mitigation, context, runs, alone=workers.saves_by_time)

    begun = time.perf_counter()
    with (
        handle_sigterm(trainer),
        checkpoint_what_learns(trainable_model.model, job.placement),
        fixed_parameters(trainable_model.model, applies=job.placement.strategy_name == "single"),
        resume_point(workers, runs, job.placement, before=job.snapshot.update if job.snapshot else None) as checkpoint,
        trainer.resuming(checkpoint) as resume_from,
    ):
        trainer.train(resume_from_checkpoint=resume_from)
    modes, padding = describe_modes(trainable_model.model), trainer.padding_share()
    strategy = _finish(job, trainer)
    train_seconds = time.perf_counter() - begun
    findings = _findings(job, trainer)
    fields = _write_results(job, workers, trainable_model, before, dtypes, output)
    curve, updates = trainer.curve(), trainer.state.global_step
    (output / CURVE).write_text("".join(json.dumps(row) + "\n" for row in curve), encoding="utf-8")
    return {
        **fields,
        "updates": updates,
        "examples": updates * step.training.global_batch_size,
        "train_seconds": train_seconds,
        "seconds": time.perf_counter() - started,
        "updates_per_second": (updates - trainer.first_update) / train_seconds,
        "peak_memory_bytes": peak_bytes(trainable_model.model.device),
        "loss": curve[-1]["loss"],
        "strategy": strategy,
        "modes": modes,
        "padding_share": padding,
        **({"mitigation": findings} if findings else {}),
        **(features.fields() if features else {}),
        "image_backend": image_backend(trainer.data_collator.processor),  # type: ignore[union-attr]
    }


def _features(job: Job, trainable_model: TrainableModel, loaded: Loaded) -> KeptFeatures | None:
    """The image features that other stages made, where the cluster file keeps some and this stage can use them."""
    placement = job.placement
    if placement.strategy_name not in SHARING or placement.compile:
        return None
    if placement.features is None:
        remember_features(job.step.model, loaded, trainable_model.roles, trainable_model.trained)
        return None
    writers = max(1, placement.workers)
    store = feature_store(placement.features, placement.features_gb, writers)
    return attach_features(job.step.model, loaded, store, trainable_model.roles, trainable_model.trained)


def _loaded(job: Job, workers: Workers) -> tuple[TrainableModel, dict[str, str], KeptFeatures | None]:
    """The parent's model, ready to train; digests of all its tensors, which one process computes for all; kept features."""
    step, placement = job.step, job.placement
    if placement.gpus_per_worker:
        release("cuda")  # training needs the memory of the GPU for more than a model
    loaded = load(
        step.parent,
        job.ledger,
        step.training.precision,
        "cpu",
        placement.attention,
        shared=placement.strategy_name in SHARING,
        agree=workers.agree,
    )
    model, before = loaded.model, workers.agree(loaded.proof)
    trainable_model = attach(step, model)
    own = named_tensors(model)
    added = {name: own[name] for name in trainable_model.added_names}
    before = before | fast_digests(added | trainable_model.frozen_slices())
    return trainable_model, before, _features(job, trainable_model, loaded)


def _unfreeze(model: PreTrainedModel, trained: Sequence[str], *, uniform: bool) -> dict[str, torch.dtype]:
    """Let only `trained` learn, in fp32 (an update of 1e-6 vanishes in a bf16 weight); returns the dtypes they had.

    What holds nothing that learns stays in evaluation mode. `uniform` makes the others fp32 too: FSDP divides only parameters
    of one dtype.
    """
    names = set(trained)
    dtypes = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
        if name in names or uniform:
            dtypes[name] = parameter.dtype
            parameter.data = parameter.data.to(torch.float32, copy=True)  # what it was may stay loaded
    keep_frozen_in_evaluation(model)
    return dtypes


def _finish(job: Job, trainer: StageTrainer) -> dict[str, Any]:
    """Gather a divided model, and let the mitigation end; returns the strategy that was in force."""
    updates = trainer.state.global_step
    if job.snapshot and updates != job.snapshot.update:
        raise StageError.of(job.step, f"trained {updates} updates, but its snapshot is of update {job.snapshot.update}")
    strategy = describe(trainer, job.placement)
    if job.placement.micro_batch_size == "auto":
        strategy |= {"micro_batch_size": job.batches.micro, "accumulation": job.batches.accumulation}
    if job.placement.liger:
        strategy["fused_loss"] = trainer.kernel_note or True
    gather_full_model(trainer.taught, job.placement)
    if job.step.mitigation:
        with torch.no_grad():
            job.step.mitigation.end(trainer.mitigation_state, trainer.taught)
    return strategy


def _findings(job: Job, trainer: StageTrainer) -> dict[str, Any]:
    """What the mitigation has for the record."""
    if not job.step.mitigation:
        return {}
    settle_counts(trainer)
    return job.step.mitigation.findings(trainer.mitigation_state)


def _write_results(
    job: Job,
    workers: Workers,
    trainable_model: TrainableModel,
    before: Mapping[str, str],
    dtypes: Mapping[str, torch.dtype],
    output: Path,
) -> dict[str, Any]:
    """Prove what moved and write it to `output`; returns what the record says of it."""
    step, model, precision = job.step, trainable_model.model, job.step.training.precision
    own = dict(model.named_parameters())
    for name, dtype in dtypes.items():
        own[name].data = own[name].data.to(dtype)
    sizes = trainable_model.sizes().values()
    fields: dict[str, Any] = {
        "precision": precision,
        "trained_parameters": sum(entries for entries, _ in sizes),
        "trained_tensors": len(trainable_model.trained),
        "trained_bytes": sum(size for _, size in sizes),
    }
    fields |= trainable_model.merge_adapters(before, output)
    own = dict(model.named_parameters())
    after = workers.agree(lambda: fast_digests(named_tensors(model) | trainable_model.frozen_slices()))
    # The first update of a warm-up has no learning rate: a snapshot of it may be all that the stage started from.
    proof = verify_updates(
        step, trainable_model.roles, trainable_model.saved_names, before, after, must_move=not job.snapshot
    )
    _remember(job, model, after)
    size = save_delta(
        output,
        trainable_model.saved_tensors(proof.moved, own),
        parent_key=step.parent.key,
        base_digest=base_digest(step.model, precision),
        experts=grown(model),
        adapter=workers.agree(trainable_model.adapter_header),
    )
    size += fields.get("adapter", {}).get("bytes", 0)
    return {**fields, "total_parameters": count_parameters(model), "checkpoint_bytes": size, "proof": proof.fields()}


def _remember(job: Job, model: PreTrainedModel, after: Mapping[str, str]) -> None:
    """Let what the stage ended with be where the next one starts, once it is recorded."""
    if job.placement.strategy_name not in SHARING:
        return
    lmm, precision = job.step.model, job.step.training.precision
    if (pretrained := pretrained_proof(lmm, precision, job.placement.attention)) is None:
        return
    names = {name for name in named_tensors(model) if after[name] != pretrained.get(name)}
    stage_ended(job.key, precision, Difference.of(model, names, after))
