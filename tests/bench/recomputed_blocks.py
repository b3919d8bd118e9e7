"""Activation checkpointing, as transformers switches it on and as a stage uses it: numbers kept for the way back and blocks computed.

    python tests/bench/recomputed_blocks.py

Counted on a tiny Qwen2.5-VL (LLaVA-NeXT for the head), with torch's own hooks for saved tensors; a count, which no machine changes.
What lies below the lowest block that trains is to be computed once and to keep nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activation_counts import ON, RECIPES, passed, ready, switch_on

from lmmcl.training.efficiency.checkpointing import checkpoint_what_learns


@dataclass(frozen=True)
class Count:
    """Of one recipe: thousands of numbers kept, and passes through blocks, by transformers' default and by ours."""

    recipe: str
    kept_before: int
    kept: int
    runs_before: int
    runs: int


def measure(recipes: Sequence[str] = tuple(RECIPES)) -> list[Count]:
    """Both ways for each recipe, on the same batch."""
    counts = []
    for recipe in recipes:
        figures = []
        for ours in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                trainer: Any = ready(recipe, Path(folder))
                switch_on(trainer.taught, ours=ours)
                with checkpoint_what_learns(trainer.taught, ON) if ours else nullcontext():
                    kept, runs, _ = passed(trainer)
            figures.append((kept.total(), runs.total()))
        (kept_before, runs_before), (kept_now, runs_now) = figures
        counts.append(Count(recipe, kept_before, kept_now, runs_before, runs_now))
    return counts


def table(counts: Sequence[Count]) -> str:
    """For the terminal."""
    lines = [f"{'recipe':28}{'kept':>9}{'ours':>9}{'ratio':>8}{'block passes':>14}{'ours':>6}"]
    lines += [
        f"{row.recipe:28}{row.kept_before:9,}{row.kept:9,}{row.kept / row.kept_before:8.2f}{row.runs_before:14}{row.runs:6}"
        for row in counts
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(measure()))
