"""Replay: which examples of earlier skills come again, and that a stage is no longer for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from stage_parts import BASE, made_skill, parts, shades, stage

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods import get_mitigation
from lmmcl.methods.data.replay import Replay
from lmmcl.tasks.examples import Example, ask
from lmmcl.tasks.sampling import sample_rows
from lmmcl.training.finetune import finetune


def lines(name: str, count: int) -> list[Example]:
    return [ask(f"{name}-{number}", "how many ?", str(number)) for number in range(count)]


OWN = lines("own", 10)
EARLIER = [made_skill("old", lines("old", 100)), made_skill("older", lines("older", 3))]


def ids(examples: object) -> list[str]:
    return [example.id for example in examples]


def test_the_stage_keeps_its_own_examples_and_gets_some_of_each_earlier_skill() -> None:
    mixed = ids(Replay(examples=20).data(OWN, EARLIER, 0))
    assert mixed[:10] == ids(OWN)
    assert Counter(each.split("-")[0] for each in mixed) == {"own": 10, "old": 20, "older": 3}
    assert len(set(mixed)) == 33


def test_which_ones_follows_the_seed_alone_and_is_near_even_over_seeds() -> None:
    drawn = [ids(Replay(examples=20).data(OWN, EARLIER[:1], seed))[10:] for seed in range(200)]
    assert drawn[3] == ids(Replay(examples=20).data(OWN, EARLIER[:1], 3))[10:]
    counts = Counter(each for some in drawn for each in some)
    assert len(counts) == 100
    assert all(15 < count < 65 for count in counts.values()), "40 were expected of each, give or take 5.7"


def test_the_same_rows_are_not_drawn_of_every_skill() -> None:
    twins = [made_skill("one", lines("x", 100)), made_skill("two", lines("x", 100))]
    mixed = ids(Replay(examples=20).data(OWN, twins, 0))
    assert set(mixed[10:30]) != set(mixed[30:])


def test_a_skill_that_was_taught_twice_is_replayed_once() -> None:
    assert len(Replay(examples=5).data(OWN, [EARLIER[0], EARLIER[1], EARLIER[0]], 0)) == 10 + 5 + 3


def test_the_first_stage_is_left_as_it_is() -> None:
    assert ids(Replay().data(OWN, [], 0)) == ids(OWN)


def sampled(examples: Sequence[Example]) -> list[str]:
    """The 8 of 40 examples that a limit takes."""
    return [examples[row].id for row in sample_rows(40, 8)]


def test_a_later_stage_replays_what_earlier_stages_were_taught_in_as_many_updates(tmp_path: Path) -> None:
    limit = {"examples": 8, "max_steps": None, "epochs": 2}
    first = stage(skill=made_skill("first", shades(40)), **limit)
    finetune(first, Ledger(str(tmp_path / "store")), TrainingPlacement())
    made = parts(
        stage(Replay(examples=20), parent=first, skill=made_skill("next", lines("next", 40)), **limit), tmp_path
    )
    assert made.trainer.args.max_steps == 4
    assert sorted(ids(made.context.examples)) == sorted(sampled(shades(40)) + sampled(lines("next", 40)))
    assert stage(Replay(), parent=BASE).key != stage(parent=BASE).key


def test_no_examples_at_all_is_refused() -> None:
    with pytest.raises(UserError, match=r"replay\.examples"):
        get_mitigation({"replay": {"examples": 0}})
