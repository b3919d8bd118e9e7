"""What reaches a linear layer: second moments of its inputs over calibration examples, taken with hooks, a layer at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lmmcl.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Linear
    from transformers import PreTrainedModel

    from lmmcl.models.lmm import LMM
    from lmmcl.tasks.examples import Example
    from lmmcl.tasks.skills import Skill

BATCH = 16


def calibration_examples(skills: Sequence[Skill], seen: Sequence[int | None], samples: int) -> list[Example]:
    """`samples` examples, spread evenly over the skills and over the `seen` examples that each was taught with."""
    chosen: list[Example] = []
    for number, skill in enumerate(skills):
        examples = skill.take(seen[number])
        total = len(examples)
        count = min(total, samples * (number + 1) // len(skills) - samples * number // len(skills))
        chosen += [examples[i * total // count] for i in range(count)]
    return chosen


def calibration_batches(lmm: LMM, examples: Sequence[Example]) -> list[dict[str, Tensor]]:
    """The examples with their answers as padded CPU batches for `model(**batch)`, (batch, length) each."""
    from lmmcl.models.processing.encode import encode
    from lmmcl.models.processing.padding import pad

    processor = lmm.load_processor()
    encoded = [encode(processor, example, with_answer=True) for example in examples]
    for one in encoded:
        del one["labels"]
    return [pad(processor, encoded[start : start + BATCH]) for start in range(0, len(encoded), BATCH)]


class Inputs:
    """Runs a model over calibration batches and looks at what its linear layers are given."""

    def __init__(self, model: PreTrainedModel, batches: Sequence[dict[str, Tensor]], device: str) -> None:
        self._model, self._device = model, device
        self._batches = [{key: self._moved(value) for key, value in batch.items()} for batch in batches]
        self._calls: dict[str, int] = {}

    def groups(self, layers: Mapping[str, Linear]) -> list[list[str]]:
        """The names of `layers` in the order in which they run; those that are given the same tensor together.

        Raises UserError when a layer does not run at all.
        """
        groups: list[list[str]] = []
        latest: list[Any] = [None]
        self._calls = dict.fromkeys(layers, 0)

        def note(name: str, tensor: Tensor) -> None:
            self._calls[name] += 1
            if self._calls[name] > 1:
                return
            if tensor is latest[0]:
                groups[-1].append(name)
            else:
                groups.append([name])
            latest[0] = tensor

        self._run(layers, note, self._batches[:1])
        idle = sorted(name for name, calls in self._calls.items() if not calls)
        if idle:
            raise UserError(
                f"no calibration example reaches {idle[0]} ({len(idle)} such layers), so it cannot be patched"
            )
        return groups

    def hessian(self, name: str, layer: Linear, *, padded: bool) -> Tensor:
        """(2/N)·Σ x·xᵀ over the N positions of all batches, fp64; shape (inputs, inputs).

        `padded`: the positions are those of the tokens, and padding is not counted.
        """
        import torch

        size = layer.in_features
        total = torch.zeros(size, size, dtype=torch.float64, device=layer.weight.device)
        positions = 0
        batch: dict[str, Tensor] = {}

        def add(_: str, tensor: Tensor) -> None:
            nonlocal positions
            x = tensor.detach()
            tokens = batch["attention_mask"].bool()
            x = x[tokens] if padded and x.shape[:2] == tokens.shape else x.reshape(-1, size)
            total.add_((x.float().T @ x.float()).double())
            positions += len(x)
            if self._calls.get(name) == 1:
                raise _Seen  # what comes after this layer need not be computed

        for batch in self._batches:
            self._run({name: layer}, add, [batch])
        return total * (2 / positions)

    def _run(self, layers: Mapping[str, Linear], look: Any, batches: Sequence[dict[str, Tensor]]) -> None:
        import torch

        handles = [
            layer.register_forward_pre_hook(lambda _, inputs, name=name: look(name, inputs[0]))
            for name, layer in layers.items()
        ]
        try:
            with torch.no_grad():
                for batch in batches:
                    try:
                        self._model(**batch, use_cache=False)
                    except _Seen:
                        continue
        finally:
            for handle in handles:
                handle.remove()

    def _moved(self, value: Tensor) -> Tensor:
        moved = value.to(self._device)
        return moved.to(self._model.dtype) if moved.is_floating_point() else moved


class _Seen(Exception):
    """Ends a forward pass early."""
