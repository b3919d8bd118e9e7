"""How long missing steps take is estimated from the rate of similar recorded steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from made import made_trial

from lmmcl.config.cluster import Cluster
from lmmcl.ledger import Ledger
from lmmcl.ledger.index.view import RecordView
from lmmcl.planning.throughput import Pace, estimate_pace
from lmmcl.steps import Evaluate, Finetune
from lmmcl.steps.trial import Trial


def finetunes(trial: Trial) -> list[Finetune]:
    return [step for step in trial.steps().values() if isinstance(step, Finetune)]


def record(ledger: Ledger, step: Finetune, seconds: float, **fields: float) -> None:
    with ledger.writing(step) as draft:
        draft.commit({"seconds": seconds, **fields})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path))


def test_what_nothing_like_is_recorded_of_is_said_to_be_unknown(ledger: Ledger) -> None:
    pace = estimate_pace(finetunes(made_trial()), RecordView(ledger))
    assert (pace.seconds, pace.steps, pace.unmeasured) == (0, 0, 2)
    assert "unknown" in str(pace)


def test_a_stage_takes_as_long_as_one_of_the_same_skill_and_recipe_whatever_its_rate_seed_and_place(
    ledger: Ledger,
) -> None:
    first, second = finetunes(made_trial(skills=("first", "second")))
    record(ledger, first, 40.0)
    record(ledger, second, 100.0)
    moved = finetunes(made_trial(skills=("second", "first"), learning_rate=1e-5, seed=3))
    assert [estimate_pace([step], RecordView(ledger)).seconds for step in moved] == [100.0, 40.0]
    other = finetunes(made_trial(recipe="sa_proj"))[0]
    assert estimate_pace([other], RecordView(ledger)).seconds == 70.0, "the median of the model's stages"


def test_names_may_hold_what_labels_are_joined_with(ledger: Ledger) -> None:
    """A label is a text in which `-lr1-s2` may be of a skill's name."""
    rated, plain = finetunes(made_trial(skills=("bills-lr1-s2", "bills")))
    record(ledger, rated, 40.0)
    record(ledger, plain, 100.0)
    again = finetunes(made_trial(skills=("bills", "bills-lr1-s2"), seed=4))
    assert [estimate_pace([step], RecordView(ledger)).seconds for step in again] == [100.0, 40.0]


def test_more_examples_take_longer_at_the_same_rate(ledger: Ledger) -> None:
    tried = finetunes(made_trial(max_steps=10))[0]
    record(ledger, tried, 15.0, train_seconds=5.0, examples=160)
    meant = finetunes(made_trial(max_steps=1000))[0]
    assert estimate_pace([meant], RecordView(ledger)).seconds == pytest.approx(10 + 500), (
        "loading once, and a hundred times the updates"
    )


def test_more_questions_take_longer_at_the_same_rate(ledger: Ledger) -> None:
    trial = made_trial()
    step = next(each for each in trial.stages[0].asked if isinstance(each, Evaluate))
    with ledger.writing(step) as draft:
        draft.commit({"seconds": 2.0, "sample_scores": [1.0] * 20})
    more = Evaluate(step.checkpoint, step.benchmark, step.evaluation.model_copy(update={"limit": 200}))
    assert estimate_pace([more], RecordView(ledger)).seconds == pytest.approx(20.0)


def test_the_longest_chain_and_the_cpus_of_a_cluster_started_here_bound_the_time(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for step in finetunes(made_trial(seed=9)):
        record(ledger, step, 60.0)
    steps = [step for seed in range(6) for step in finetunes(made_trial(seed=seed))]
    two = estimate_pace(steps, RecordView(ledger), Cluster.model_validate({"ray": {"cpus": 2}}))
    assert (two.seconds, two.chain, two.wall) == (720.0, 120.0, 360.0)
    many = estimate_pace(steps, RecordView(ledger), Cluster.model_validate({"ray": {"cpus": 100}}))
    assert many.wall == many.chain
    joined = estimate_pace(steps, RecordView(ledger), Cluster.model_validate({"ray": {"address": "auto"}}))
    assert joined.wall is None, "how many nodes it will have is not known"
    assert "12.0 min sequential" in str(two) and "6.0 min on this machine" in str(two)


@pytest.mark.parametrize(
    ("pace", "told"),
    [
        (Pace(4.24, 3, 0, 2.0), "4.2 s sequential, critical path 2 s."),
        (Pace(42.4, 3, 0, 12.0), "42 s sequential, critical path 12 s."),
        (Pace(0.0, 0, 0), "nothing to run."),
        (Pace(0.0, 0, 3), "unknown (no similar step has been recorded yet)"),
        (
            Pace(720.0, 3, 2, 360.0),
            "12.0 min sequential, critical path 6.0 min; excludes 2 steps for which no similar step has been timed.",
        ),
    ],
)
def test_small_times_are_told_in_seconds_and_unknown_ones_as_unknown(pace: Pace, told: str) -> None:
    assert str(pace).partition(": ")[2] == told
