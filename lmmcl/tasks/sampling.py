"""Which rows a limit takes: a fixed sample, the same for all trials and on every machine.

Data often come sorted, by answer or by source, so the first N rows may hold one answer only. A sample depends on the number of
rows and on N alone; a larger N adds rows to those of a smaller one. Examples that are drawn independently of each other
(`random_order`) are a sample as they come, so the first N are taken, and the keys of such data say nothing of sampling.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from lmmcl.tasks.examples import Example, Rows

SAMPLING = 2
"""Raised when a limit takes other rows. 1 took the first ones; it is what keys without this number mean."""
_SEED = 20510


@dataclass(frozen=True)
class Chosen(Rows):
    """Some rows of a sequence; none is read before it is asked for."""

    examples: Sequence[Example]
    rows: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> Example:
        return self.examples[self.rows[index]]

    def origin(self, index: int) -> int:
        return self.rows[index]


def sample_rows(total: int, count: int) -> list[int]:
    """`count` of `total` rows (all where there are fewer), in their order."""
    return sorted(_shuffled(total, count))


def spread_rows(groups: Sequence[object], count: int) -> list[int]:
    """`count` rows, as evenly as can be from each group, in their order; `groups` names the group of each row.

    A group with fewer rows than its share gives all of them, and the others make up for it.
    """
    members: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(str(group), []).append(row)
    queues = [[rows[at] for at in _shuffled(len(rows), count)] for _, rows in sorted(members.items())]
    turns = (queue[turn] for turn in range(count) for queue in queues if turn < len(queue))
    return sorted(row for row, _ in zip(turns, range(count), strict=False))


def _shuffled(total: int, count: int) -> list[int]:
    """The first `count` of a fixed shuffle of `total` rows.

    Made of `random.random` alone, the one number that Python promises to draw alike in all versions.
    """
    draw = random.Random(_SEED).random
    moved: dict[int, int] = {}
    drawn = []
    for place in range(min(count, total)):
        other = place + int(draw() * (total - place))
        drawn.append(moved.get(other, other))
        moved[other] = moved.get(place, place)
    return drawn
