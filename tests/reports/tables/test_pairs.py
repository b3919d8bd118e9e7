"""Pairs of mitigations: gain over the better single one and interaction, by hand; intervals corrected over the pairs."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from synthetic_results import make_trial
from typer.testing import CliRunner

from lmmcl.cli import app
from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger
from lmmcl.reports.collect import collect
from lmmcl.reports.paired import ALPHA, estimate
from lmmcl.reports.results import SweepResults, TrialResult
from lmmcl.reports.tables.export import as_dict
from lmmcl.reports.tables.pairs import BETWEEN, pair_rows, pairs, pairs_markdown, pairs_table

EFFECTS = {"lwf": 5.0, "replay": 8.0, "ewc": 2.0}


def trial(mitigation: str | None, seed: int, overall: float) -> TrialResult:
    made = make_trial("llm", mitigation=mitigation, seed=seed, stages=1)
    noise = np.random.default_rng(seed).normal(0, 1.0, 1000)
    last = replace(made.stages[-1], measures={"overall": overall, "held_out_forgetting": -overall})
    draws = {"overall": overall + noise, "held_out_forgetting": -overall + noise}
    return replace(made, stages=[*made.stages[:-1], last], draws=draws, key=f"{mitigation}{seed}")


def sweep(together: dict[frozenset[str], float]) -> SweepResults:
    """None learns 20; members add their effects, pairs both effects and what they have together."""
    trials = []
    for seed in (3, 4, 5):
        trials.append(trial(None, seed, 20.0 + seed))
        trials += [trial(name, seed, 20.0 + seed + effect) for name, effect in EFFECTS.items()]
        for one, other in combinations(EFFECTS, 2):
            more = together.get(frozenset((one, other)), 0.0) + 0.1 * (seed - 4)
            trials.append(trial(f"{one} + {other}", seed, 20.0 + seed + EFFECTS[one] + EFFECTS[other] + more))
    return SweepResults("s", trials)


def test_a_gain_is_over_the_better_single_and_an_interaction_over_the_sum() -> None:
    found = {
        pair.names: pair for pair in pairs(sweep({frozenset(("lwf", "replay")): 3.0})) if pair.measure == "overall"
    }
    assert set(found) == {("lwf", "replay"), ("lwf", "ewc"), ("replay", "ewc")}
    best = found["lwf", "replay"]
    assert (best.better, best.seeds) == ("replay", 3)
    assert best.value == pytest.approx(40.0) and best.better_value == pytest.approx(32.0)
    assert best.gain.value == pytest.approx(8.0) and best.interaction.value == pytest.approx(3.0)
    assert found["lwf", "ewc"].interaction.value == pytest.approx(0.0, abs=1e-9)


def test_intervals_are_corrected_over_the_pairs_by_holm() -> None:
    results = sweep({frozenset(("lwf", "replay")): 3.0})
    found = sorted((pair for pair in pairs(results) if pair.measure == "overall"), key=lambda pair: pair.interaction.p)
    values = [0.1 * (seed - 4) + 3.0 for seed in (3, 4, 5)]
    same = [np.full(1000, value) for value in values]  # the noise of questions is shared by all four, and cancels
    expected = estimate(values, same, 1 - ALPHA / 3)
    assert (found[0].interaction.low, found[0].interaction.high) == pytest.approx((expected.low, expected.high))
    assert found[0].names == ("lwf", "replay") and found[0].interaction.low > 0


def test_rows_hold_both_ends_of_every_interval() -> None:
    results = sweep({})
    rows = list(pair_rows(results))
    assert [(row["first"], row["second"], row["measure"]) for row in rows] == [
        (*pair.names, pair.measure) for pair in pairs(results)
    ]
    assert all(row["gain_low"] <= row["gain"] <= row["gain_high"] for row in rows)


def test_a_pair_without_its_members_is_not_told() -> None:
    results = sweep({})
    lacking = [trial for trial in results.trials if trial.axes["mitigation"] != "ewc"]
    assert {pair.names for pair in pairs(SweepResults("s", lacking))} == {("lwf", "replay")}
    assert pairs(SweepResults("s", [trial for trial in results.trials if trial.axes["mitigation"]])) == []


def test_reports_and_json_tell_of_pairs() -> None:
    results = sweep({frozenset(("lwf", "replay")): 3.0})
    text = pairs_markdown(results)
    assert "| lwf + replay | overall | +40.0 | replay +32.0 | +8.0" in text and pairs_table(results) is not None
    assert len(as_dict(results)["pairs"]) == 6 and as_dict(results)["pairs"][0]["gain"]["value"] is not None
    assert pairs_markdown(SweepResults("s", [make_trial()])) == "" and pairs_table(SweepResults("s", [])) is None


SWEEPS = Path(__file__).parents[3] / "sweeps"


def test_hybrids_measures_all_pairs_of_ten_candidates_on_seeds_that_did_not_choose_them() -> None:
    sweep = load_sweep(SWEEPS / "hybrids.yaml")
    seeds: dict[str | None, set[int]] = {}
    for trial in sweep.trials:
        seeds.setdefault(trial.axes["mitigation"], set()).add(trial.seed)
    chosen = {label for label, found in seeds.items() if label and BETWEEN not in label and found & {3, 4, 5}}
    candidates = {label for label, found in seeds.items() if label and found >= {0, 1, 2}}
    together = {frozenset(label.split(BETWEEN)) for label in seeds if label and BETWEEN in label}
    assert len(chosen) == 10 and len(candidates) == 12 and chosen < candidates
    assert together == {frozenset(pair) for pair in combinations(chosen, 2)} and len(together) == 45
    assert all(found == {3, 4, 5} for label, found in seeds.items() if label and BETWEEN in label)
    assert seeds[None] == {0, 1, 2, 3, 4, 5}


@pytest.mark.slow
def test_the_preset_of_hybrids_runs_and_tells_of_its_six_pairs(tmp_path: Path) -> None:
    sweep = str(SWEEPS / "hybrids_small.yaml")
    done = CliRunner().invoke(app, ["run", sweep, "--store", str(tmp_path), "--inline", "--mlflow", "off"])
    assert done.exit_code == 0, done.output
    assert "Pairs of mitigations" in done.output
    found = pairs(collect(load_sweep(sweep), Ledger(str(tmp_path))))
    assert len(found) == 2 * 6 and all(pair.seeds == 3 for pair in found)
    assert all(pair.interaction.low <= pair.interaction.value <= pair.interaction.high for pair in found)
