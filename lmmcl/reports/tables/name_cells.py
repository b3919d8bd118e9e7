"""A table's column of trial names: whole where there is room, else without the parts that all share, which its heading names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from lmmcl.config.trial_names import SEPARATOR, shared_parts, short_names
from lmmcl.masking import mask
from lmmcl.terminal import escape_controls

LEAST = 12
"""Characters below which a name is not squeezed for the sake of other columns."""


@dataclass(frozen=True)
class NameCell:
    """A cell that is drawn as `whole` where the column has `room` characters, else as `short`, which is folded and never cut."""

    whole: str
    short: str
    room: int

    @property
    def plain(self) -> str:
        """What is drawn where there is room."""
        return self.whole

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(max(LEAST, _longest_word(self.short)), len(self.whole)), max(len(self.whole), 1))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = self.whole if options.max_width >= self.room else self.short
        yield Text(text, overflow="fold")


def name_cells(names: Sequence[str], heading: str = "trial") -> tuple[NameCell, list[NameCell]]:
    """(heading, cells) of a column; names are not read as markup, and their control characters are escaped."""
    clean = [escape_controls(mask(name)) for name in names]
    room = max([len(heading), *map(len, clean)])
    shared, short = SEPARATOR.join(shared_parts(clean)), short_names(clean)
    head = NameCell(heading, f"{heading} (all: {shared})" if short != clean else heading, room)
    cells = [NameCell(*both, room) for both in zip(clean, short, strict=True)]
    return head, cells


def _longest_word(text: str) -> int:
    return max((len(word) for word in text.split()), default=1)
