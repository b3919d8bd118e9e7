"""The chain of deltas from the pre-trained model to a step; reading it opens only what is needed, tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.models.partition.fused import parse_key
from lmmcl.steps import Checkpoint
from lmmcl.weights.delta import (
    ADAPTED,
    DELTA,
    FORMATS,
    HEADER,
    ROUTED_FORMAT,
    CheckpointError,
    Delta,
    tensor_of,
)
from lmmcl.weights.lora import ADAPTER_WEIGHTS, FOLDER

if TYPE_CHECKING:
    from torch import Tensor


class Chain(Mapping[str, "Tensor"]):
    """All in which a checkpoint differs from its pre-trained model, newest first read lazily.

    As a mapping it holds what is stored as such: whole tensors by their names, slices by their keys, the newest of each. What
    adapters change is in `tensors`, `sources` and `value` besides.
    """

    def __init__(self, deltas: list[Delta]) -> None:
        self.deltas = deltas
        self._laid: dict[str, list[tuple[str, Delta]]] = {}
        """Of each tensor, what is laid over the pre-trained one, oldest first: itself, slices of it, adapters merged in."""
        for delta in reversed(deltas):  # oldest first
            for key in delta.keys:
                name = tensor_of(key)
                self._laid[name] = [*_still_seen(self._laid.get(name, []), key), (key, delta)]
        self._stored = {key: delta for laid in self._laid.values() for key, delta in laid if not key.endswith(ADAPTED)}

    def __getitem__(self, name: str) -> Tensor:
        return self._stored[name].tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter([key for name in sorted(self._laid) for key, _ in self._laid[name] if key in self._stored])

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def experts(self) -> list[str]:
        """Entries of the experts in this checkpoint (see `lmmcl.models.experts.grown`)."""
        return list(dict.fromkeys(name for delta in self.deltas for name in delta.experts))

    def spans(self, grown: Sequence[str] = ()) -> list[tuple[list[str], Chain]]:
        """The chain, oldest first, cut where a model gets experts: which, and what is laid over it then.

        An expert starts as a copy of its MLP as that is in the chain so far. Those of `grown` have one already.
        """
        spans: list[tuple[list[str], list[Delta]]] = [([], [])]
        seen: set[str] = set(grown)
        for delta in reversed(self.deltas):
            if new := [name for name in delta.experts if name not in seen]:
                spans.append((new, []))
                seen.update(new)
            spans[-1][1].insert(0, delta)
        return [(new, Chain(deltas)) for new, deltas in spans]

    def cut_at_other_precision(self, precision: str) -> tuple[Chain, Chain]:
        """The chain up to its newest adapter that was trained in another precision, and the rest.

        An adapter is merged in the precision of its stage: merged into weights that were rounded before, it gives others.
        """
        for index, delta in enumerate(self.deltas):  # newest first
            if delta.merged and delta.precision != precision:
                return Chain(self.deltas[index:]), Chain(self.deltas[:index])
        return Chain([]), self

    @property
    def tensors(self) -> set[str]:
        """Names of the tensors that differ, wholly or in a slice."""
        return set(self._laid)

    def laid(self, tensor: str) -> list[tuple[str, Delta]]:
        """What is laid over the pre-trained `tensor`, oldest first, and the deltas that hold it."""
        return self._laid.get(tensor, [])

    def sources(self, tensor: str) -> list[tuple[str, Path]]:
        """What is laid over the pre-trained `tensor`, oldest first: itself, slices, adapters; and the files that say so."""
        return [(key, delta.path) for key, delta in self.laid(tensor)]

    def value(self, tensor: str, base: Tensor) -> Tensor:
        """The newest value of a whole tensor, of the shape of `base`; `base` is its pre-trained value (left as it is).

        `base` is in the precision of the stages with adapters (see `cut_at_other_precision`).
        """
        value = base
        for key, delta in self.laid(tensor):
            _, part = parse_key(key)
            if key.endswith(ADAPTED):
                value = delta.merge(tensor, value)
            elif part is None:
                value = delta.tensor(key)
            else:
                value = value.clone()
                part.put(value, delta.tensor(key))
        return value


def _still_seen(laid: Sequence[tuple[str, Delta]], key: str) -> list[tuple[str, Delta]]:
    """What of `laid` still matters below `key`: nothing below a whole tensor, all below an adapter; of equal slices the newest."""
    if key.endswith(ADAPTED):
        return list(laid)
    if parse_key(key)[1] is None:
        return []
    adapters = [index for index, (old, _) in enumerate(laid) if old.endswith(ADAPTED)]
    merged = adapters[-1] + 1 if adapters else 0
    return [*laid[:merged], *((old, delta) for old, delta in laid[merged:] if old != key)]


@contextmanager
def tensors_of(step: Checkpoint, ledger: Ledger) -> Iterator[Chain]:
    """The tensors of `step` that differ from the pre-trained model, readable inside the `with`.

    Raises CheckpointError when a file is missing, truncated, or names another parent than the step does.
    """
    with ExitStack() as stack:
        deltas, at = [], step
        while at.parents:
            parent = at.parents[0]
            delta = _delta(at, ledger, stack)
            if delta.header["format"] == ROUTED_FORMAT:
                experts = at.parents[1 : 1 + delta.header["routed"]]
                several = len(experts) > 1
                raise UserError(
                    f"{at.label} answers every question with {f'one of {len(experts)} experts' if several else 'its expert'}, and "
                    f"has no weights of a single model; allowed: {'one of its experts' if several else 'that expert'}, "
                    f"{', '.join(expert.key for expert in experts)}",
                    file=at.path,
                )
            if delta.header.get("parent") != parent.key:
                raise CheckpointError(
                    f"is a child of {delta.header.get('parent')}, but {at.label} continues {parent.key}",
                    file=str(delta.path),
                )
            deltas.append(delta)
            at = parent
        yield Chain(deltas)


def _delta(step: Checkpoint, ledger: Ledger, stack: ExitStack) -> Delta:
    path = stack.enter_context(ledger.opened(step.path, DELTA))
    file = _open(path, stack)
    header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
    if header.get("format") not in FORMATS:
        raise CheckpointError(
            f"is not a delta of a supported version ({header.get('format')}, not {' or '.join(FORMATS)})",
            file=str(path),
        )
    adapter = None
    if "adapter" in header:
        adapter = _open(stack.enter_context(ledger.opened(f"{step.path}/{FOLDER}", ADAPTER_WEIGHTS)), stack)
    return Delta(path, header, frozenset(file.keys()), file, adapter)


def _open(path: Path, stack: ExitStack) -> Any:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError("no such file: these weights were removed or never written", file=str(path))
    try:
        return stack.enter_context(safe_open(path, framework="pt"))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"is not a complete safetensors file: {error}", file=str(path)) from error
