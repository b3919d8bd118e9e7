from __future__ import annotations

import pytest

from lmmcl.reports import formatting


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-3, "1e-3"), (2.5e-6, "2.5e-6"), (5e-6, "5e-6"), (0.0, "0"), (3e-4, "3e-4"), (0.1 + 0.2, "3e-1")],
)
def test_a_learning_rate_has_no_idle_digits(value: float, text: str) -> None:
    assert formatting.rate(value) == text


@pytest.mark.parametrize(("value", "text"), [(-0.04, "+0.0"), (24.96, "+25.0"), (-0.6, "-0.6"), (None, "–")])
def test_points_carry_their_sign(value: float | None, text: str) -> None:
    assert formatting.points(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(820_000_000, "820 M"), (7.62e9, "7.62 B"), (999, "999"), (999_600, "1 M"), (None, "–")]
)
def test_parameters_are_counted_in_short(value: float | None, text: str) -> None:
    assert formatting.count(value) == text


@pytest.mark.parametrize(("value", "text"), [(1.64e9, "1.64 GB"), (512, "512 B"), (0, "0 B")])
def test_bytes_are_decimal(value: float, text: str) -> None:
    assert formatting.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(4.21, "4.2 s"), (200, "3m20s"), (7500, "2h05m"), (59.99, "1m00s"), (3599.9, "1h00m")]
)
def test_times_are_short(value: float, text: str) -> None:
    assert formatting.duration(value) == text


def test_an_error_is_told_by_its_first_line() -> None:
    assert formatting.first_line("\n  out of memory\nTraceback …") == "out of memory"
    assert len(formatting.first_line("x" * 500)) == 200


@pytest.mark.parametrize(("number", "text"), [(0, "0 trials"), (1, "1 trial"), (2, "2 trials")])
def test_one_thing_is_one(number: int, text: str) -> None:
    assert formatting.plural(number, "trial") == text
