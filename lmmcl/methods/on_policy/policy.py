"""The model as it is at one update, as a mitigation samples from it: what a stage offers (see `lmmcl.training.stage.rollouts`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from lmmcl.tasks.examples import Example


@dataclass(frozen=True)
class Sample:
    """One answer that the model sampled to the question of a row: its tokens, the end of the turn with them, and what they say."""

    row: int
    tokens: tuple[int, ...]
    text: str


class Policy(Protocol):
    """The model that trains, with the rows of a batch: sampled from, read with a gradient, and read as it was or is shown more."""

    model: PreTrainedModel
    rows: Sequence[int]
    update: int
    """Updates made so far."""
    updates: int
    """Of the whole stage."""

    def sample(self, count: int, temperature: float, max_new_tokens: int | None) -> list[Sample]:
        """`count` answers to the question of each row, row after row; at most `max_new_tokens`, by default the benchmark's."""

    def logits(self, samples: Sequence[Sample]) -> Tensor:
        """What predicts the tokens of all samples, one after another: (tokens, vocabulary) in fp32, with a gradient."""

    def other_logits(
        self,
        samples: Sequence[Sample],
        *,
        weights: Mapping[str, Tensor] | None = None,
        prompt: Callable[[Example], Example] | None = None,
        prompt_name: str = "",
    ) -> Tensor:
        """The same without gradient: of the model with other trained `weights`, or with another `prompt` before the samples.

        `prompt_name` names the other prompt among encodings that are kept.
        """

    def reward(self, sample: Sample) -> float:
        """The score of a sample by the metric of the stage's benchmark, from 0 to 1."""
