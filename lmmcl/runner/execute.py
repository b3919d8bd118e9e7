"""One step, computed here and now: the only place that knows which room computes which kind of step."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from lmmcl.config.cluster import Cluster
from lmmcl.environment import is_torchrun_worker, neutral_environment
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.ledger.leases import Held
from lmmcl.models.kernels.onednn_linear import onednn_linears
from lmmcl.runner.step_leases import leased
from lmmcl.steps import (
    Checkpoint,
    CheckpointStep,
    Evaluate,
    Finetune,
    Merge,
    Pretrained,
    Recorded,
    ScoringStep,
    Snapshot,
)
from lmmcl.tasks.files.decode_ahead import Shown, images_decoded, shown_by
from lmmcl.weights.freed_memory import collection_paused, keep_freed_memory

if TYPE_CHECKING:
    from lmmcl.evaluation.judging.local_judge import LocalJudges
    from lmmcl.weights.expert_routing import Routing

LOADING = "loading the model"
Progress = Callable[[str, dict[str, Any]], None]
"""Called with a step's key and what is to be shown of it: `doing`; update, updates, updates_per_second, loss; or doing, benchmark,
asked, benchmarks, answered, questions."""


@onednn_linears()
def compute(
    steps: Sequence[Checkpoint] | Sequence[ScoringStep], ledger: Ledger, cluster: Cluster, progress: Progress
) -> bool:
    """Compute one checkpoint, or several benchmarks and probes of one, unless another run does; their parents are recorded.

    Returns whether the checkpoint waits on this node for `upload_checkpoint`, as it does where `ledger` defers it.
    """
    launched = is_torchrun_worker(cluster.training.workers)
    with leased(steps, ledger, cluster) as lease, neutral_environment(launched=launched):
        if not lease.steps:
            return False
        step, progress = lease.steps[0], _noted(progress, lease.held)
        waits = not ledger.is_local and ledger.deferred_key == step.key
        with collection_paused():  # it imports torch
            use_threads(
                cluster.training.cpus_per_worker if isinstance(step, CheckpointStep) else cluster.evaluation.cpus
            )
        match step:
            case Pretrained() | Finetune() | Snapshot() | Merge() if ledger.is_staged(step):
                if not waits:  # a try before this computed it, and its upload failed
                    ledger.upload(step)
            case Finetune() | Snapshot():
                progress(step.key, {"doing": LOADING})
                load_libraries()
                from lmmcl.private_api.trainer_imports import libraries_unloaded

                with libraries_unloaded(), collection_paused():
                    from lmmcl.training.distributed.torchrun import announced
                    from lmmcl.training.finetune import finetune

                with announced(step, ledger, cluster.training):
                    finetune(step, ledger, cluster.training, progress=partial(progress, step.key))
            case Pretrained():
                progress(step.key, {"doing": "reading the model's files"})
                load_libraries()
                from lmmcl.weights.checkpoint import ensure_pretrained

                ensure_pretrained(step, ledger)
            case Merge():
                progress(step.key, {"doing": "merging weights"})
                from lmmcl.weights.merging import merge

                gpus = cluster.training.gpus_per_worker if step.rule.needs_model else 0
                merge(step, ledger, device=pick_device(gpus))
            case Recorded():  # known by its record alone, which does not say how to make it
                raise UserError(
                    "its weights were deleted by `lmmcl gc` or are damaged; running a sweep that asks something new of "
                    "it (a benchmark, a stage after it) recomputes them",
                    file=f"{ledger.store}/{step.path}",
                )
            case _:
                _ask(lease.steps, ledger, cluster, progress)
        if waits:
            lease.held.keep()
        return waits


def _noted(progress: Progress, held: Held) -> Progress:
    """Progress that the lease of the work shows, too: `lmmcl status` reads it from the store."""

    def tell(key: str, note: dict[str, Any]) -> None:
        held.note = note
        progress(key, note)

    return tell


def upload_checkpoint(step: Checkpoint, ledger: Ledger, cluster: Cluster) -> None:
    """Record what `compute` left on this node; needs nothing but the network."""
    with leased([step], ledger, cluster) as lease:
        if lease.steps:
            ledger.upload(step)


def _ask(steps: Sequence[ScoringStep], ledger: Ledger, cluster: Cluster, progress: Progress) -> None:
    """Ask several benchmarks and probes of one checkpoint, loading its model once; each is recorded as it is done."""
    first, name = steps[0], cluster.evaluation.engine
    progress(first.key, {"doing": LOADING})
    load_libraries()
    from lmmcl.evaluation.judging.local_judge import LocalJudges
    from lmmcl.weights.expert_routing import routing_of
    from lmmcl.weights.image_features.feature_store import features_written

    with features_written(), LocalJudges(pick_device(cluster.evaluation.gpus)) as judges:
        if routing := routing_of(first.checkpoint, ledger):
            _ask_experts(routing, steps, ledger, cluster, judges, progress)
            return
        if name != "transformers":
            steps = _ask_engine(name, steps, ledger, cluster, judges, progress)
        if steps:
            _ask_model(steps, ledger, cluster, judges, progress)


def _ask_model(
    steps: Sequence[ScoringStep], ledger: Ledger, cluster: Cluster, judges: LocalJudges, progress: Progress
) -> None:
    """Ask a checkpoint that transformers loads."""
    from lmmcl.evaluation.engines.transformers import Transformers
    from lmmcl.evaluation.evaluate import record_scores
    from lmmcl.evaluation.probes import Subject, record_probe

    first, batch_size = steps[0], cluster.evaluation.batch_size
    load, lmm = _loader(first, ledger, cluster), first.checkpoint.model
    with images_decoded(_shown(steps)):
        model = load(first.checkpoint)
    subject = Subject(
        lmm,
        model,
        lmm.load_processor(),
        load_base=lambda: load(Pretrained(lmm)),
        batch_size=batch_size,
    )
    engine = Transformers(subject.model, subject.processor, batch_size)
    for number, step in enumerate(steps, start=1):
        tell = _answer_progress(progress, steps, number)
        if isinstance(step, Evaluate):
            record_scores(step, ledger, engine, judges=judges, on_answer=tell)
        else:
            record_probe(step, ledger, subject)


def _ask_experts(
    routing: Routing,
    steps: Sequence[ScoringStep],
    ledger: Ledger,
    cluster: Cluster,
    judges: LocalJudges,
    progress: Progress,
) -> None:
    """Ask several benchmarks of a checkpoint with experts; raises UserError for what needs a single model."""
    from lmmcl.evaluation.expert_answers import record_routed

    asked = [step for step in steps if isinstance(step, Evaluate)]
    checkpoint = steps[0].checkpoint
    what = f"{checkpoint.label} answers with several experts"
    if len(asked) < len(steps):
        raise UserError(
            f"{what}, and a probe looks into a single model; remove the probes, or name an expert", file=checkpoint.path
        )
    if (engine := cluster.evaluation.engine) != "transformers":
        raise UserError(
            f"{what}, and {engine} loads one model; allowed: engine: transformers", place="evaluation.engine"
        )
    with images_decoded(_shown(asked)):
        record_routed(
            asked,
            ledger,
            routing,
            _loader(steps[0], ledger, cluster),
            checkpoint.model.load_processor(),
            batch_size=cluster.evaluation.batch_size,
            judges=judges,
            progress_of=lambda number, doing: _answer_progress(progress, steps, number, doing),
        )


def _answer_progress(
    progress: Progress, steps: Sequence[ScoringStep], number: int, doing: str = "evaluating"
) -> Callable[[int, int], None]:
    """Show that the `number`-th of `steps` is begun; what is returned shows how many questions of it are answered."""
    step = steps[number - 1]
    note = {"doing": doing, "benchmark": step.label, "asked": number, "benchmarks": len(steps)}
    progress(steps[0].key, note)
    return lambda answered, questions: progress(steps[0].key, {**note, "answered": answered, "questions": questions})


def _shown(steps: Sequence[ScoringStep]) -> list[Shown]:
    """The user's own images that these steps show."""
    asked = [step for step in steps if isinstance(step, Evaluate)]
    return [example for step in asked for example in shown_by("benchmark", step.benchmark, step.evaluation.limit)]


