"""Runs a merge rule over made tensors, without checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from lmmcl.methods import get_mitigation
from lmmcl.methods.mitigation import MergeContext, MergeMitigation

Arrays = dict[str, np.ndarray]


def made_arrays(skills: int = 3, seed: int = 0) -> tuple[Arrays, list[Arrays]]:
    """An anchor of three tensors of unlike scale, and fine-tunes near it."""
    random = np.random.default_rng(seed)
    shapes = {"wide.weight": (8, 40), "small.bias": (11,), "deep.weight": (5, 3, 4)}
    anchor = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    tuned = [
        {
            name: (value + random.normal(size=value.shape) * 0.1 * (i + 1)).astype(np.float32)
            for i, (name, value) in enumerate(anchor.items())
        }
        for _ in range(skills)
    ]
    return anchor, tuned


def merged(spec: str | Mapping, anchor: Arrays, tuned: Sequence[Arrays], names: Sequence[str] | None = None) -> Arrays:
    """What the rule `spec` makes of the tensors, visited in the order of `names`."""
    rule = get_mitigation(spec)
    assert isinstance(rule, MergeMitigation)

    def read(name: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
        return torch.from_numpy(anchor[name]), [torch.from_numpy(each[name]) for each in tuned]

    order = list(names or anchor)
    context = MergeContext(
        lmm=None,
        names=order,
        sizes={name: anchor[name].size for name in order},
        skills=[[]] * len(tuned),
        examples=[[]] * len(tuned),
        read=read,
        load=None,
        device="cpu",  # type: ignore[arg-type]
    )
    state = rule.prepare(context)
    return {name: rule.merge(state, name, *read(name)).numpy() for name in order}
