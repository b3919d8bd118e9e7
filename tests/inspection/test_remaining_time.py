"""Time left, as a person watches it: compared with the stages of real runs."""

from __future__ import annotations

from itertools import pairwise

import pytest

from lmmcl.inspection.remaining_time import StagePace, SteadyEstimate, clock, rough

RUNS = {
    # When the first stages began, when each later stage ended (seconds), and how many trials ran side by side.
    "a quiet machine": (23, [44, 46, 60, 63, 72, 75, 85, 87, 90, 103, 106, 121, 122, 131, 134, 137, 139, 145], 4),
    "a loaded machine": (45, [71, 100, 104, 116, 119, 120, 122, 125, 128, 141, 143, 146, 161, 172, 177, 181, 185], 4),
    "one after another": (2, [17, 26, 35, 47, 54, 62, 72, 79, 85, 95, 102, 110, 121, 130, 139, 150, 158, 166], 1),
}


def watched(name: str, every: float) -> list[tuple[float, float, float]]:
    """(moment, what was shown, what was really left) of a recorded run that is looked at every `every` seconds."""
    begun, ends, at_once = RUNS[name]
    pace, estimate, shown = StagePace(0.0), SteadyEstimate(), []
    pace.restart(begun)
    looks = sorted(
        {*(every * n for n in range(int(ends[-1] / every))), *map(float, ends)}
    )  # each end is looked at, too
    left = list(ends)
    for moment in looks:
        while left and left[0] <= moment:
            pace.completed(left.pop(0))
        value = estimate.update(pace.seconds_left(len(left), at_once, moment), moment)
        if value is not None:
            shown.append((moment, value, ends[-1] - moment))
    return shown


@pytest.mark.parametrize("name", RUNS)
def test_an_estimate_never_jumps_between_two_looks(name: str) -> None:
    shown = watched(name, 0.5)
    for (before, first, _), (moment, second, _) in pairwise(shown):
        expected = first - (moment - before)
        assert abs(second - expected) <= 0.5 + 0.05 * max(first, 60), (
            f"at {moment} s: {first:.0f} s, then {second:.0f} s"
        )


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("every", [0.5, 25.0])
def test_an_estimate_comes_near_what_was_really_left(name: str, every: float) -> None:
    shown = watched(name, every)
    late = [(value, real) for _, value, real in shown if 10 <= real <= 50]
    assert late and all(abs(value - real) <= 0.6 * real + 10 for value, real in late)


def test_the_mean_of_the_stages_is_what_the_estimate_replaces_and_that_jumps() -> None:
    begun, ends, _ = RUNS["a loaded machine"]
    means = [(end - begun) / done * (len(ends) - done) for done, end in enumerate(ends, start=1)]
    assert max(abs(b - a) for a, b in pairwise(means)) > 30, "else the test above could not fail"


def test_a_stage_that_takes_far_longer_than_the_others_lets_the_estimate_grow_little_by_little() -> None:
    pace, estimate = StagePace(0.0), SteadyEstimate()
    for end in (10, 20, 30):
        pace.completed(end)
    values = [estimate.update(pace.seconds_left(2, 1, 30.0 + n), 30.0 + n) for n in range(120)]
    assert values[0] == pytest.approx(20) and values[-1] > 30
    assert max(abs(b - a) for a, b in pairwise(values)) < 3


def test_nothing_is_estimated_before_a_stage_is_done_and_starting_up_is_not_counted() -> None:
    pace, estimate = StagePace(0.0), SteadyEstimate()
    assert estimate.update(pace.seconds_left(3, 1, 100.0), 100.0) is None
    pace.restart(100.0)
    pace.completed(110.0)
    assert estimate.update(pace.seconds_left(2, 1, 110.0), 110.0) == pytest.approx(20)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "5 s"),
        (42, "40 s"),
        (58, "1m00s"),
        (64, "1m05s"),
        (599, "10m00s"),
        (2500, "42m"),
        (7500, "2h05m"),
        (7799, "2h10m"),
    ],
)
def test_an_estimate_is_told_no_finer_than_it_is_known(seconds: float, told: str) -> None:
    assert rough(seconds) == told


@pytest.mark.parametrize(("seconds", "told"), [(4, "0:04"), (725, "12:05"), (3725, "1:02:05")])
def test_a_clock_has_hours_where_there_are_some(seconds: float, told: str) -> None:
    assert clock(seconds) == told
