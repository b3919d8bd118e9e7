"""Weights of a step: a file of only the tensors that changed against its parent, and the chain of such files.

A delta (`delta.safetensors`) names tensors as they are named in memory (`named_parameters()`), never by the keys of a
saved model, and says in its header whose child it is and which base it belongs to. Reading a chain opens only what is
needed, tensor by tensor.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.models.partition.fused import parse_key
from lmmcl.steps import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

DELTA = "delta.safetensors"
HEADER = "lmmcl"
FORMAT = "lmmcl-delta-1"


class CheckpointError(UserError):
    """Stored weights that cannot be used: missing, truncated, or of another parent or base than the step says."""


def save_delta(
    folder: Path, tensors: Mapping[str, Tensor], *, parent_key: str, base_digest: str, experts: Sequence[str] = ()
) -> int:
    """Write `delta.safetensors` with `tensors` (any shapes and dtypes, on any device); returns its size in bytes.

    `experts` are the MLPs with two experts of the model that the tensors belong to (see `lmmcl.models.experts`).
    """
    from safetensors.torch import save_file

    path = folder / DELTA
    metadata = delta_metadata(parent_key, base_digest, experts)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    return path.stat().st_size


def delta_metadata(parent_key: str, base_digest: str, experts: Sequence[str] = ()) -> dict[str, str]:
    """What the header of a delta file says. One entry: safetensors writes several in an order that changes from run to run."""
    header: dict[str, Any] = {"format": FORMAT, "parent": parent_key, "base_digest": base_digest}
    return {HEADER: json.dumps({**header, "experts": list(experts)} if experts else header)}


@dataclass(frozen=True)
class Delta:
    """One open delta file: its header and its tensors, read when asked for."""

    path: Path
    header: Mapping[str, Any]
    names: frozenset[str]
    file: Any

    @property
    def experts(self) -> list[str]:
        """MLPs that have two experts in the model that this belongs to."""
        return self.header.get("experts", [])

    def tensor(self, name: str) -> Tensor:
        """The tensor called `name`; raises CheckpointError when it cannot be read."""
        from safetensors import SafetensorError

        try:
            return self.file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"tensor {name!r} cannot be read: {error}", file=str(self.path)) from error


class Chain(Mapping[str, "Tensor"]):
    """All tensors in which a checkpoint differs from its pre-trained model, newest value of each; read lazily."""

    def __init__(self, deltas: list[Delta]) -> None:
        self.deltas = deltas
        self._keys: dict[str, list[str]] = {}
        """Of each tensor, what is laid over the pre-trained one, oldest first: itself, or slices of it."""
        self._newest: dict[str, Delta] = {}
        for delta in reversed(deltas):  # oldest first
            for key in delta.names:
                name, part = parse_key(key)
                before = [old for old in self._keys.get(name, []) if part and old != key]
                self._keys[name] = [*before, key]
                self._newest[key] = delta

    def __getitem__(self, name: str) -> Tensor:
        return self._newest[name].tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter([key for name in sorted(self._keys) for key in self._keys[name]])

    def __len__(self) -> int:
        return sum(map(len, self._keys.values()))

    @property
    def experts(self) -> list[str]:
        """MLPs that have two experts in this checkpoint."""
        return list(dict.fromkeys(name for delta in self.deltas for name in delta.experts))

    def spans(self) -> list[tuple[list[str], Chain]]:
        """The chain, oldest first, cut where MLPs get a second expert: which do, and what is laid over the model then.

        An expert starts as a copy of its MLP as that is in the chain so far.
        """
        spans: list[tuple[list[str], list[Delta]]] = [([], [])]
        seen: set[str] = set()
        for delta in reversed(self.deltas):
            if new := [name for name in delta.experts if name not in seen]:
                spans.append((new, []))
                seen.update(new)
            spans[-1][1].insert(0, delta)
        return [(new, Chain(deltas)) for new, deltas in spans]

    def source(self, name: str) -> Path | None:
        """The file that holds the newest value of `name`; None where the pre-trained one still stands."""
        return self._newest[name].path if name in self._newest else None

    @property
    def tensors(self) -> set[str]:
        """Names of the tensors that it holds, wholly or a slice of them."""
        return set(self._keys)

    def sources(self, tensor: str) -> list[tuple[str, Path]]:
        """What is laid over the pre-trained `tensor`, oldest first: itself or slices of it, and the files that hold them."""
        return [(key, self._newest[key].path) for key in self._keys.get(tensor, [])]

    def value(self, tensor: str, base: Tensor) -> Tensor:
        """The newest value of a whole tensor; `base` is its pre-trained value (left as it is)."""
        value = base
        for key, _ in self.sources(tensor):
            _, part = parse_key(key)
            if part is None:
                value = self[key]
            else:
                value = value.clone()
                part.put(value, self[key])
        return value


@contextmanager
def tensors_of(step: Checkpoint, ledger: Ledger) -> Iterator[Chain]:
    """The tensors of `step` that differ from the pre-trained model, readable inside the `with`.

    Raises CheckpointError when a file is missing, truncated, or names another parent than the step does.
    """
    with ExitStack() as stack:
        deltas, at = [], step
        while at.parents:
            parent = at.parents[0]
            delta = _open(stack.enter_context(ledger.opened(at.path, DELTA)), stack)
            if delta.header.get("parent") != parent.key:
                raise CheckpointError(
                    f"is a child of {delta.header.get('parent')}, but {at.label} continues {parent.key}",
                    file=str(delta.path),
                )
            deltas.append(delta)
            at = parent
        yield Chain(deltas)


def _open(path: Path, stack: ExitStack) -> Delta:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError("no such file: these weights were removed or never written", file=str(path))
    try:
        file = stack.enter_context(safe_open(path, framework="pt"))
        header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
        names = frozenset(file.keys())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"is not a complete safetensors file: {error}", file=str(path)) from error
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"is not a delta of a supported version ({header.get('format')}, not {FORMAT})", file=str(path)
        )
    return Delta(path, header, names, file)
