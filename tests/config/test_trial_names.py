"""Names of trials as a person types them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from lmmcl.config.trial_names import find_one, find_seeds, name_part, short_names, without_seed
from lmmcl.errors import UserError


@dataclass(frozen=True)
class Trial:
    name: str
    key: str


def trials(*names: str) -> list[Trial]:
    return [Trial(name, f"{number:x}f00{'c' * 12}") for number, name in enumerate(names, start=1)]


GRID = trials(
    "sa_proj · lr 1e-3 · tiny-onevision · s0",
    "sa_proj · lr 3e-4 · tiny-onevision · s0",
    "gate_up · lr 1e-3 · tiny-onevision · s0",
    "sa_proj · wise_ft(alpha=0.5) · lr 1e-3 · tiny-onevision · s0",
)
SEEDS = trials("sa_proj · lr 1e-3 · m · s0", "sa_proj · lr 1e-3 · m · s1", "gate_up · lr 1e-3 · m · s0")


@pytest.mark.parametrize(
    ("typed", "place"),
    [
        ("sa_proj · lr 1e-3 · tiny-onevision · s0", 0),
        ("sa_proj · lr 1e-3", 0),
        ("lr 1e-3 · sa_proj", 0),
        ("sa_proj · lr 0.001", 0),
        ("sa_proj - lr 1e-3", 0),
        ("sa_proj · learning_rate=0.001", 0),
        ("sa_proj·lr 1e-3·seed 0", 0),
        ("SA_PROJ · 1e-3", 0),
        ("sa_proj · – · 1e-3", 0),
        ("sa_proj · lr 3e-04", 1),
        ("3e-4", 1),
        ("gate_up", 2),
        ("gate", 2),
        ("wise_ft", 3),
        ("sa_proj · wise_ft(alpha=0.5) · lr 1e-3", 3),
        ("3f00", 2),
    ],
)
def test_a_trial_is_found_by_what_sets_it_apart(typed: str, place: int) -> None:
    assert find_one(typed, GRID) is GRID[place]


@pytest.mark.parametrize("typed", ["sa_proj", "tiny-onevision", "lr 1e-3", "s0", "_"])
def test_a_part_that_several_trials_have_is_refused_with_those(typed: str) -> None:
    with pytest.raises(UserError, match=r"is ambiguous: it matches sa_proj .* \(1f00.*Add a part of the name"):
        find_one(typed, GRID)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("sa_prj · lr 1e-3", "no trial is called.*unknown part of a name 'sa_prj'; did you mean 'sa_proj'"),
        ("gate_up · lr 3e-4", "no trial has all parts of"),
        ("gate_pu", "unknown trial 'gate_pu'.*did you mean the one with 'gate_up'"),
    ],
)
def test_a_name_that_no_trial_has_is_answered_with_the_part_that_is_wrong(typed: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        find_one(typed, GRID)


def test_a_name_without_a_seed_is_all_seeds_of_its_grid_point() -> None:
    assert find_seeds("sa_proj", SEEDS) == SEEDS[:2]
    assert find_seeds("sa_proj · s1", SEEDS) == [SEEDS[1]]
    with pytest.raises(UserError, match=r"ambiguous.*s0.*s1"):
        find_one("sa_proj", SEEDS)
    with pytest.raises(UserError, match="ambiguous"):
        find_seeds("lr 1e-3", SEEDS)


def test_the_beginning_of_a_number_is_not_that_number() -> None:
    many = trials("a · lr 1e-3 · m · s1", "a · lr 1e-3 · m · s10")
    assert find_one("s1", many) is many[0]


def test_a_sweep_of_one_trial_is_named_by_any_part() -> None:
    assert find_one("sa_proj", GRID[:1]) is GRID[0]


def test_short_names_leave_out_what_all_share_and_can_be_typed_back() -> None:
    short = short_names([trial.name for trial in GRID[:3]])
    assert short == ["sa_proj · lr 1e-3", "sa_proj · lr 3e-4", "gate_up · lr 1e-3"]
    assert [find_one(each, GRID[:3]) for each in short] == GRID[:3]
    assert short_names([GRID[0].name]) == [GRID[0].name]


def test_values_of_axes_are_written_in_one_form() -> None:
    said = [("learning_rate", 1.23456e-4), ("epochs", 2.0), ("seed", 3), ("optimizer", "adamw"), ("mitigation", None)]
    assert [name_part(*each) for each in said] == ["lr 1.23456e-4", "epochs 2", "s3", "optimizer adamw", None]
    assert without_seed("a · lr 1 · s3") == "a · lr 1" and without_seed("s3") == "s3"
