"""A finished made-up sweep whose answers are to the real questions of drawn benchmarks, so that a page has their pictures."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path

from made import write_sweep
from synthetic_ledger import fill

from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.steps import Evaluate

SWEEP = """
name: answered
orders:
  main: [counting, birds]
benchmarks: {held_out: [colour, shape]}
evaluation: {limit: QUESTIONS}
grids:
  - model: [tiny-onevision]
    recipe: [llm, sa_proj]
    learning_rate: [1.0e-3, 3.0e-4]
    seed: [SEEDS]
"""


def answered_sweep(
    folder: Path,
    questions: int = 24,
    *,
    seeds: Sequence[int] = (0,),
    hostile: str = "",
    partial: Collection[str] = (),
    moments: str = "",
) -> Sweep:
    """The sweep, finished in `folder`/store; `hostile` stands at the end of every question and answer.

    Of `partial` benchmarks an answer is right in part, and `moments` are settings of `evaluation` that ask inside stages.
    """
    text = SWEEP.replace("QUESTIONS", f"{questions}{moments and f', {moments}'}")
    text = text.replace("SEEDS", ", ".join(map(str, seeds)))
    sweep = load_sweep(write_sweep(folder, text))
    fill(sweep, folder / "store", questions=questions, samples=True, partial=partial)
    for step in sweep.steps.values():
        if isinstance(step, Evaluate):
            file = folder / "store" / step.path / "samples.jsonl"
            rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
            for row, example in zip(rows, islice(step.benchmark.load(), questions), strict=True):
                row["id"], row["references"] = example.id, list(example.references)
                row["question"] = example.prompt[-1].content.removeprefix("<image>\n") + hostile
                row["prediction"] = (example.references[0] if row["score"] else "something else") + hostile
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return sweep
