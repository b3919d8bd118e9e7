from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic_results import make_trial

from lmmcl.reports import recommend as recommend_module
from lmmcl.reports.paired import ALPHA, estimate, p_values_of, within_noise
from lmmcl.reports.recommend import difference, recommend, recommendation, recommendation_markdown, short_name
from lmmcl.reports.results import SweepResults, TrialResult
from lmmcl.reports.seeds import averaged

DICE = np.random.default_rng(0)
QUESTIONS = DICE.standard_normal(500)  # what all trials share: the questions drawn


def at(
    recipe: str, learning: float, held_out: float, *, seed: int = 0, noise: float = 0.3, **axes: object
) -> TrialResult:
    trial = make_trial(recipe, seed=seed, updates=0)
    measures = {"learning": learning, "held_out_forgetting": held_out}
    intervals = {name: (value - 1, value + 1) for name, value in measures.items()}
    draws = {name: value + QUESTIONS + noise * DICE.standard_normal(500) for name, value in measures.items()}
    last = replace(trial.stages[-1], measures=measures, intervals=intervals)
    return replace(trial, stages=[*trial.stages[:-1], last], draws=draws, axes={**trial.axes, **axes})


SWEEP = SweepResults(
    "s",
    [at("sa_proj", 24, -0.5), at("gate_up", 30, -2.0), at("mlp", 29.9, -2.1), at("full", 33, -20), at("lora", 20, -8)],
)


@pytest.mark.parametrize(("budget", "taken"), [(1, "sa_proj"), (2, "gate_up"), (19.9, "gate_up"), (20, "full")])
def test_the_best_learner_within_the_budget_is_taken(budget: float, taken: str) -> None:
    assert recommendation(SWEEP, budget)[0] == f"Take {taken}."


def test_one_other_trial_is_one() -> None:
    apart = SweepResults("s", [at("gate_up", 30, -1), at("lora", 20, -1)])
    assert "It differs significantly from the other finished trial." in " ".join(recommendation(apart, 2))
    tied = SweepResults("s", [at("gate_up", 30, -1), at("mlp", 29.9, -1)])
    text = " ".join(recommendation(tied, 2))
    assert "Within noise of it: mlp" in text and "other finished" not in text


def test_a_budget_that_no_trial_keeps_is_told_with_the_least_loss() -> None:
    lines = recommendation(SWEEP, 0.1)
    assert lines[0].startswith("No finished trial keeps within 0.1 points") and "sa_proj: -0.5" in lines[0]
    assert "full learns most" in lines[1]


def test_what_is_within_noise_is_named_and_what_is_not_is_counted() -> None:
    choice = recommend(SWEEP)[0].under(2.0)
    assert [tie.trial.axes["recipe"] for tie in choice.ties] == ["mlp"] and choice.rivals == 4
    text = "\n".join(recommendation(SWEEP, 2.0))
    assert (
        "Within noise of it: mlp (learning -0.1 [" in text
        and "differs significantly from 3 of the 4 other finished trials" in text
    )


def test_pairing_finds_what_single_intervals_hide() -> None:
    one, other = at("sa_proj", 24, -0.5, noise=0.05), at("gate_up", 24.5, -0.5, noise=0.05)
    assert one.interval("learning")[1] > other.interval("learning")[0]
    assert difference(one, other, "learning").p < 0.001
    assert difference(one, other, "held_out_forgetting").p > 0.05


def test_seeds_that_disagree_make_a_difference_uncertain() -> None:
    def p(luck: float) -> float:
        trials = [at("sa_proj", 24 + luck * seed, -1, seed=seed) for seed in (-1, 0, 1)]
        trials += [at("full", 26 - luck * seed, -1, seed=seed) for seed in (-1, 0, 1)]
        one, other = averaged(SweepResults("s", trials)).trials
        return difference(one, other, "learning").p

    assert p(0.0) < 0.001 < 0.05 < p(2.0)


