"""What the quickstart cannot do without: forward, backward and AdamW on its batches, greedy answers to its questions, Ray's start.

    python tests/bench/quickstart_floor.py [--updates 60] [--cpus 2]

Batches are padded beforehand; there is no Trainer, no proof, no store. As many processes as the run has compute at once, each for itself,
since they share caches and memory (and virtual CPUs perhaps a core): a figure is their mean. `plain` computes everything at
each batch, as a script does; `saved` leaves out what lmmcl leaves out for the same bits (the last block's MLP where no logits are
needed, features of pictures that were seen before), keeps freed memory, and multiplies with oneDNN where that has MKL's bits. Each recipe is measured on the batches of each skill: the
longest questions take twice the time of the shortest. `encoding` is to draw and encode every example and question once. CPU seconds
of one thread, times the sweep's stages.

The floor of wall time is Ray's start, then the best that any order of steps allows: all arithmetic divided by the number of CPUs, or
the longest trial, whose stages follow one another. `quickstart_whole.py --floor` prints both beside what a run took.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from first_question import floor as ray_floor
from processes import PYTHON, python_of
from sides import HERE

BATCH = 128
"""Questions at once, as in cluster/local.yaml."""


def batches_of(trial: Any, stage: int, updates: int) -> list[dict[str, Any]]:
    from lmmcl.models.processing.encode import encode
    from lmmcl.models.processing.padding import pad
    from lmmcl.training.stage.collate import row_order

    settings, processor, examples = trial.training, trial.model.load_processor(), trial.skills[stage - 1].load()
    count, size = min(settings.examples or len(examples), len(examples)), settings.global_batch_size
    rows = row_order(count, updates * size, trial.seed)
    encoded = cache(lambda row: encode(processor, examples[row], with_answer=True))
    return [pad(processor, [encoded(row) for row in rows[at : at + size]]) for at in range(0, len(rows), size)]


def questions_of(trial: Any) -> list[tuple[int, dict[str, Any]]]:
    """(tokens of an answer, batch) of all benchmarks."""
    from lmmcl.models.processing.encode import encode
    from lmmcl.models.processing.padding import pad

    processor, batches = trial.model.load_processor(), []
    for benchmark in trial.benchmarks:
        questions = benchmark.take(trial.evaluation.limit)
        rows = [encode(processor, questions[at], with_answer=False) for at in range(len(questions))]
        rows.sort(key=lambda row: -len(row["input_ids"]))
        batches += [
            (benchmark.max_new_tokens, pad(processor, rows[at : at + BATCH])) for at in range(0, len(rows), BATCH)
        ]
    return batches


def model_of(trial: Any, *, saved: bool) -> Any:
    """The base with the recipe's parameters ready to train."""
    from lmmcl.ledger import Ledger
    from lmmcl.models.roles import select
    from lmmcl.steps import Pretrained
    from lmmcl.training.stage.module_modes import keep_frozen_in_evaluation
    from lmmcl.weights.checkpoint import load
    from lmmcl.weights.image_features.repeated_batches import remember_features

    lmm = trial.model
    loaded = load(Pretrained(lmm), Ledger("/nowhere"), "fp32", "cpu", "sdpa", shared=True)
    model: Any = loaded.model
    chosen = select(lmm.roles_of(name for name, _ in model.named_parameters()), trial.recipe.train, model=lmm.name)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.clone()
        parameter.requires_grad_(name in chosen)
    if saved:
        remember_features(lmm, loaded)
    keep_frozen_in_evaluation(model)
    return model


