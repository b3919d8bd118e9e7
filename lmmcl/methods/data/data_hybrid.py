"""Data-hybrid training: a share of every stage is diverse data of another kind.

"Fine-tuning MLLMs Without Forgetting Is Easier Than You Think" (arXiv 2603.14493), data-hybrid training: target and diverse
data are interleaved with probabilities [1 − r, r] until all sources are exhausted, the smaller ones starting over, and the number
of updates is that of the stage without the mix, so that compute is constant. In the paper the diverse data is LLaVA-665K; for
the embedded model it is the skill `general`.

As in the paper's training the interleaved data is then shuffled as a whole: a stage shorter than it sees a random part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, field_validator

from lmmcl.errors import UserError
from lmmcl.methods.data.mixing import Mix, Sources
from lmmcl.methods.mitigation import TrainingMitigation
from lmmcl.tasks import get_skill
from lmmcl.tasks.examples import Example
from lmmcl.tasks.skills import Skill

_CHUNK = 4096
_STREAM = 7
"""Keeps these draws apart from others of the same seed."""


def interleave(
    sizes: Sequence[int], shares: Sequence[float], seed: int
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """(source, row) of each draw: sources by their `shares`, rows of each in order and from the start again at its end.

    Ends with the draw by which every source has been exhausted at least once.
    """
    rng = np.random.default_rng([seed, _STREAM])
    chunks: list[NDArray[np.integer]] = []
    counts = np.zeros(len(sizes), np.int64)
    while (counts < sizes).any():
        chunks.append(rng.choice(len(sizes), size=_CHUNK, p=np.asarray(shares)).astype(np.int16))
        counts += np.bincount(chunks[-1], minlength=len(sizes))
    which = np.concatenate(chunks)
    which = which[: max(int(np.flatnonzero(which == s)[size - 1]) for s, size in enumerate(sizes)) + 1]
    rows = np.empty(len(which), np.int64)
    for source, size in enumerate(sizes):
        at = np.flatnonzero(which == source)
        rows[at] = np.arange(len(at)) % size
    return which, rows


class DataHybrid(TrainingMitigation[None]):
    """Mixes diverse data into every stage: an example is of `auxiliary` with probability `ratio`, compute stays the same."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "data_hybrid"
    version: ClassVar[int] = 1

    ratio: float = Field(
        default=0.5, gt=0, lt=1, description="r, the share of diverse data; several sources share it evenly"
    )
    auxiliary: Sources = Field(
        default_factory=lambda: (get_skill("general"),),
        min_length=1,
        description="names of skills, or local files as {train: file, images: folder} relative to the sweep file",
    )

    @field_validator("auxiliary")
    @classmethod
    def _all_different(cls, sources: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [source.name for source in sources]
        if len(set(names)) < len(names):
            raise ValueError("a source is listed twice")
        return sources

    @property
    def label(self) -> str:
        """`data_hybrid(ratio=0.5)`, the ratio always; other sources than `general` by their names."""
        names = "+".join(source.name for source in self.auxiliary)
        shown = [f"auxiliary={names}"] if names != "general" else []
        return f"{self.name}({','.join([*shown, f'ratio={self.ratio:g}'])})"

    def data(self, examples: Sequence[Example], earlier: Sequence[Skill], seed: int) -> Sequence[Example]:
        """The stage's examples and the diverse ones, interleaved."""
        sources = [examples, *(source.load() for source in self.auxiliary)]
        for source, loaded in zip(self.auxiliary, sources[1:], strict=True):
            if not loaded:
                raise UserError(f"{source.name} has no training examples", place="data_hybrid.auxiliary")
        share = self.ratio / len(self.auxiliary)
        which, rows = interleave(
            [len(source) for source in sources], [1 - self.ratio, *[share] * len(self.auxiliary)], seed
        )
        return Mix(sources, [None, *(source.identity() for source in self.auxiliary)], which, rows)


MITIGATIONS = (DataHybrid,)