def test_an_interval_that_crosses_the_budget_is_told() -> None:
    assert any("reaches -3.0" in line for line in recommendation(SWEEP, 2.0))
    assert not any("reaches" in line for line in recommendation(SWEEP, 5.0))


def test_the_front_is_listed_from_the_least_learnt_to_the_most() -> None:
    assert "On the front, from the least learnt to the most: sa_proj → gate_up → full." in recommendation(SWEEP)


def test_models_are_advised_on_apart() -> None:
    trials = [*SWEEP.trials, at("full", 50, 0, model="another")]
    lines = recommendation(SweepResults("s", trials))
    assert "another:" in lines and "tiny-onevision:" in lines and "Take full · another." in lines


def test_trials_without_draws_are_not_said_to_be_apart_or_alike() -> None:
    trials = [replace(trial, draws={}) for trial in SWEEP.trials]
    assert difference(trials[0], trials[1], "learning") is None
    text = "\n".join(recommendation(SweepResults("s", trials)).copy()[:-1])
    assert "Take gate_up." in text and "noise" not in text and "apart" not in text


def test_nothing_finished_is_no_advice() -> None:
    assert recommendation(SweepResults("s", [make_trial(state="partial")])) == []
    assert recommendation_markdown(SweepResults("s", [])) == ""


def test_a_short_name_has_what_varies_alone() -> None:
    results = SweepResults("s", [at("sa_proj", 1, 0, learning_rate=1e-3), at("full", 1, 0, learning_rate=3e-4)])
    assert short_name(results, results.trials[1]) == "full · lr 3e-4"
    assert short_name(SweepResults("s", SWEEP.trials[:1]), SWEEP.trials[0]) == SWEEP.trials[0].name


def test_what_learned_nothing_is_not_recommended_however_little_it_loses() -> None:
    results = SweepResults("s", [at("gate_up", 30, -5), at("lora", 0.4, 0.0)])
    lines = recommendation(results, 2)
    assert lines[0].startswith("No finished trial keeps within 2 points")
    assert "gate_up: -5" in lines[0], "the least loss is that of a trial that has learned"
    assert recommendation(SweepResults("s", [at("lora", 0.4, 0.0)])) == [
        "No finished trial has learned anything (the interval of its learning reaches 0), so none is recommended."
    ]


@pytest.mark.parametrize("twin", [False, True], ids=["all apart", "two with the same answers"])
def test_all_pairs_at_once_are_decided_as_pair_by_pair(twin: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    trials = []
    for number in range(60):
        trial = at("mlp", 30 - number / 8 + rng.normal() / 4, -number / 20 + rng.normal() / 4, number=number)
        trials.append(replace(trial, key=f"trial {number}"))
    trials += [replace(trials[0], key="twin")] if twin else []
    together = recommend(SweepResults("s", trials))
    monkeypatch.setattr(recommend_module._Screen, "near", lambda self, chosen: None)
    by_pairs = recommend(SweepResults("s", trials))
    assert together == by_pairs
    ties = [len(choice.ties) for choice in together[0].choices]
    assert min(ties) > 0 and max(ties) < len(trials) - 1


def test_a_decision_that_rounding_could_turn_is_not_taken_from_products() -> None:
    assert within_noise(np.array([[0.9, 0.9], [1e-30, 1.0]])).tolist() == [True, False]
    assert within_noise(np.array([[0.9, 0.9], [np.nan, 1.0]])) is None
    assert within_noise(np.array([[ALPHA / 4 * (1 + 1e-9), 0.9], [0.8, 1.0]])) is None
    draws = np.random.default_rng(0).standard_normal((3, 200))
    (p_values,) = p_values_of([0.0, 0.0, 0.2], [draws[0], draws[0] + 1, draws[2]], [0])
    assert np.isnan(p_values[:2]).all()
    assert p_values[2] == pytest.approx(estimate([0.2], [draws[2] - draws[0]]).p)
