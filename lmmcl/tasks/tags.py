"""Tags that a sweep gives to its benchmarks: whether images and texts are like those of what is taught."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from lmmcl.errors import UserError, shown, unknown
from lmmcl.tasks.skills import Benchmark

SIDES = ("image", "text")
LIKE = ("id", "ood")
FORM = "{image: id|ood, text: id|ood}, whatever is taught, or {SKILL: {image: id|ood, text: id|ood}}"


def tagged(benchmark: Benchmark, tags: Any, skills: Collection[str]) -> Benchmark:
    """The benchmark with `tags` over its own; `skills` are those that the sweep teaches.

    Raises UserError, with the place in `tags`, for a side or skill that is not there, a value other than id and ood, and a
    side that is missing.
    """
    if not isinstance(tags, Mapping) or not tags:
        raise UserError(f"tags are {FORM}, not {shown(tags)}")
    nested = {name: tag for name, tag in tags.items() if isinstance(tag, Mapping)}
    flat = {name: tag for name, tag in tags.items() if name not in nested}
    for name, sides in nested.items():
        if name not in skills:
            raise UserError(unknown("skill", str(name), skills), place=str(name))
        _check_sides(sides, SIDES, f"{name}.")
    if flat:
        _check_sides(flat, (*SIDES, *skills), "")
    return replace(benchmark, tags={**benchmark.tags, **tags})


def _check_sides(sides: Mapping[str, Any], allowed: Collection[str], prefix: str) -> None:
    for side, like in sides.items():
        if side not in SIDES:
            raise UserError(unknown("side", str(side), allowed), place=f"{prefix}{side}")
        if like not in LIKE:
            raise UserError(unknown("likeness", str(like), LIKE), place=f"{prefix}{side}")
    if missing := [side for side in SIDES if side not in sides]:
        raise UserError(f"{missing[0]} is missing; tags are {FORM}", place=prefix.rstrip("."))
