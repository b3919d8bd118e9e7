"""The rows of each update in the order of their lengths: micro-batches of like rows have little padding.

An update is learnt from the same rows as before, and its loss is a mean over all its answer tokens, so its gradient is the
same to rounding however it is cut. The order follows from the rows alone: a resumed stage and any number of workers have it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

KEPT = 4
"""Updates whose order is kept: batches are read one after another."""


@dataclass(frozen=True)
class LengthOrder:
    """`rows` in training order, `size` to an update, the longest of each update first: memory that is enough for the
    first batch is enough for the others. `length` estimates a row's tokens."""

    rows: Sequence[int]
    size: int
    length: Callable[[int], int]
    _sorted: OrderedDict[int, list[int]] = field(default_factory=OrderedDict)

    def __getitem__(self, position: int) -> int:
        """The row that is read at a position."""
        update, place = divmod(position, self.size)
        return self._of(update)[place]

    def _of(self, update: int) -> list[int]:
        if update not in self._sorted:
            own = self.rows[update * self.size : (update + 1) * self.size]
            self._sorted[update] = sorted(own, key=lambda row: -self.length(row))  # stable: of equal ones the first
            while len(self._sorted) > KEPT:
                self._sorted.popitem(last=False)
        return self._sorted[update]
