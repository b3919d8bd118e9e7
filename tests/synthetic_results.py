"""Made-up sweeps for the tests of reports and tracking: many trials that behave like real ones, and cost nothing."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import numpy as np

from lmmcl.reports.results import StageResult, SweepResults, TrialResult

SKILLS = ["birds", "counting", "pathology", "digits", "clock"]
HELD_OUT = ["colour", "shape", "relation", "charts", "documents", "science", "scenes", "letters"]
#: (how much a recipe learns, how much it forgets, what it trains)
RECIPES = {
    "sa_proj": (25.0, 0.6, 817_900_000),
    "gate_up": (30.0, 2.2, 3_800_000_000),
    "mlp": (33.0, 9.0, 5_700_000_000),
    "llm": (32.0, 17.0, 7_620_000_000),
    "full": (34.0, 23.0, 8_030_000_000),
    "lora": (24.0, 6.0, 640_000_000),
    "projector": (3.0, 0.8, 17_000_000),
}
RATES = [5e-6, 1e-5, 3e-5, 1e-4]


def make_sweep(
    *,
    recipes: list[str] | None = None,
    rates: list[float] | None = None,
    mitigations: list[str | None] | None = None,
    seeds: int = 1,
    stages: int = len(SKILLS),
    updates: int = 40,
    name: str = "synthetic",
) -> SweepResults:
    """A sweep over the product of its arguments, the same one each time."""
    grid = itertools.product(recipes or list(RECIPES), rates or RATES, mitigations or [None], range(seeds))
    trials = [make_trial(*point, stages=stages, updates=updates) for point in grid]
    provenance = {
        "commit": "0123abc",
        "versions": {"torch": "2.13.0", "transformers": "5.23.0", "ray": "2.59.0"},
        "command": f"lmmcl run sweeps/{name}.yaml",
        "date": "2026-03-01 12:00 UTC",
    }
    steps = sum(len(trial.stages) * (1 + len(trial.benchmarks())) for trial in trials)
    return SweepResults(name, trials, f"sweeps/{name}.yaml", provenance, wanted=steps, recorded=steps)


def make_trial(
    recipe: str = "sa_proj",
    rate: float = 1e-5,
    mitigation: str | None = None,
    seed: int = 0,
    *,
    stages: int = len(SKILLS),
    updates: int = 40,
    state: Any = "done",
    error: str | None = None,
    key: str | None = None,
) -> TrialResult:
    """One trial with the stages 0 to `stages`."""
    name = f"{recipe}{f' + {mitigation}' if mitigation else ''} · lr {rate:.0e} · s{seed}"
    axes = {
        "model": "tiny-onevision",
        "recipe": recipe,
        "mitigation": mitigation,
        "learning_rate": rate,
        "order": "main",
        "seed": seed,
    }
    made = [make_stage(number, recipe, rate, mitigation, seed, updates) for number in range(stages + 1)]
    draws = {}
    for measure, value in made[-1].measures.items():
        dice = np.random.default_rng(abs(hash_of(f"{name}{measure}")))
        draws[measure] = value + 0.6 * dice.standard_normal(200)
    return TrialResult(key or f"{abs(hash_of(name)):016x}", name, axes, SKILLS, HELD_OUT, made, state, error, draws)


def make_stage(number: int, recipe: str, rate: float, mitigation: str | None, seed: int, updates: int) -> StageResult:
    """Stage `number` of the trial with that grid point: scores rise when a skill is taught, and sag a little later."""
    learns, forgets, parameters = RECIPES[recipe]
    strength = 0.6 + 0.25 * math.log10(rate / 5e-6)
    kept = 0.4 if mitigation else 1.0
    dice = random.Random(f"{recipe}{rate}{mitigation}{seed}{number}")
    scores = {}
    for place, skill in enumerate(SKILLS, start=1):
        gain = learns * strength * (0.8 + 0.4 * kept) if place <= number else 0.3 * number
        sag = forgets * 0.15 * kept * max(0, number - place)
        scores[skill] = min(100.0, max(0.0, 22.0 + 6 * place + gain - sag + dice.gauss(0, 1)))
    lost = forgets * strength * kept * (1 - math.exp(-number / 2))
    for place, benchmark in enumerate(HELD_OUT):
        scores[benchmark] = max(
            0.0, 45.0 + 5 * place - lost * (0.6 + 0.1 * place) + (dice.gauss(0, 0.7) if number else 0)
        )
    held_out = sum(scores[name] - 45.0 - 5 * place for place, name in enumerate(HELD_OUT)) / len(HELD_OUT)
    measures = {"held_out_forgetting": held_out, "overall": 0.0}
    if number:
        taught = SKILLS[:number]
        learning = sum(scores[skill] - 22.0 - 6 * place for place, skill in enumerate(taught, start=1)) / len(taught)
        measures |= {
            "learning": learning,
            "overall": learning - 1.0,
            "target_forgetting": -forgets * 0.2 * kept,
            "bwt": -1.0,
        }
    intervals = {name: (value - 1.4, value + 1.2) for name, value in measures.items()} if number else {}
    return StageResult(
        number=number,
        skill=SKILLS[number - 1] if number else None,
        checkpoint_key=f"{abs(hash_of(f'{recipe}{rate}{mitigation}{seed}{number}')):016x}" if number else "base",
        scores=scores,
        sample_counts=dict.fromkeys(scores, 500),
        measures=measures,
        intervals=intervals,
        curve=[_row(update, updates, rate, dice) for update in range(1, updates + 1)] if number else [],
        cost=_cost(parameters, dice) if number else {},
    )


def hash_of(text: str) -> int:
    """A number that is the same in every process."""
    return random.Random(text).getrandbits(60)


def _row(update: int, updates: int, rate: float, dice: random.Random) -> dict[str, float]:
    return {
        "update": update,
        "loss": 0.3 + 2.5 * math.exp(-5 * update / updates) + dice.gauss(0, 0.05),
        "learning_rate": rate * (1 - update / (updates + 1)),
        "grad_norm": 1 + dice.random(),
        "updates_per_second": 3.2,
    }


def _cost(parameters: int, dice: random.Random) -> dict[str, float]:
    return {
        "trained_parameters": parameters,
        "trained_bytes": 2 * parameters,
        "checkpoint_bytes": 2 * parameters,
        "seconds": 800 + 100 * dice.random(),
        "peak_memory_bytes": 16 * parameters,
    }
