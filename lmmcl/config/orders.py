"""Orders of skills: listed, drawn at random with a seed, and the bounds that they are measured against."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from lmmcl.config.data_entries import Name
from lmmcl.config.draws import DRAWN, LISTED
from lmmcl.config.settings import Settings
from lmmcl.config.validation import join
from lmmcl.errors import UserError, shown
from lmmcl.methods.data.joint import joint_skill
from lmmcl.tasks.skills import Skill


class DrawnOrders(Settings):
    """Several orders of the same skills, drawn at random; all are different, and more of them keep the first ones."""

    random: int = Field(ge=1, description="how many orders, named NAME-1, NAME-2, …")
    of: Annotated[list[Name], Field(min_length=2)] = Field(description="the skills")
    seed: int = Field(default=0, ge=0, description="of the draw")

    @model_validator(mode="after")
    def _there_are_as_many(self) -> DrawnOrders:
        if len(set(self.of)) < len(self.of):
            raise ValueError("of: a skill is listed twice")
        if self.random > (most := math.factorial(len(self.of))):
            raise ValueError(f"random: {len(self.of)} skills have {most} orders, not {self.random}")
        return self

    def draw(self) -> list[list[str]]:
        """The orders; made of `random.random` alone, the one number that Python promises to draw alike in all versions."""
        dice = random.Random(self.seed).random
        orders: list[list[str]] = []
        while len(orders) < self.random:
            order = list(self.of)
            for place in range(len(order) - 1):
                other = place + int(dice() * (len(order) - place))
                order[place], order[other] = order[other], order[place]
            if order not in orders:
                orders.append(order)
        return orders


def _kind(value: Any) -> str:
    return DRAWN if isinstance(value, Mapping | DrawnOrders) else LISTED


OrderEntry = Annotated[
    Annotated[list[Name], Field(min_length=1), Tag(LISTED)] | Annotated[DrawnOrders, Tag(DRAWN)], Discriminator(_kind)
]
"""The skills in their order, or {random: N, of: [skills], seed: 0}."""
Bound = Literal["joint", "alone"]


def named_orders(entries: Mapping[str, Any], file: str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """(names of skills by order, names of orders by entry): an entry that draws stands for several orders.

    Raises UserError where a drawn order would have the name of another.
    """
    orders: dict[str, list[str]] = {}
    groups: dict[str, list[str]] = {}
    for name, entry in entries.items():
        drawn = entry.draw() if isinstance(entry, DrawnOrders) else [entry]
        names = (
            [f"{name}-{number}" for number in range(1, len(drawn) + 1)] if isinstance(entry, DrawnOrders) else [name]
        )
        for order_name, skills in zip(names, drawn, strict=True):
            if order_name in orders or (order_name != name and order_name in entries):
                why = f"would draw an order called {shown(order_name)}, which is another's name; rename one"
                raise UserError(why, file=file, place=join("orders", name))
            orders[order_name] = skills
        groups[name] = names
    return orders, groups


def bound_orders(orders: Mapping[str, tuple[Skill, ...]], bounds: Sequence[Bound]) -> dict[str, tuple[Skill, ...]]:
    """By name, what `bounds` teach beside the orders: all skills at once, and each from the base alone."""
    bounding: dict[str, tuple[Skill, ...]] = {}
    if "joint" in bounds:
        sets = {tuple(sorted(skill.name for skill in skills)): skills for skills in orders.values()}
        several = [skills for names, skills in sets.items() if len(set(names)) > 1]
        for number, skills in enumerate(several, start=1):
            bounding["joint" if len(several) == 1 else f"joint-{number}"] = (joint_skill(skills),)
    if "alone" in bounds:
        for skills in orders.values():
            for skill in skills:
                bounding.setdefault(f"alone-{skill.name}", (skill,))
    return bounding


def bounds_of(listed: Sequence[tuple[Skill, ...]], bounds: Mapping[str, tuple[Skill, ...]]) -> list[str]:
    """The names of the bounds that stand above or below some `listed` orders."""
    sets = [{skill.name for skill in skills} for skills in listed]
    taught = set[str]().union(*sets)
    names = {name: {part.name for part in skills[0].parts} for name, skills in bounds.items()}
    return [name for name, own in names.items() if own in sets or (len(own) == 1 and own <= taught)]
