"""What checkpoints differ in from their base, in memory: a stage starts from the weights with which the last one ended.

The tensors of the checkpoints that this process came to last stay beside the resident base (see `lmmcl.weights.resident`). Loading
one of them, or one that continues it, reads no delta that is in them already. They are used for the files that they were made
from or written to alone: a checkpoint that was computed again, or lies in another store, has other checksums.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmmcl.ledger import Ledger
from lmmcl.ledger.record import WEIGHTS
from lmmcl.models.experts import grow, grown
from lmmcl.models.quantized.nf4 import nf4_layers, set_beside
from lmmcl.steps import Checkpoint
from lmmcl.weights.quantized_base import named_tensors
from lmmcl.weights.resident import SMALL_BYTES, has_room, release

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

MOST_STATES = 2
"""Checkpoints whose tensors stay: a trial's last one, and the one that another trial continues."""

Signature = tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """The tensors in which a checkpoint differs from its base in one precision, on the CPU; fast `digests` where they are known."""

    tensors: Mapping[str, Tensor]
    experts: tuple[str, ...]
    digests: Mapping[str, str]

    @classmethod
    def of(cls, model: PreTrainedModel, names: set[str], digests: Mapping[str, str]) -> Difference:
        """What `names` are in a model now. Nobody may write into them afterwards."""
        own = named_tensors(model)
        tensors = {name: own[name].detach().cpu() for name in names}
        return cls(tensors, tuple(grown(model)), {name: digests[name] for name in names if name in digests})

    @property
    def size(self) -> int:
        """Its bytes."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def lay(self, model: PreTrainedModel) -> None:
        """Turn the base into the checkpoint; on the CPU in the memory of this."""
        grow(model, self.experts)
        own = named_tensors(model)
        values = {name: value.to(own[name].device) for name, value in self.tensors.items()}
        beside = set(set_beside(nf4_layers(model), values))
        for name in values.keys() - beside:
            own[name].data = values[name]


_STATES: OrderedDict[tuple[Signature, str], Difference] = OrderedDict()
"""By the checksums of a chain's files and the precision; the least recently used first."""
_ended: list[tuple[str, str, Difference]] = []
"""The stage that ended last, by key and precision, until it is recorded."""


def signatures(step: Checkpoint, ledger: Ledger) -> list[Signature | None]:
    """Of `step` and each checkpoint on the way to it, the newest first: its base and the checksums of all files of weights that
    it is made from; None where a record lacks them."""
    checksums: list[tuple[str, ...] | None] = []
    at = step
    while at.parents:
        record = ledger.find(at)
        weights = sorted(name for name in record.files if name.endswith(WEIGHTS)) if record else []
        whole = record is not None and record.has_weights and bool(weights)
        checksums.append(tuple(str(record.files[name]["sha256"]) for name in weights) if record and whole else None)
        at = at.parents[0]
    result: list[Signature | None] = []
    for index in range(len(checksums)):
        parts = checksums[index:]
        complete = [part for part in parts if part is not None]
        result.append((at.key, *(one for part in complete for one in part)) if len(complete) == len(parts) else None)
    return result


def nearest(step: Checkpoint, ledger: Ledger, precision: str) -> tuple[int, Difference | None]:
    """The nearest checkpoint on the way to `step` whose tensors are in memory, and how many deltas lie above it."""
    for above, files in enumerate(signatures(step, ledger) if _STATES else ()):
        if files is not None and (files, precision) in _STATES:
            _STATES.move_to_end((files, precision))
            return above, _STATES[files, precision]
    return 0, None


def keep(step: Checkpoint, ledger: Ledger, precision: str, difference: Difference) -> None:
    """Let the tensors of a recorded checkpoint stay, where memory allows; the least recently used ones go."""
    files = next(iter(signatures(step, ledger)), None)
    if files is None or not (difference.size <= SMALL_BYTES or has_room(difference.size, "cpu")):
        return
    _STATES[files, precision] = difference
    _STATES.move_to_end((files, precision))
    while len(_STATES) > MOST_STATES:
        _STATES.popitem(last=False)


def stage_ended(key: str, precision: str, difference: Difference) -> None:
    """Remember what a stage ended with until it is recorded."""
    _ended[:] = [(key, precision, difference)]


def stage_recorded(step: Checkpoint, ledger: Ledger) -> None:
    """Let what a stage ended with stay, now that its files are known by their checksums."""
    for key, precision, difference in _ended:
        if key == step.key:
            keep(step, ledger, precision, difference)
    _ended.clear()


def forget_loaded() -> None:
    """Drop all that stays loaded, the pre-trained models too."""
    release()
    _STATES.clear()
    _ended.clear()
