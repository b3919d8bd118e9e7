"""Sequences that make an example when it is asked for: at a place, from the end, or in a slice, like any other sequence."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import numpy as np
import pytest

from lmmcl.methods.data.mixing import Mix
from lmmcl.tasks import get_skill
from lmmcl.tasks.examples import Example, Rows, ask
from lmmcl.tasks.sampling import Chosen
from lmmcl.tasks.synthetic.draw import Examples


class Numbered(Rows):
    """Examples called by their places; `broken` cannot be made, for want of something that is asked for by its number."""

    def __init__(self, total: int, broken: int | None = None) -> None:
        self.total, self.broken = total, broken
        self.made: list[int] = []

    def __len__(self) -> int:
        return self.total

    def row(self, index: int) -> Example:
        self.made.append(index)
        if index == self.broken:
            raise IndexError("no such picture in the archive")
        return ask(str(index), "What is it?", "red")


def names(examples: Sequence[Example]) -> list[str]:
    return [example.id for example in examples]


@pytest.mark.parametrize(
    "at", [slice(None), slice(2, 4), slice(-2, None), slice(None, None, -2), slice(4, 99), slice(9, 2)]
)
def test_a_slice_holds_what_that_of_a_list_does(at: slice) -> None:
    assert names(Numbered(6)[at]) == [str(index) for index in list(range(6))[at]]


def test_a_place_may_be_counted_from_the_end_and_be_of_numpy_s_type() -> None:
    rows = Numbered(6)
    assert (rows[-1].id, rows[-6].id, rows[np.int64(3)].id) == ("5", "0", "3")
    assert rows.made == [5, 0, 3]


@pytest.mark.parametrize("at", [6, -7])
def test_a_place_that_is_not_there_is_told_with_how_many_there_are(at: int) -> None:
    with pytest.raises(IndexError, match=f"there are 6 examples, none at {at}"):
        Numbered(6)[at]


def test_a_broken_row_is_not_taken_for_the_end() -> None:
    with pytest.raises(IndexError, match="no such picture"):
        list(Numbered(6, broken=3))


def test_only_what_is_asked_for_is_made() -> None:
    rows = Numbered(6)
    assert names(Chosen(rows, [1, 4, 5])[1:]) == ["4", "5"] and len(Chosen(rows, [1, 4, 5])) == 3
    assert rows.made == [4, 5]
    with pytest.raises(IndexError):
        Chosen(rows, [1, 4, 5])[3]


def test_a_mix_of_sources_is_such_a_sequence() -> None:
    mix = Mix([Numbered(3), Numbered(9)], [None, {"name": "other"}], np.array([0, 1, 1]), np.array([2, 8, 0]))
    assert names(mix) == ["2", "8", "0"] and names(mix[::-1]) == ["0", "8", "2"]
    assert mix[-2].id == "8"


def test_they_are_sent_to_other_processes() -> None:
    drawn = get_skill("counting").benchmark.load()
    assert isinstance(drawn, Examples)
    mix = Mix([Chosen(drawn, range(5, 10)), drawn], [None, None], np.array([1, 0]), np.array([7, 4]))
    sent = pickle.loads(pickle.dumps(mix))
    assert list(sent) == list(mix) == [drawn[7], drawn[9]]
    assert pickle.loads(pickle.dumps(drawn))[1:3] == drawn[1:3]
