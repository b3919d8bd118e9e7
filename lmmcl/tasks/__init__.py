"""What is learnt and asked: one file a skill with its benchmark; found by name."""

from __future__ import annotations

from lmmcl.registry import member, members
from lmmcl.tasks.lmms_eval.benchmark import is_lmms_eval, lmms_eval_benchmark
from lmmcl.tasks.skills import Benchmark, Skill

__all__ = ["benchmark_names", "get_benchmark", "get_skill", "skill_names"]


def get_skill(name: str) -> Skill:
    """The skill called `name`; raises UserError with the nearest names."""
    return member(__name__, "SKILLS", "skill", name)


def get_benchmark(name: str) -> Benchmark:
    """The held-out benchmark called `name` (or task `lmms_eval/<task>`); raises UserError with the nearest names."""
    if is_lmms_eval(name):
        return lmms_eval_benchmark(name)
    return member(__name__, "BENCHMARKS", "benchmark", name)


def skill_names() -> list[str]:
    """Names of all skills that ship."""
    return list(members(__name__, "SKILLS"))


def benchmark_names() -> list[str]:
    """Names of all held-out benchmarks that ship."""
    return list(members(__name__, "BENCHMARKS"))
