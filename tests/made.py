"""Small made-up models, skills and sweeps for tests that must not depend on weights that ship."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmmcl.config.settings import Evaluation, Training
from lmmcl.methods import get_mitigation, get_recipe
from lmmcl.models.lmm import LMM
from lmmcl.models.roles import RoleRule
from lmmcl.steps.trial import Trial
from lmmcl.tasks.examples import ask
from lmmcl.tasks.skills import Benchmark, Skill


class MadeModel(LMM):
    """A model that can be named and counted, but not loaded."""

    family = "made"
    rules = (RoleRule(r".*", "llm.head"),)
    knows_drawings = True

    def __init__(self, name: str = "made", revision: str = "1") -> None:
        self.name, self.revision = name, revision

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "revision": self.revision}

    def role_counts(self) -> dict[str, int]:
        blocks = {
            f"llm.blocks.{n}.{part}": 10
            for n in range(2)
            for part in ("attention.q", "attention.o", "mlp.gate", "mlp.up")
        }
        return {"vision.blocks.0.attention": 7, "projector": 5, "llm.embeddings": 100, **blocks, "llm.head": 3}

    def load_model(self, *, precision: str = "fp32", device: str = "cpu", attention: str = "sdpa") -> Any:
        raise NotImplementedError

    def load_processor(self) -> Any:
        raise NotImplementedError


def made_examples(name: str = "made", rows: int = 3) -> list:
    return [ask(f"{name}-{i}", "how many ?", str(i)) for i in range(rows)]


def made_benchmark(name: str, metric: str = "exact_match", version: int = 1) -> Benchmark:
    return Benchmark(name=name, version=version, metric=metric, load=made_examples, random_order=True)


def made_skill(name: str, version: int = 1) -> Skill:
    return Skill(name=name, version=version, load=made_examples, benchmark=made_benchmark(name), random_order=True)


def made_trial(
    recipe: str = "llm",
    mitigation: Any = None,
    skills: tuple[str, ...] = ("first", "second"),
    held_out: tuple[str, ...] = ("kept",),
    seed: int = 0,
    model: LMM | None = None,
    **training: Any,
) -> Trial:
    settings = Training(**training)
    axes = {"model": "made", "recipe": recipe, "mitigation": mitigation, "order": "main", "seed": seed}
    return Trial(
        model=model or MadeModel(),
        recipe=get_recipe(recipe),
        mitigation=get_mitigation(mitigation) if mitigation else None,
        order="main",
        skills=tuple(made_skill(name) for name in skills),
        held_out=tuple(made_benchmark(name) for name in held_out),
        training=settings,
        evaluation=Evaluation(),
        seed=seed,
        axes={**axes, "learning_rate": settings.learning_rate},
        name=f"{recipe} · s{seed}",
    )


SWEEP = """
name: small
orders:
  main: [counting, clock]
benchmarks: {held_out: [colour, shape]}
training: {epochs: 1, examples: 64, global_batch_size: 32, precision: fp32}
evaluation: {precision: fp32, limit: 8}
grids:
  - {model: [tiny-onevision], recipe: [sa_proj, gate_up], learning_rate: [1.0e-3, 3.0e-4]}
"""


def write_sweep(folder: Path, text: str = SWEEP, name: str = "small.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path