def learn(trial: Any, batches: list[dict[str, Any]], *, saved: bool) -> Iterator[None]:
    """One pass over `batches` at each step of the iterator."""
    import torch

    from lmmcl.models.kernels.last_mlp import at_last_positions, last_mlp
    from lmmcl.training.efficiency.answer_loss import answer_loss, answer_span

    model = model_of(trial, saved=saved).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=trial.training.learning_rate, fused=True)
    part = last_mlp(model) if saved else None
    while True:
        for batch in batches:
            labels, keep = batch["labels"], answer_span(batch["labels"]) + 1
            inputs = {name: value for name, value in batch.items() if name != "labels"}
            with at_last_positions(part, keep):
                logits = model(**inputs, use_cache=False, logits_to_keep=keep).logits
            answer_loss(logits, labels, int((labels != -100).sum())).backward()
            torch.nn.utils.clip_grad_norm_(trained, trial.training.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
        yield


def answer(trial: Any, batches: list[tuple[int, dict[str, Any]]], *, saved: bool) -> Iterator[None]:
    from lmmcl.models.generation import decoding

    model, processor, own = model_of(trial, saved=saved), trial.model.load_processor(), decoding.last_mlp
    with decoding.answering(model, processor):
        while True:
            decoding.last_mlp = own if saved else lambda model: None  # type: ignore[assignment]
            for tokens, batch in batches:
                decoding.greedy(model, batch, tokens)
            decoding.last_mlp = own
            yield


def second_pass(work: Iterator[None]) -> float:
    """CPU seconds of the second time: by then kernels, caches and pages are there."""
    next(work)
    begun = time.process_time()
    next(work)
    return time.process_time() - begun


def encoding(trial: Any) -> float:
    """CPU seconds until every example and every question of a trial was drawn and encoded once."""
    from lmmcl.models.processing.encode import encode

    processor, settings, begun = trial.model.load_processor(), trial.training, time.process_time()
    for skill in trial.skills:
        examples = skill.load()
        for row in range(min(settings.examples or len(examples), len(examples))):
            encode(processor, examples[row], with_answer=True)
    for benchmark in trial.benchmarks:
        questions = benchmark.take(trial.evaluation.limit)
        for row in range(len(questions)):
            encode(processor, questions[row], with_answer=False)
    return time.process_time() - begun


def arithmetic(sweep: Any, updates: int, cpus: int, *, saved: bool) -> dict[str, float]:
    """CPU seconds of a sweep's updates and answers, of one update of each recipe and skill, and the shortest time on `cpus`."""
    import torch

    from lmmcl.models.kernels.onednn_linear import onednn_linears
    from lmmcl.weights.freed_memory import keep_freed_memory

    torch.set_num_threads(1)
    if not saved:
        return _measured(list(sweep.trials), updates, cpus, saved=saved)
    keep_freed_memory()
    with onednn_linears():
        return _measured(list(sweep.trials), updates, cpus, saved=saved)


def _measured(trials: list[Any], updates: int, cpus: int, *, saved: bool) -> dict[str, float]:
    encoded = encoding(trials[0])
    batches = [batches_of(trials[0], stage, updates) for stage in range(1, 1 + len(trials[0].skills))]
    update: dict[tuple[str, int], float] = {}
    for trial in trials:
        for stage, shown in enumerate(batches):
            if (trial.recipe.name, stage) not in update:
                seconds = second_pass(learn(trial, shown, saved=saved))
                update[trial.recipe.name, stage] = seconds / updates
    answers = second_pass(answer(trials[0], questions_of(trials[0]), saved=saved))
    counts = [
        trials[0].training.updates(min(trials[0].training.examples or 10**9, len(skill.load())))
        for skill in trials[0].skills
    ]
    chains = [sum(count * update[trial.recipe.name, stage] for stage, count in enumerate(counts)) for trial in trials]
    answering = (1 + len(trials) * len(counts)) * answers
    total = sum(chains) + answering + encoded
    names = [skill.name for skill in trials[0].skills]
    return {
        **{f"update {recipe}, {names[stage]}": round(1000 * spent, 1) for (recipe, stage), spent in update.items()},
        "learning": round(sum(chains), 1),
        "answering": round(answering, 1),
        "encoding": round(encoded, 1),
        "all": round(total, 1),
        "wall": round(max(total / cpus, max(chains) + answers), 1),
    }


def at_once(command: list[str], environment: dict[str, str], count: int) -> dict[str, float]:
    """The means of the figures that `count` processes print which run side by side."""
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    printed = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit("a side of the floor failed; its error stands above")
    figures = [json.loads(lines.splitlines()[-1]) for lines in printed]
    return {name: round(fmean(each[name] for each in figures), 1) for name in figures[0]}


def measure(sweep: Path, updates: int, cpus: int = 2) -> dict[str, Any]:
    """The floors of a sweep, each in a process of its own, and Ray's start."""
    found: dict[str, Any] = {}
    for side in ("plain", "saved"):
        environment = {**os.environ, **python_of(HERE), "OMP_NUM_THREADS": "1"}
        if side == "saved":
            environment["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"  # as lmmcl starts Ray
        command = [
            PYTHON,
            __file__,
            "--sweep",
            str(sweep),
            "--updates",
            str(updates),
            "--cpus",
            str(cpus),
            "--side",
            side,
        ]
        found[side] = at_once(command, environment, cpus)
    with tempfile.TemporaryDirectory(prefix="lmmcl-floor-") as temporary:
        weights = Path(temporary, "tiny")
        code = f"from lmmcl.models import get_model; get_model('tiny-onevision').load_model().save_pretrained({str(weights)!r})"
        subprocess.run([PYTHON, "-c", code], check=True, env={**os.environ, **python_of(HERE)})
        ray = ray_floor(Path(temporary), weights)
    found["ray"] = {"cpu": round(ray.cpu, 1), "wall": round(ray.wall, 1)}
    for side in ("plain", "saved"):
        found[f"floor, {side}"] = {
            "cpu": round(found[side]["all"] + ray.cpu, 1),
            "wall": round(found[side]["wall"] + ray.wall, 1),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, default=HERE / "sweeps" / "quickstart.yaml")
    parser.add_argument("--updates", type=int, default=60, help="updates of each recipe that are measured")
    parser.add_argument("--cpus", type=int, default=2, help="on how many the shortest wall time is computed")
    parser.add_argument("--side", choices=["plain", "saved"], help="measure this one alone, in this process")
    arguments = parser.parse_args()
    work: Callable[[], dict[str, Any]] = lambda: measure(arguments.sweep, arguments.updates, arguments.cpus)  # noqa: E731
    if arguments.side:
        from lmmcl.config.sweep import load_sweep

        sweep, is_saved = load_sweep(arguments.sweep), arguments.side == "saved"
        work = lambda: arithmetic(sweep, arguments.updates, arguments.cpus, saved=is_saved)  # noqa: E731
    json.dump(work(), sys.stdout)
    print()


if __name__ == "__main__":
    main()
