"""A stage of the tiny model that is about to train, taken apart: what mitigations are shown, and weights to compare."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.settings import Training
from lmmcl.ledger import Ledger
from lmmcl.methods.mitigation import StageContext, TrainingMitigation
from lmmcl.methods.recipes.recipe import get_recipe
from lmmcl.models import get_model
from lmmcl.models.roles import select
from lmmcl.steps import Checkpoint, Finetune, Pretrained
from lmmcl.tasks.examples import Example, ask
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.training.distributed.batches import cut_batches
from lmmcl.training.distributed.workers import Workers
from lmmcl.training.job import Job
from lmmcl.training.stage.loop import _unfreeze
from lmmcl.training.stage.preparation import prepare
from lmmcl.training.stage.trainer import StageTrainer
from lmmcl.weights.checkpoint import load_checkpoint, named_tensors

BASE = Pretrained(get_model("tiny-onevision"))
WORDS = ("red", "red circle", "small red circle left of blue square")
"""Answers of different lengths: a mean over batches would differ from the mean over all their tokens."""
SAID = (
    *("a", "no", "small", "dark", "solid", "red", "blue", "green", "orange", "purple"),
    *("grid", "stripes", "circle", "squares", "triangle", "rectangles", "rings", "shapes", "pattern"),
)
"""What counts as right where a metric is asked: words that the tiny model, on any processor, says to these pictures in two answers
of five."""


def shades(count: int = 12, green: int = 40) -> list[Example]:
    """Pictures of one colour each; `green` makes other pictures."""
    return [
        ask(str(n), "What is shown?", WORDS[n % 3], Image.new("RGB", (32, 32), (20 * n % 250, green, 90)), answers=SAID)
        for n in range(count)
    ]


def made_skill(name: str = "shades", examples: Sequence[Example] | None = None) -> Skill:
    """A skill of `examples` (of `shades` without); other pictures make another version, so that encodings are told apart."""
    rows = shades() if examples is None else examples
    version = 1 if examples is None else 1 + sum(zlib.crc32(image.tobytes()) for row in rows for image in row.images)
    return Skill(name, version, load=lambda: rows, benchmark=Benchmark(name, 1, "contains", load=list))


def stage(mitigation: TrainingMitigation | None = None, **more: Any) -> Finetune:
    """A stage of four updates of four examples; `more` changes its parent, recipe, skill, seed or training settings."""
    settings = {"learning_rate": 1e-3, "global_batch_size": 4, "max_steps": 4, "precision": "fp32"}
    settings.update({key: more.pop(key) for key in list(more) if key in Training.model_fields})
    parent: Checkpoint = more.pop("parent", BASE)
    recipe = get_recipe(more.pop("recipe", "sa_proj"))
    return Finetune(
        parent, recipe, mitigation, more.pop("skill", made_skill()), Training(**settings), more.pop("seed", 0)
    )


@dataclass
class Parts:
    """The Trainer of a stage before its first update, and the context that `start` is given."""

    trainer: StageTrainer
    context: StageContext

    @property
    def model(self) -> Any:
        return self.context.model

    def trained(self) -> dict[str, torch.nn.Parameter]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}


def parts(step: Finetune, tmp_path: Path, **placement: Any) -> Parts:
    """The stage `step` on the way to its first update; its parent must be recorded below `tmp_path`."""
    place = TrainingPlacement(**placement)
    job = Job(step, Ledger(str(tmp_path / "store")), place, cut_batches(step.training, place))
    model = load_checkpoint(step.parent, job.ledger, precision=step.training.precision)
    roles = step.model.roles_of(name for name, _ in model.named_parameters())
    trained = sorted(select(roles, step.recipe.train, model=step.model.name))
    _unfreeze(model, trained, uniform=False)
    return Parts(*prepare(job, model, trained, tmp_path / "runs", Workers()))


def shake(model: torch.nn.Module, size: float = 0.02, seed: int = 0) -> None:
    """Move the trained parameters a little at random, as some updates would."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += size * torch.randn(parameter.shape, generator=noise)


def weights(step: Checkpoint, ledger: Ledger) -> dict[str, torch.Tensor]:
    return named_tensors(load_checkpoint(step, ledger, precision="fp32"))


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max().detach()) for name in one)


def share_apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], *, by: float) -> float:
    """Of all entries, those that differ by more than `by`."""
    far = torch.cat([((one[name] - other[name]).abs() > by).flatten() for name in one])
    return float(far.float().mean())
