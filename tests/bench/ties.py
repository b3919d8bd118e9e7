"""TIES by tensor and by model against mergekit: CPU seconds per billion parameters, and whether the merged weights are the same.

    pip install --no-deps mergekit==0.1.5            # in an environment beside this one, or this one
    python tests/bench/ties.py [--side 2048] [--tensors 6] [--skills 3] [--repeats 3]
    pytest -m bench -s tests/bench/ties.py

All sides merge the same fp32 tensors in memory, in one thread; reading and writing files is left out. Without mergekit only ours
are measured.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from importlib.util import find_spec
from statistics import median
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lmmcl.methods import get_mitigation
from lmmcl.methods.mitigation import MergeContext, MergeMitigation

Tensors = dict[str, torch.Tensor]
KEEP = 0.2


def made(side: int, number: int, skills: int) -> tuple[Tensors, list[Tensors]]:
    """An anchor of `number` square tensors and a bias, and fine-tunes near it, each tensor by its own scale."""
    random = np.random.default_rng(0)
    shapes = {**{f"layer{i}.weight": (side, side) for i in range(number)}, "head.bias": (side,)}

    def draw(scale: float) -> Tensors:
        return {
            name: torch.from_numpy(random.standard_normal(shape, dtype=np.float32) * np.float32(scale * (1 + i % 3)))
            for i, (name, shape) in enumerate(shapes.items())
        }

    anchor = draw(1.0)
    return anchor, [{name: anchor[name] + moved for name, moved in draw(0.01).items()} for _ in range(skills)]


def ours(scope: str, anchor: Tensors, tuned: list[Tensors]) -> Tensors:
    rule = get_mitigation({"ties": {"keep": KEEP, "scope": scope}})
    assert isinstance(rule, MergeMitigation)

    def read(name: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
        return anchor[name], [each[name] for each in tuned]

    empty: list[list] = [[] for _ in tuned]
    context = MergeContext(
        lmm=None,  # type: ignore[arg-type]
        names=list(anchor),
        sizes={name: value.numel() for name, value in anchor.items()},
        skills=empty,
        examples=empty,
        read=read,
        load=None,  # type: ignore[arg-type]
        device="cpu",
    )
    state = rule.prepare(context)
    return {name: rule.merge(state, name, *read(name)) for name in anchor}


def mergekits(anchor: Tensors, tuned: list[Tensors]) -> Tensors:
    """mergekit's own method `ties`, a tensor at a time, as its executor calls it."""
    from mergekit.merge_methods.registry import get

    method = get("ties")
    numbers = range(len(tuned))
    settings = {
        "density": dict.fromkeys(numbers, KEEP),
        "weight": dict.fromkeys(numbers, 1.0),
        "lambda": 1.0,
        "rescale": False,
        "normalize": True,
        "int8_mask": False,
    }
    merged = {}
    for name, start in anchor.items():
        group = SimpleNamespace(
            base=SimpleNamespace(tensor=start),
            non_base=[SimpleNamespace(id=number, tensor=tuned[number][name]) for number in numbers],
        )
        merged[name] = method.merge_group(group, **settings)
    return merged


def cpu(work: Callable[[], Tensors]) -> tuple[float, Tensors]:
    begun = time.process_time()
    merged = work()
    return time.process_time() - begun, merged


def measure(side: int, number: int, skills: int, repeats: int) -> dict[str, float]:
    torch.set_num_threads(1)
    anchor, tuned = made(side, number, skills)
    sides: dict[str, Callable[[], Tensors]] = {
        "by_tensor": lambda: ours("tensor", anchor, tuned),
        "by_model": lambda: ours("model", anchor, tuned),
    }
    if find_spec("mergekit"):
        sides["mergekit"] = lambda: mergekits(anchor, tuned)
    parameters = sum(value.numel() for value in anchor.values())
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    merged: dict[str, Tensors] = {}
    for _ in range(repeats):
        for name, work in sides.items():
            spent, merged[name] = cpu(work)
            seconds[name].append(spent)
    found = {name: round(median(each) / parameters * 1e9, 1) for name, each in seconds.items()}
    found |= {"parameters": parameters, "by_model / by_tensor": round(found["by_model"] / found["by_tensor"], 2)}
    if "mergekit" in sides:
        found["by_tensor / mergekit"] = round(found["by_tensor"] / found["mergekit"], 3)
        differ = [_differing(name, merged, anchor, tuned) for name in anchor]
        found |= {"differ": sum(each for each, _ in differ), "differ_at_a_tie": sum(tied for _, tied in differ)}
    return found


def _differing(name: str, merged: dict[str, Tensors], anchor: Tensors, tuned: list[Tensors]) -> tuple[int, int]:
    """How many entries differ, and how many more where a fine-tune has entries as large as the last that is kept: of these
    mergekit's sort, which is not stable, takes any, and ours the first."""
    value, other = merged["by_tensor"][name], merged["mergekit"][name]
    differ = ~torch.isclose(value, other, rtol=1e-6, atol=1e-7)
    tied = torch.zeros_like(differ)
    for each in tuned:
        size = (each[name] - anchor[name]).abs()
        tied |= size == size.reshape(-1).sort(descending=True).values[int(KEEP * size.numel()) - 1]
    return int((differ & ~tied).sum()), int((differ & tied).sum())


@pytest.mark.bench
@pytest.mark.skipif(not find_spec("mergekit"), reason="mergekit is not installed")
def test_by_tensor_it_is_mergekits_merge_in_less_time() -> None:
    found = measure(1024, 3, 3, 3)
    print(json.dumps(found))
    assert found["differ"] == 0
    assert found["by_tensor / mergekit"] <= 0.7
    assert found["by_model / by_tensor"] <= 1.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--tensors", type=int, default=6)
    parser.add_argument("--skills", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.side, arguments.tensors, arguments.skills, arguments.repeats)))


if __name__ == "__main__":
    main()
