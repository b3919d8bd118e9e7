"""A worked example by hand, then what must hold for any matrix."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from scipy import stats

from lmmcl.evaluation.matrix import MomentScores, ScoreMatrix
from lmmcl.measures import MEASURES

# score in points:       a   b   c   h1   h2
WORKED = {
    0: [10, 20, 30, 80, 60],
    1: [70, 24, 30, 76, 60],
    2: [50, 90, 36, 70, 50],
    3: [60, 80, 95, 78, 56],
}
COLUMNS = ["a", "b", "c", "h1", "h2"]


def right(percent: float, questions: int = 100) -> list[float]:
    """Scores of 0 and 1 with this mean."""
    return [1.0] * round(percent * questions / 100) + [0.0] * (questions - round(percent * questions / 100))


def worked(stages: int = 3) -> ScoreMatrix:
    matrix = ScoreMatrix(["a", "b", "c"], ["h1", "h2"])
    for stage in range(stages + 1):
        matrix.add(stage, {name: right(value) for name, value in zip(COLUMNS, WORKED[stage], strict=True)})
    return matrix


def random_matrix(seed: int = 0, stages: int = 5, held_out: int = 8, questions: int = 300) -> ScoreMatrix:
    rng = np.random.default_rng(seed)
    matrix = ScoreMatrix([f"t{i}" for i in range(stages)], [f"h{i}" for i in range(held_out)])
    for stage in range(stages + 1):
        matrix.add(stage, {name: rng.random(questions) for name in matrix.benchmarks})
    return matrix


def test_the_measures_after_the_last_stage_are_those_worked_out_by_hand() -> None:
    assert worked().summary() == pytest.approx(
        {
            "learning": (60 + 70 + 65) / 3,
            "target_forgetting": (-10 - 10) / 2,
            "overall": (50 + 60 + 65) / 3,
            "held_out_forgetting": (-2 - 4) / 2,
            "bwt": (-10 - 10) / 2,
            "fwt": (4 + 6) / 2,
            "chaudhry_forgetting": (10 + 10) / 2,
            "mft": (70 + 90 + 95) / 3,
            "mfn": (60 + 80 + 95) / 3,
            "maa": (70 + (50 + 90) / 2 + (60 + 80 + 95) / 3) / 3,
            "h_score": 2 * 67 * (235 / 3) / (67 + 235 / 3),
        }
    )


def test_the_measures_are_defined_after_every_stage_whatever_came_later() -> None:
    whole = worked()
    for stage in (1, 2, 3):
        assert whole.summary(stage) == worked(stage).summary()
    assert whole.summary(2)["target_forgetting"] == pytest.approx(-20)
    assert whole.summary(2)["held_out_forgetting"] == pytest.approx(-10)


def test_after_one_skill_nothing_can_have_been_forgotten_and_no_zero_pretends_so() -> None:
    summary = worked().summary(1)
    assert summary["learning"] == summary["overall"] == pytest.approx(60)
    assert not {"bwt", "target_forgetting", "chaudhry_forgetting", "fwt"} & set(summary)


def test_the_base_has_no_measures() -> None:
    assert worked(0).summary() == {} == worked(0).intervals()
    assert ScoreMatrix(["a"]).summary() == {}


def test_a_missing_score_makes_absent_what_needs_it_and_nothing_else() -> None:
    matrix = worked(2)
    matrix.add(3, {"a": right(60), "b": right(80), "h1": right(78), "h2": right(56)})
    assert set(MEASURES) - set(matrix.summary()) == {"learning", "overall", "mft", "mfn", "maa", "h_score"}
    assert matrix.summary()["chaudhry_forgetting"] == pytest.approx(10)
    partial = worked(2)
    partial.add(3, {"c": right(95), "h1": right(78)})
    assert "held_out_forgetting" not in partial.summary()
    assert partial.summary()["learning"] == worked().summary()["learning"]


def test_without_a_base_row_nothing_is_compared_with_it() -> None:
    matrix = ScoreMatrix(["a"], ["h1"])
    matrix.add(1, {"a": right(70), "h1": right(50)})
    assert set(matrix.summary()) == {"mft", "mfn", "maa", "h_score"}


def test_rows_may_come_piecemeal_and_in_any_order() -> None:
    matrix = ScoreMatrix(["a", "b", "c"], ["h1", "h2"])
    for stage in (3, 0, 2, 1):
        for name, value in zip(COLUMNS, WORKED[stage], strict=True):
            matrix.add(stage, {name: right(value)})
    assert matrix.summary() == worked().summary()
    assert matrix.stages == (0, 1, 2, 3)
    assert matrix.table() == worked().table()


def test_forgetting_is_negative_for_a_skill_that_is_better_than_ever() -> None:
    matrix = ScoreMatrix(["a", "b"])
    for stage, value in enumerate((10, 50, 60)):
        matrix.add(stage, {"a": right(value), "b": right(value)})
    assert matrix.summary()["chaudhry_forgetting"] == pytest.approx(-10)


def test_a_skill_taught_again_counts_once_from_its_latest_stage() -> None:
    matrix = ScoreMatrix(["a", "b", "a", "c"])
    rows = [(10, 10, 10), (60, 16, 12), (40, 80, 14), (90, 70, 20), (84, 60, 70)]
    for stage, row in enumerate(rows):
        matrix.add(stage, {name: right(value) for name, value in zip("abc", row, strict=True)})
    after_again = matrix.summary(3)
    assert after_again["learning"] == pytest.approx((80 + 70) / 2)
    assert after_again["target_forgetting"] == pytest.approx(-10)  # b alone: a was taught a moment ago
    last = matrix.summary()
    assert last["learning"] == pytest.approx((80 + 70 + 60) / 3)
    assert last["target_forgetting"] == pytest.approx((-6 - 20) / 2)
    assert last["fwt"] == pytest.approx(
        (6 + 10) / 2
    )  # b before stage 2, c before stage 4; a had been taught first of all
    assert last["chaudhry_forgetting"] == pytest.approx((6 + 20) / 2)


def test_the_interval_agrees_with_scipys_paired_bootstrap() -> None:
    rng = np.random.default_rng(3)
    before = (rng.random(200) < 0.7).astype(float)
    after = np.where(rng.random(200) < 0.8, before, 1 - before)  # strongly paired: unpaired would be far wider
    matrix = ScoreMatrix(["a"], ["h"])
    matrix.add(0, {"h": before})
    matrix.add(1, {"h": after})
    expected = stats.bootstrap(
        (after, before),
        lambda x, y, axis: 100 * (x.mean(axis=axis) - y.mean(axis=axis)),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    low, high = matrix.intervals(samples=20000)["held_out_forgetting"]
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.6)
    assert high - low > 5


def test_questions_are_paired_across_stages() -> None:
    """Where every question keeps its score, the noise of the scores makes no doubt about the change: what is left is that of 30
    questions that all stayed as they were (Agresti and Min 2005: ± 1.96 / 32)."""
    matrix = ScoreMatrix(["a"], ["h"])
    scores = np.random.default_rng(0).random(30)
    matrix.add(0, {"h": scores})
    matrix.add(1, {"h": scores})
    low, high = matrix.intervals()["held_out_forgetting"]
    assert (low, high) == pytest.approx((-100 * 1.96 / 32, 100 * 1.96 / 32), abs=0.5)
    low, high = matrix.score_intervals()["h"]
    assert low < matrix.score(1, "h") < high


@pytest.mark.parametrize("right", [0, 1, 7, 20])
def test_the_interval_of_right_and_wrong_answers_is_wilsons(right: int) -> None:
    """Wilson 1927, as scipy computes it: all right and all wrong have a width."""
    matrix = ScoreMatrix(["a"], ["h"])
    matrix.add(0, {"h": [1.0] * right + [0.0] * (20 - right)})
    expected = stats.binomtest(right, 20).proportion_ci(method="wilson")
    low, high = matrix.score_intervals(0)["h"]
    assert (low, high) == pytest.approx((100 * expected.low, 100 * expected.high))
    assert high - low > 5


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_scores_between_right_and_wrong_have_an_interval_that_holds_their_mean(value: float) -> None:
    matrix = ScoreMatrix(["a"], ["h"])
    matrix.add(0, {"h": [value] * 19 + [min(1.0, value + 0.1)]})
    low, high = matrix.score_intervals(0)["h"]
    assert low <= matrix.score(0, "h") <= high
    assert high - low > 1


def test_benchmarks_of_fractional_scores_are_known_from_all_stages() -> None:
    matrix = ScoreMatrix(["a"], ["h", "g"])
    matrix.add(0, {"a": [0.0, 0.0], "h": [0.0, 1.0], "g": [0.5, 0.5]})
    matrix.add(1, {"a": [0.0, 2.0], "h": [1.0, 1.0], "g": [0.0, 1.0]})
    assert matrix.fractional() == ["a", "g"], "a whole number above 1 is not a share of right answers, either"
    assert set(matrix.score_intervals(1, names=matrix.fractional())) == {"a", "g"}
    assert matrix.score_intervals(1, names=["g"])["g"] == matrix.score_intervals(1)["g"]


def test_a_moment_inside_a_stage_has_the_interval_that_the_stage_would_have_had_there() -> None:
    rng = np.random.default_rng(1)
    rows = {name: {h: rng.random(40) for h in ("a", "b", "h")} for name in ("base", "first", "middle", "last")}

    def matrix(*stages: str) -> ScoreMatrix:
        scored = ScoreMatrix(["a", "b"], ["h"])
        for stage, name in enumerate(stages):
            scored.add(stage, rows[name], checkpoint=name)
        return scored

    whole = matrix("base", "first", "last")
    moments = [MomentScores(name, rows[name]) for name in ("first", "middle", "last")]
    ends = whole.intervals_if(2, moments)
    for found, expected in ((ends[1], matrix("base", "first", "middle")), (ends[2], whole)):
        assert set(found) == set(expected.intervals(2))
        for name, pair in expected.intervals(2).items():
            assert found[name] == pytest.approx(pair), name
    value = whole.measures_if(2, moments[1].means())["learning"]
    assert ends[1]["learning"][0] < value < ends[1]["learning"][1]
    at_first = whole.intervals_if(1, [MomentScores("base", rows["base"])])[0]
    for name in ("learning", "held_out_forgetting"):
        assert at_first[name] == pytest.approx((0.0, 0.0), abs=1e-9), "the start of training changed nothing"


def test_a_moment_that_was_asked_less_has_no_interval_of_what_it_lacks() -> None:
    matrix = worked(1)
    (ends,) = matrix.intervals_if(1, [MomentScores("inside", {"a": right(40)})])
    assert "learning" in ends and "held_out_forgetting" not in ends, "never from the scores of the end of the stage"


def test_all_right_before_and_all_wrong_after_is_no_certainty() -> None:
    matrix = ScoreMatrix(["a"], ["h"])
    matrix.add(0, {"h": [1.0] * 50, "a": [0.0] * 50})
    matrix.add(1, {"h": [0.0] * 50, "a": [1.0] * 50})
    for name, value in (("held_out_forgetting", -100), ("learning", 100)):
        low, high = matrix.intervals()[name]
        assert low <= value <= high
        assert 3 < high - low < 15


@pytest.mark.parametrize("lost", [0.005, 0.01, 0.03])
def test_intervals_near_the_bounds_cover_what_is_true(lost: float) -> None:
    """Of 100 questions that were all right few are lost: many experiments lose none, which does not prove that none is lost."""
    rng, hits, runs = np.random.default_rng(5), 0, 150
    for run in range(runs):
        matrix = ScoreMatrix(["a"], ["h"])
        matrix.add(0, {"h": np.ones(100)})
        matrix.add(1, {"h": (rng.random(100) > lost).astype(float)}, checkpoint=str(run))
        low, high = matrix.intervals(samples=400, seed=run)["held_out_forgetting"]
        hits += low <= -100 * lost <= high
    print(f"covered with {lost:.1%} lost:", hits / runs)
    assert hits / runs >= 0.92


def test_two_trials_that_share_a_checkpoint_differ_in_nothing_there() -> None:
    def drawn(last: str) -> np.ndarray:
        matrix = ScoreMatrix(["a"], ["h"])
        for stage, checkpoint in ((0, "base"), (1, last)):
            matrix.add(stage, {"h": np.ones(50)}, checkpoint)
        return matrix.draws()["held_out_forgetting"]

    assert (drawn("one") == drawn("one")).all()
    assert np.std(drawn("one") - drawn("other")) > 0.5, (
        "two checkpoints that are all right are not known to be the same"
    )


def test_two_trials_over_the_same_benchmarks_are_paired() -> None:
    one = ScoreMatrix(["a"], ["h"])
    other = ScoreMatrix(["a"], ["g", "h"])
    scores = np.random.default_rng(0).random(30)
    for matrix in (one, other):
        matrix.add(0, {"h": scores})
        matrix.add(1, {"h": scores[::-1], "a": [1.0]})
    assert one.score_intervals(1)["h"] == other.score_intervals(1)["h"]


def test_intervals_contain_the_value_of_each_linear_measure_and_can_be_repeated() -> None:
    matrix = random_matrix()
    intervals = matrix.intervals()
    assert set(intervals) == set(matrix.summary())
    for name in set(intervals) - {"chaudhry_forgetting"}:  # a maximum over resamples is biased upward
        low, high = intervals[name]
        assert low < matrix.summary()[name] < high, name
    assert intervals == random_matrix().intervals() != matrix.intervals(seed=1)
    narrow, wide = matrix.intervals(level=0.5)["learning"], intervals["learning"]
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_a_score_added_later_changes_the_intervals() -> None:
    matrix = worked(3)
    before = matrix.intervals()["learning"]
    matrix.add(3, {"c": right(40)})
    assert matrix.intervals()["learning"][1] < before[0]


def test_a_thousand_resamples_of_a_whole_trial_are_quick() -> None:
    matrix = random_matrix()
    matrix.intervals(samples=10)
    begun = time.process_time()
    matrix.intervals(samples=1000, seed=1)
    assert (
        time.process_time() - begun < 3
    )  # 30 times what an idle core of 2024 takes: question by question it were minutes


def test_a_matrix_survives_json() -> None:
    matrix = random_matrix(questions=7)
    again = ScoreMatrix.from_dict(json.loads(json.dumps(matrix.to_dict())))
    assert again.summary() == matrix.summary()
    assert again.intervals() == matrix.intervals()
    assert again.to_dict() == matrix.to_dict()


@pytest.mark.parametrize(
    ("stage", "scores", "message"),
    [
        (4, {"a": [1.0]}, "stages 0 to 3"),
        (-1, {"a": [1.0]}, "stages 0 to 3"),
        (1, {"z": [1.0]}, "neither taught nor held out"),
        (1, {"a": []}, "non-empty"),
        (1, {"a": [50.0]}, "from 0 to 1"),
        (1, {"a": [-0.5]}, "never below 0"),
        (1, {"a": [float("nan")]}, "from 0 to 1"),
        (1, {"a": [1.0]}, "1 questions, but 100 at stage"),
    ],
)
def test_scores_that_cannot_be_meant_are_refused(stage: int, scores: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        worked().add(stage, scores)


def test_a_benchmark_cannot_be_taught_and_held_out() -> None:
    with pytest.raises(ValueError, match="held out at once: a"):
        ScoreMatrix(["a"], ["a"])
