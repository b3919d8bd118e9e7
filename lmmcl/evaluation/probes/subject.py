"""What a probe is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from transformers import PreTrainedModel, ProcessorMixin

from lmmcl.models.lmm import LMM


@dataclass
class Subject:
    """A loaded checkpoint of `lmm`. `load_base` loads the pre-trained model like it (device, precision).

    `batch_size` is how many questions are asked at once; it changes no finding beyond rounding.
    """

    lmm: LMM
    model: PreTrainedModel
    processor: ProcessorMixin
    load_base: Callable[[], PreTrainedModel]
    batch_size: int

    @cached_property
    def base(self) -> PreTrainedModel:
        """The pre-trained model: loaded when a probe first asks for it, once for all probes of the checkpoint."""
        return self.load_base()


@dataclass(frozen=True)
class Findings:
    """What a probe found: numbers by name (without the probe's own), and JSON values that they summarise."""

    values: Mapping[str, float]
    details: Mapping[str, Any] = field(default_factory=dict)


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean; raises ValueError for no values."""
    if not values:
        raise ValueError("a mean of nothing")
    return sum(values) / len(values)