def _ask_engine(
    name: str,
    steps: Sequence[ScoringStep],
    ledger: Ledger,
    cluster: Cluster,
    judges: LocalJudges,
    progress: Progress,
) -> list[ScoringStep]:
    """Ask the benchmarks among `steps` of another engine; returns the probes, which look inside and need transformers.

    What a local judge scores is scored when the engine is closed: an engine may take a whole GPU.
    """
    from lmmcl.evaluation.engines import get_engine
    from lmmcl.evaluation.evaluate import ask_benchmark, record_answers

    asked = [step for step in steps if isinstance(step, Evaluate)]
    if asked:
        first, later = asked[0], []
        opened = get_engine(name).open(first.checkpoint, ledger, cluster.evaluation, first.evaluation.precision)
        with ExitStack() as stack:
            with images_decoded(_shown(asked)):
                engine = stack.enter_context(opened)
            for number, step in enumerate(asked, start=1):
                answers = ask_benchmark(step, ledger, engine, _answer_progress(progress, asked, number))
                if step.benchmark.judge and step.benchmark.judge.local:
                    later.append(answers)
                else:
                    record_answers(answers, ledger, judges)
        for answers in later:
            record_answers(answers, ledger, judges)
    return [step for step in steps if not isinstance(step, Evaluate)]


def _loader(first: ScoringStep, ledger: Ledger, cluster: Cluster) -> Callable[[Checkpoint], Any]:
    """Loads checkpoints as `first` wants them: its precision, the cluster's device and attention."""
    from lmmcl.weights.checkpoint import load
    from lmmcl.weights.image_features.feature_store import feature_store
    from lmmcl.weights.image_features.kept_features import attach_features
    from lmmcl.weights.image_features.repeated_batches import remember_features

    device, placement = pick_device(cluster.evaluation.gpus), cluster.evaluation

    def load_shared(checkpoint: Checkpoint) -> Any:
        precision = first.evaluation.precision
        loaded = load(checkpoint, ledger, precision, device, placement.attention, shared=True)
        if placement.features is not None:
            attach_features(checkpoint.model, loaded, feature_store(placement.features, placement.features_gb))
        else:
            remember_features(checkpoint.model, loaded)
        return loaded.model

    return load_shared


@cache
def load_libraries() -> None:
    """Import what asking questions needs, so that a process that is to ask has it by then; collections pass over it from now on."""
    gc.collect()  # what is garbage before would be passed over as well
    with collection_paused():
        from lmmcl.evaluation import evaluate, probes  # noqa: F401
        from lmmcl.weights import checkpoint  # noqa: F401

        gc.freeze()


def use_threads(cpus: float) -> None:
    """As many threads as CPUs were asked for: sums, and so weights, depend on it."""
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed warns on standard output when it has to find out
    torch.set_num_threads(max(1, int(cpus)))
    keep_freed_memory()


def pick_device(gpus: float) -> str:
    """`cuda` when GPUs were asked for; raises RuntimeError when they are not there (no silent CPU run)."""
    if not gpus:
        return "cpu"
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError(f"{gpus:g} GPUs are requested in the cluster file, but none are visible to this process")
    return "cuda"
