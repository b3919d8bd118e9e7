"""Tensors that hold several parts at once: which rows (or columns) are the gate's, the queries', …

A recipe that wants one part of such a tensor trains that slice alone. The layout follows from the class of the module: halves
(`gate_up_proj`), alternating columns (GPT-OSS), rows of each head in turn (Persimmon). Where it is not known, or parts cannot
be told apart (the latent of multi-head latent attention), the tensor trains whole or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmmcl.models.roles import check_whole, resolve, selects, split_role

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """Entries of a tensor along `dim` whose index, modulo `period`, lies in `start` … `start + width`."""

    dim: int
    period: int
    start: int
    width: int

    def size(self, shape: tuple[int, ...]) -> int:
        """How many entries of a tensor of `shape` belong to it."""
        total = 1
        for length in shape:
            total *= length
        return total // shape[self.dim] * self.length(shape[self.dim])

    def length(self, entries: int) -> int:
        """How many of `size` entries along `dim` belong to it."""
        return entries // self.period * self.width

    def mask(self, entries: int) -> Tensor:
        """Which of `entries` along `dim` belong to it: (entries,) booleans."""
        import torch

        at = torch.arange(entries) % self.period
        return (at >= self.start) & (at < self.start + self.width)


_KEY = re.compile(r"(?P<name>[^\[]+)\[(?P<dim>\d+):(?P<pieces>[\d+/;]+)\]")


@dataclass(frozen=True)
class Slice:
    """Some pieces of one tensor, all along one dimension: what trains of it, or what does not."""

    pieces: tuple[Piece, ...]

    @property
    def dim(self) -> int:
        """The dimension along which the tensor is divided."""
        return self.pieces[0].dim

    def size(self, shape: tuple[int, ...]) -> int:
        """How many entries of a tensor of `shape` belong to it."""
        return sum(piece.size(shape) for piece in self.pieces)

    def index(self, tensor: Tensor) -> Tensor:
        """The positions (k,) along `dim` that belong to it, in order."""
        import torch

        mask = torch.zeros(tensor.shape[self.dim], dtype=torch.bool)
        for piece in self.pieces:
            mask |= piece.mask(tensor.shape[self.dim])
        return mask.nonzero().flatten().to(tensor.device)

    def take(self, tensor: Tensor) -> Tensor:
        """Its entries of `tensor`, as a tensor of their own: that shape, with k along `dim`."""
        return tensor.index_select(self.dim, self.index(tensor))

    def put(self, tensor: Tensor, value: Tensor) -> None:
        """Set its entries of `tensor` to `value` (of the shape that `take` returns), in place."""
        tensor.index_copy_(self.dim, self.index(tensor), value.to(tensor))

    def key(self, name: str) -> str:
        """What a delta calls it, where `name` is the tensor's: `….gate_up_proj.weight[0:0+96/192]`."""
        pieces = ";".join(f"{piece.start}+{piece.width}/{piece.period}" for piece in self.pieces)
        return f"{name}[{self.dim}:{pieces}]"


def parse_key(key: str) -> tuple[str, Slice | None]:
    """The tensor's name and the slice that `Slice.key` made a key of; a plain name has none."""
    match = _KEY.fullmatch(key)
    if match is None:
        return key, None
    numbers = [tuple(map(int, re.split(r"[+/]", text))) for text in match["pieces"].split(";")]
    dim = int(match["dim"])
    return match["name"], Slice(tuple(Piece(dim, period, start, width) for start, width, period in numbers))


Layout = Mapping[str, Piece]
"""Of a fused tensor: the piece of each part, by the part's own role."""


def fused_layouts(model: Any, roles: Mapping[str, str]) -> dict[str, Layout]:
    """The layout of each parameter of `model` whose role joins several parts, by its name; unknown ones are left out."""
    layouts: dict[str, Layout] = {}
    for name, role in roles.items():
        parts = split_role(role)
        if len(parts) == 1:
            continue
        above, _, attribute = name.rpartition(".")
        module, owner = model.get_submodule(above), above.rpartition(".")[0]
        tensor = getattr(module, attribute)
        # a layer's weight and bias belong to the module above it, an expert's stacked tensors to their own
        holder = model.get_submodule(owner) if attribute in ("weight", "bias") else module
        pieces = _gate_up(holder, attribute, tensor) if "gate+up" in role else _by_class(holder, tensor.shape[0])
        if pieces and len(pieces) == len(parts):
            layouts[name] = dict(zip(parts, pieces, strict=True))
    return layouts


