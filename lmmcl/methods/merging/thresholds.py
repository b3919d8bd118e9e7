"""The magnitude that a share of a whole model's entries exceeds, exact to the entry, in two passes over the tensors.

The first draws a sample of each tensor, which brackets it; the second counts what lies above the bracket and keeps what lies in it,
a few per cent. Where the bracket misses, or too much lies in it (many equal entries), three more passes of counting find it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmmcl.methods.merging.task_vectors import how_many, magnitudes_of, task_vector, top_mask

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from lmmcl.methods.mitigation import MergeContext

Magnitudes = Callable[[str, "Tensor | None"], Sequence["Tensor"]]
"""|τ| in fp32 of each fine-tune at a tensor, by its name: all of it, or the entries at these places of the flat tensor."""

SAMPLE = 1 << 14
"""Entries of each tensor that bracket the threshold."""
DEVIATIONS = 6.0
"""Half the width of the bracket, in standard deviations of the share of a sample."""
MOST_KEPT = 1 << 26
"""Entries inside the brackets that are kept in memory, of all fine-tunes: 256 MB."""


@dataclass(frozen=True)
class Threshold:
    """The magnitude of the last entry that a share of a whole model keeps, and how many equal to it each tensor keeps."""

    magnitude: float
    ties: dict[str, int]

    def mask(self, name: str, magnitudes: Tensor) -> Tensor:
        """True at the kept entries of tensor `name`; of the shape of `magnitudes`."""
        flat = magnitudes.float().reshape(-1)
        mask = flat > self.magnitude
        equal = (flat == self.magnitude).nonzero().reshape(-1)
        mask[equal[: self.ties.get(name, 0)]] = True
        return mask.reshape(magnitudes.shape)


def top_thresholds(context: MergeContext, share: float) -> list[Threshold]:
    """For each fine-tune, what keeps ⌊share·n⌋ of the n entries of all tensors that a merge touches."""

    def magnitudes(name: str, at: Tensor | None) -> list[Tensor]:
        anchor, tuned = context.read(name)
        if at is None:
            return [magnitudes_of(anchor, value) for value in tuned]
        start = anchor.reshape(-1)[at]
        return [magnitudes_of(start, value.reshape(-1)[at]) for value in tuned]

    return find_thresholds({name: context.sizes[name] for name in context.names}, magnitudes, share)


def top_masks(
    thresholds: Sequence[Threshold] | None, share: float, name: str, anchor: Tensor, tuned: Sequence[Tensor]
) -> list[Tensor]:
    """For each fine-tune, true where its task vector at tensor `name` is among the top: of the model, by `thresholds` (see
    `top_thresholds`), or where these are None the `share` of this tensor."""
    if thresholds is None:
        sizes = [task_vector(anchor, value).abs() for value in tuned]
        return [top_mask(size, how_many(share, size.numel())) for size in sizes]
    return [
        threshold.mask(name, magnitudes_of(anchor, value)) for threshold, value in zip(thresholds, tuned, strict=True)
    ]


def find_thresholds(counts: Mapping[str, int], magnitudes: Magnitudes, share: float) -> list[Threshold]:
    """For each fine-tune what keeps exactly ⌊share·n⌋ of its n entries in all tensors; equal ones by name, then by position.

    `counts` holds the number of entries of each tensor.
    """
    ordered = sorted(counts)
    wanted = how_many(share, sum(counts.values()))
    if not wanted:
        several = len(magnitudes(ordered[0], None)) if ordered else 0
        return [Threshold(math.inf, {}) for _ in range(several)]
    brackets = _brackets(ordered, counts, magnitudes, wanted)
    above, inside = _count(ordered, magnitudes, brackets)
    thresholds: list[Threshold] = []
    for which in range(len(brackets)):
        kept = {name: parts[which] for name, parts in inside.items()} if inside is not None else None
        threshold = _exact(ordered, kept, wanted - above[which]) if kept is not None else None
        thresholds.append(threshold or _by_counting(ordered, _one(magnitudes, which), wanted))
    return thresholds


def _one(magnitudes: Magnitudes, which: int) -> Callable[[str], Tensor]:
    return lambda name: magnitudes(name, None)[which]


def _brackets(
    ordered: Sequence[str], counts: Mapping[str, int], magnitudes: Magnitudes, wanted: int
) -> list[tuple[float, float]]:
    """For each fine-tune two magnitudes between which the `wanted`-th highest almost certainly lies."""
    import numpy as np
    import torch

    samples: list[list[np.ndarray]] = []
    weights: list[np.ndarray] = []
    for name in ordered:
        size = min(SAMPLE, counts[name])
        if not size:
            continue
        at = np.sort(np.random.default_rng(len(weights)).integers(0, counts[name], size))
        samples.append([value.numpy() for value in magnitudes(name, torch.from_numpy(at))])
        weights.append(np.full(size, counts[name] / size))
    weight = np.concatenate(weights)
    total = weight.sum()
    share, effective = wanted / total, total**2 / (weight**2).sum()
    width = DEVIATIONS * math.sqrt(max(share * (1 - share), 1 / effective) / effective)
    brackets = []
    for which in range(len(samples[0])):
        values = np.concatenate([tensor[which] for tensor in samples])
        order = np.argsort(-values, kind="stable")
        ranks = np.cumsum(weight[order]) / total
        high = -1.0 if share - width <= 0 else float(values[order][np.searchsorted(ranks, share - width)])
        low_at = int(np.searchsorted(ranks, share + width))
        low = -1.0 if share + width >= 1 or low_at >= len(order) else float(values[order][low_at])
        brackets.append((low, math.inf if high < 0 else high))
    return brackets


def _count(
    ordered: Sequence[str], magnitudes: Magnitudes, brackets: Sequence[tuple[float, float]]
) -> tuple[list[int], dict[str, list[Any]] | None]:
    """How many entries of each fine-tune lie above its bracket, and those inside by tensor; None where these are too many."""
    above, inside, kept = [0] * len(brackets), dict[str, list[Any]](), 0
    for name in ordered:
        inside[name] = []
        for which, (size, (low, high)) in enumerate(zip(magnitudes(name, None), brackets, strict=True)):
            values = size.reshape(-1).numpy()
            rest = values[values >= low]
            mine = rest[rest <= high]
            above[which] += rest.size - mine.size
            inside[name].append(mine)
            kept += mine.size
        if kept > MOST_KEPT:
            return above, None
    return above, inside


def _exact(ordered: Sequence[str], inside: dict[str, Any], wanted: int) -> Threshold | None:
    """The threshold that keeps the `wanted` highest of the entries in the bracket; None where it lies outside."""
    import numpy as np

    values = np.concatenate([inside[name] for name in ordered])
    if not 1 <= wanted <= values.size:
        return None
    edge = np.partition(values, values.size - wanted)[values.size - wanted]
    left = wanted - int((values > edge).sum())
    ties = {}
    for name in ordered:
        ties[name] = min(left, int((inside[name] == edge).sum()))
        left -= ties[name]
    return Threshold(float(edge), ties)


def _by_counting(ordered: Sequence[str], magnitudes: Callable[[str], Tensor], wanted: int) -> Threshold:
    """The threshold in three passes with one tensor in memory at a time, however the entries lie.

    Non-negative floats sort like their bits, so two passes of counting (upper, then lower 16 bits) find the exact value; a third
    shares out the entries equal to it.
    """
    import torch

    high, low = torch.zeros(1 << 16, dtype=torch.long), torch.zeros(1 << 16, dtype=torch.long)
    for name in ordered:
        high += torch.bincount(_bits(magnitudes(name)) >> 16, minlength=1 << 16)
    upper, above = _bin_of(high, wanted)
    for name in ordered:
        bits = _bits(magnitudes(name))
        low += torch.bincount(bits[bits >> 16 == upper] & 0xFFFF, minlength=1 << 16)
    lower, more = _bin_of(low, wanted - above)
    edge = upper << 16 | lower
    left = wanted - above - more
    ties = {}
    for name in ordered:
        ties[name] = min(left, int((_bits(magnitudes(name)) == edge).sum()))
        left -= ties[name]
    return Threshold(torch.tensor(edge, dtype=torch.int32).view(torch.float32).item(), ties)


def _bits(magnitudes: Tensor) -> Tensor:
    import torch

    return magnitudes.float().reshape(-1).contiguous().view(torch.int32).long()


def _bin_of(counts: Tensor, wanted: int) -> tuple[int, int]:
    """The bin in which the `wanted`-th highest entry lies, and how many lie in the bins above it."""
    above = counts.flip(0).cumsum(0).flip(0) - counts
    inside = int((above < max(wanted, 1)).nonzero()[0])
    return inside, int(above[inside])
