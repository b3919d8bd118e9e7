"""Replay: a few examples of every skill that was taught before are taught again.

As in the continual-learning comparison of "Fine-tuning MLLMs Without Forgetting Is Easier Than You Think"
(arXiv 2603.14493): 20 random examples of each earlier skill. They are drawn from the examples that the skill was taught with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import ConfigDict, Field

from lmmcl.methods.data.mixing import Mix
from lmmcl.methods.mitigation import TrainingMitigation
from lmmcl.tasks.examples import Example
from lmmcl.tasks.skills import Skill

_STREAM = 11
"""Keeps these draws apart from others of the same seed."""


class Replay(TrainingMitigation[None]):
    """Adds `examples` random examples of each earlier skill to a stage's own; the number of updates stays the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str] = "replay"
    version: ClassVar[int] = 1

    examples: int = Field(
        default=20, ge=1, description="of each earlier skill, without repetition; all where it has fewer"
    )

    def data(self, examples: Sequence[Example], earlier: Sequence[Skill], seed: int) -> Sequence[Example]:
        """The stage's own examples, then those replayed, skill by skill; a skill taught twice is replayed once."""
        skills = {skill.name: skill for skill in earlier}
        sources = [examples, *(skill.load() for skill in skills.values())]
        chosen = [np.arange(len(examples))]
        for number, source in enumerate(sources[1:], start=1):
            rng = np.random.default_rng([seed, _STREAM, number])
            chosen.append(rng.permutation(len(source))[: self.examples])
        which = np.repeat(np.arange(len(sources)), [len(rows) for rows in chosen])
        identities = [None, *(skill.identity() for skill in skills.values())]
        return Mix(sources, identities, which, np.concatenate(chosen))


MITIGATIONS = (Replay,)