def select_slices(
    model: Any, roles: Mapping[str, str], selectors: Iterable[str], *, name: str
) -> dict[str, tuple[Slice, Slice]]:
    """For each fused tensor with some parts covered by `selectors`: (the slice of those, the slice of the others), by name.

    Raises UserError for one whose parts cannot be told apart. `name` is the model's.
    """
    resolved = [resolve(selector, roles.values(), model=name) for selector in selectors]
    partly: dict[str, set[str]] = {}
    for tensor, role in roles.items():
        parts = split_role(role)
        chosen = {part for part in parts if any(selects(selector, part) for selector in resolved)}
        if chosen and len(chosen) < len(parts):
            partly[tensor] = chosen
    layouts = fused_layouts(model, {tensor: roles[tensor] for tensor in partly})
    slices = {}
    for tensor, chosen in partly.items():
        if tensor not in layouts:
            check_whole(selectors, [roles[tensor]], model=name)
        layout = layouts[tensor]
        inside = tuple(piece for role, piece in layout.items() if role in chosen)
        outside = tuple(piece for role, piece in layout.items() if role not in chosen)
        slices[tensor] = (Slice(inside), Slice(outside))
    return slices


def _gate_up(holder: Any, attribute: str, tensor: Any) -> list[Piece]:
    """Gate and up: halves of the outputs, the gate first; transformers' expert classes say where theirs differ."""
    dim = 0 if attribute in ("weight", "bias") else 1
    if tensor.ndim == 3 and _is_transposed(holder, tensor):
        dim = 2
    entries = tensor.shape[dim]
    if getattr(holder, "is_concatenated", True):
        return [Piece(dim, entries, 0, entries // 2), Piece(dim, entries, entries // 2, entries // 2)]
    return [Piece(dim, 2, 0, 1), Piece(dim, 2, 1, 1)]


def _is_transposed(experts: Any, gate_up: Any) -> bool:
    """Whether experts hold (expert, inputs, outputs) rather than (expert, outputs, inputs)."""
    declared = getattr(experts, "is_transposed", None)
    return bool(declared) if declared is not None else experts.down_proj.shape[1] * 2 == gate_up.shape[2]


def _heads_in_turn(attention: Any, rows: int) -> list[Piece]:
    """Queries, keys and values of a head follow each other (GPT-NeoX, Persimmon)."""
    width = attention.head_dim
    return [Piece(0, 3 * width, at * width, width) for at in range(3)]


def _grouped(attention: Any, rows: int) -> list[Piece]:
    """All queries, then all keys, then all values (Phi-3)."""
    config = attention.config
    keys = config.num_key_value_heads * attention.head_dim
    return [
        Piece(0, rows, 0, rows - 2 * keys),
        Piece(0, rows, rows - 2 * keys, keys),
        Piece(0, rows, rows - keys, keys),
    ]


def _delta_net(mixer: Any, rows: int) -> list[Piece]:
    """Queries, keys and values of a gated delta rule (Qwen3.5)."""
    keys, values = mixer.key_dim, mixer.value_dim
    return [Piece(0, rows, 0, keys), Piece(0, rows, keys, keys), Piece(0, rows, 2 * keys, values)]


_CLASSES: Iterable[tuple[re.Pattern[str], Callable[[Any, int], list[Piece]]]] = (
    (re.compile(r"PersimmonAttention"), _heads_in_turn),
    (re.compile(r"Phi3Attention"), _grouped),
    (re.compile(r"Qwen3_5\w*GatedDeltaNet"), _delta_net),
)


def _by_class(holder: Any, rows: int) -> list[Piece]:
    return next((rule(holder, rows) for pattern, rule in _CLASSES if pattern.fullmatch(type(holder).__name__)), [])
