"""What a training mitigation may see of a stage before the first update."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from lmmcl.tasks.examples import Example
    from lmmcl.tasks.skills import Skill


@dataclass
class StageContext:
    """What a training mitigation may see before the first update.

    `model` is the one that will train, on the device it trains on, still with the weights its stage starts from (copy
    what must be kept); `trained` names its trained parameters; `examples` are this stage's, `earlier` the skills taught
    before it, oldest first; `collate` makes a padded CPU batch with labels of any examples.

    `rows` are the rows of `examples` in the order in which all workers train on them, and `batch_of` makes a padded CPU
    batch of some of them; `batch_size` examples at a time fit the device. `forward` gives the model's outputs on such a
    batch, on the model's device and in the arithmetic of the training. There is no loss, and `logits` are those of the last
    columns of the labels, from the one that predicts the first answer token on.
    """

    model: PreTrainedModel
    trained: Sequence[str]
    examples: Sequence[Example]
    earlier: Sequence[Skill]
    collate: Callable[[Sequence[Example]], dict[str, Tensor]]
    seed: int
    rows: Sequence[int]
    batch_of: Callable[[Sequence[int]], dict[str, Tensor]]
    batch_size: int
    forward: Callable[[Mapping[str, Tensor]], Any]
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    """The arithmetic of the training, for what is computed beside `forward`."""
    is_divided: bool = False
    """Whether the strategy will divide the weights among the workers: then each has but parts of them while it trains."""
    earlier_adapters: Callable[[], Sequence[Mapping[str, Tensor]]] = list
    """The LoRA adapters of the stages before, oldest first: on the CPU, by the names that a fresh one has in `trained`."""
