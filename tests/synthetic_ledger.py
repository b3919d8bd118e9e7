"""A store filled with made-up records: what a finished sweep leaves, without its weights and without its hours."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
from made import SWEEP, write_sweep

from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.ledger import Ledger
from lmmcl.steps import CheckpointStep, Evaluate, Finetune, ProbeStep, Step
from lmmcl.steps.trial import Stage

#: From a step to the chance of a right answer, 0 to 1.
Chance = Callable[[Evaluate], float]


def finished_sweep(folder: Path) -> Sweep:
    """The small sweep in `folder`, finished, with its store beside it."""
    sweep = load_sweep(write_sweep(folder, SWEEP))
    fill(sweep, folder / "store", questions=4)
    return sweep


def fill(
    sweep: Sweep,
    store: Path,
    *,
    questions: int = 100,
    updates: int = 20,
    chance: Chance | None = None,
    samples: bool = False,
    partial: Collection[str] = (),
) -> None:
    """Write the records of all steps of `sweep` below `store`; the same scores each time. Up to 20 questions with answers.

    What is right in `partial` benchmarks scores between a half and one, as ANLS has it.
    """
    wanted = chance or plausible
    for step in sweep.steps.values():
        folder = store / step.path
        folder.mkdir(parents=True, exist_ok=True)
        record = {
            "key": step.key,
            "kind": step.kind,
            "label": step.label,
            "parents": [each.path for each in step.parents],
        }
        if isinstance(step, Evaluate):
            record |= _answers(step, folder, questions, wanted(step), samples, step.benchmark.name in partial)
        elif isinstance(step, CheckpointStep):
            record |= {"model": step.model.name, "model_reference": step.model.reference, "depth": step.depth}
            record["provenance"] = {"lmmcl": "0.1.0", "torch": "2.13.0", "commit": "0123abc", "host": "there"}
        if isinstance(step, ProbeStep):
            record["values"] = {f"{step.label}/mean": int(step.key[:4], 16) / 2**16}
        if isinstance(step, Finetune):
            record |= {**_cost(step), "updates": updates}
            rows = (
                {"update": at, "loss": 2.0 / at, "learning_rate": 1e-3, "grad_norm": 1.0}
                for at in range(1, updates + 1)
            )
            (folder / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (folder / "step.json").write_text(json.dumps({"key": step.key, **step.identity()}), encoding="utf-8")
        (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")


def forget(ledger: Ledger, stage: Stage) -> None:
    """Take a stage with its scores out of a local store."""
    for step in (stage.checkpoint, *stage.asked):
        shutil.rmtree(ledger.files.at(step.path))


def plausible(step: Evaluate) -> float:
    """What was taught rises with learning rate and recipe; what was not sags with them, stage by stage."""
    checkpoint = step.checkpoint
    taught, strength, stages = set(), 0.0, 0
    while isinstance(checkpoint, Finetune):
        taught.add(checkpoint.skill.name)
        reach = 0.5 + 0.1 * (zlib.crc32(checkpoint.recipe.name.encode()) % 6)
        strength, stages = reach * min(1.0, checkpoint.training.learning_rate / 1e-3), stages + 1
        checkpoint = checkpoint.parent
    return 0.6 + 0.3 * strength if step.benchmark.name in taught else 0.6 - 0.05 * strength**2 * stages


def _answers(
    step: Evaluate, folder: Path, questions: int, chance: float, samples: bool, partial: bool
) -> dict[str, object]:
    # A question is as hard for every checkpoint: that is what pairing is for.
    hardness = np.random.default_rng(zlib.crc32(step.benchmark.name.encode())).random(questions)
    luck = np.random.default_rng(int(step.key[:8], 16))
    right = ((hardness + 0.2 * luck.standard_normal(questions)) < chance).astype(float)
    scores = (right * (1 - 0.5 * luck.random(questions).round(2) if partial else 1)).tolist()
    rows = [
        {"id": f"{step.benchmark.name}-{n}", "question": f"question {n}", "references": ["yes"], "metadata": {},
         "prediction": "yes" if score else "no", "score": score}
        for n, score in enumerate(scores)
    ]  # fmt: skip
    if samples or questions <= 20:  # a large store is for reports, which read few samples
        (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"score": 100 * float(np.mean(scores)), "sample_scores": scores, "seconds": 1.0}


def _cost(step: Step) -> dict[str, float]:
    parameters = 1000 * (1 + zlib.crc32(step.label.encode()) % 7)
    return {
        "trained_parameters": parameters,
        "trained_bytes": 4 * parameters,
        "checkpoint_bytes": 4 * parameters,
        "seconds": 60.0,
        "peak_memory_bytes": 40 * parameters,
    }
