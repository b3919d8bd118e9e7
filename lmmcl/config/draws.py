"""Axes whose values a search draws: ranges and choices in the place of a list."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from lmmcl.config.settings import Settings

DIGITS = 3
"""Significant digits of a drawn number: names and keys stay readable, and nobody can tell finer rates apart."""


class Choice(Settings):
    """One of some values, left to the search. (Of values in a list, every one is a trial.)"""

    choice: Annotated[list[Any], Field(min_length=2)]

    @property
    def kind(self) -> str:
        """The key that was given."""
        return "choice"


class Draw(Settings):
    """Where a search finds the values of an axis: exactly one of the four."""

    log_uniform: tuple[float, float] | None = Field(
        default=None, description="[lowest, highest], even in the logarithm"
    )
    uniform: tuple[float, float] | None = Field(default=None, description="[lowest, highest]")
    int_uniform: tuple[int, int] | None = Field(default=None, description="[lowest, highest], whole numbers")
    choice: Annotated[list[Any], Field(min_length=2)] | None = None

    @model_validator(mode="after")
    def _one_that_can_be_drawn(self) -> Draw:
        named = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(f"needs exactly one of {', '.join(type(self).model_fields)}")
        if self.choice is None and self.low >= self.high:
            raise ValueError(f"{self.kind}: [lowest, highest], not [{self.low:g}, {self.high:g}]")
        if self.log_uniform is not None and self.low <= 0:
            raise ValueError(f"log_uniform: the lowest value must be greater than 0, not {self.low:g}")
        return self

    @property
    def kind(self) -> str:
        """The key that was given."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def low(self) -> float:
        """The lowest value of a range."""
        return self._range[0]

    @property
    def high(self) -> float:
        """The highest value of a range."""
        return self._range[1]

    @property
    def _range(self) -> tuple[float, float]:
        ends = self.log_uniform or self.uniform or self.int_uniform
        assert ends is not None, "a choice has no range"
        return ends

    def rounded(self, value: float) -> float:
        """A drawn number with few digits, still within the range."""
        if self.int_uniform is not None:
            return round(value)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)


def axis_of(values: Any, drawn: type[Draw] | type[Choice] = Draw) -> Any:
    """The type of an axis: a list of `values`, or what a search draws from. A refusal tells of the one that was meant."""

    def which(value: Any) -> str:
        return DRAWN if isinstance(value, Draw | Choice) or (isinstance(value, Mapping) and _draws(value)) else LISTED

    return Annotated[
        Annotated[values, BeforeValidator(_no_mapping), Tag(LISTED)] | Annotated[drawn, Tag(DRAWN)],
        Discriminator(which),
    ]


def _draws(mapping: Mapping[Any, Any]) -> bool:
    """Whether a mapping is meant as a draw: it is empty, or some key is (nearly) one of a draw."""
    return not mapping or any(difflib.get_close_matches(str(key), Draw.model_fields, n=1) for key in mapping)


def _no_mapping(value: Any) -> Any:
    if isinstance(value, Mapping):
        raise ValueError(f"every value is a list: `[…]`, here `[{{{next(iter(value))}: …}}]`")
    return value


LISTED, DRAWN = "<list>", "<draw>"
"""Parts of pydantic's places that stand in no file; `lmmcl.config.validation` leaves them out."""
