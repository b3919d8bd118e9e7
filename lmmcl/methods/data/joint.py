"""Joint training: several skills as one, all taught in a single stage. The usual upper bound of a sequence of stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from lmmcl.methods.data.mixing import Mix
from lmmcl.tasks.examples import Example
from lmmcl.tasks.skills import Benchmark, Skill

NAME = "joint"


@dataclass(frozen=True)
class JointSkill(Skill):
    """The training examples of all `skills`; asked are the benchmarks of each."""

    skills: tuple[Skill, ...] = field(kw_only=True)

    @property
    def parts(self) -> tuple[Skill, ...]:
        return self.skills

    @property
    def benchmarks(self) -> tuple[Benchmark, ...]:
        return tuple(skill.benchmark for skill in self.skills)

    def identity(self) -> dict[str, Any]:
        """What of this enters a step's key."""
        return {**super().identity(), "skills": [skill.identity() for skill in self.skills]}

    def missing(self) -> str | None:
        return next((why for skill in self.skills if (why := skill.missing())), None)

    def notes(self) -> tuple[str, ...]:
        return tuple(note for skill in self.skills for note in skill.notes())

    def known_rows(self) -> int | None:
        rows = [skill.known_rows() for skill in self.skills]
        return None if None in rows else sum(count or 0 for count in rows)

    def sampling(self, count: int | None) -> dict[str, Any]:
        """As its skills': each gives its share of `count`."""
        return {name: value for skill in self.skills for name, value in skill.sampling(self._share(count)).items()}

    def take(self, count: int | None) -> Sequence[Example]:
        """An equal share of `count` examples from each skill, or all that it has where it has fewer."""
        return _together(self.skills, self._share(count))

    def _share(self, count: int | None) -> int | None:
        return None if count is None else count // len(self.skills)


def joint_skill(skills: Sequence[Skill]) -> JointSkill:
    """All of `skills` as one, whatever their order; one that is listed twice counts once."""
    named = {skill.name: skill for skill in skills}
    parts = tuple(named[name] for name in sorted(named))
    return JointSkill(
        name=NAME,
        version=1,
        load=partial(_together, parts, None),
        benchmark=parts[0].benchmark,
        description=f"{', '.join(skill.name for skill in parts)} at once",
        skills=parts,
    )


def _together(skills: Sequence[Skill], count: int | None) -> Mix:
    """`count` examples of each skill, one skill after the other; a stage shuffles them."""
    sources = [skill.take(count) for skill in skills]
    sizes = [len(source) for source in sources]
    which = np.repeat(np.arange(len(sources)), sizes)
    rows = np.concatenate([np.arange(size) for size in sizes])
    return Mix(sources, [skill.identity() for skill in skills], which, rows)
