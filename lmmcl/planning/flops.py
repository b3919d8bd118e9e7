"""How many GPU hours a sweep takes, from the arithmetic that it needs: before anything is measured, and without torch.

A token costs 2·N floating-point operations to pass N parameters forward, and 2·n·w for each block of width w to attend to half
of n tokens (arXiv 2001.08361, table 1). Going back costs the same again for what lies above the lowest parameter that
trains, and 2·N' more for N' trained ones; gradient checkpointing one more pass forward. Counted are the language model, a
photograph of 1024 × 768 pixels with a short question for each example, and the GPU at a stated share of its peak. Not
counted: the vision tower (a few per cent), generated answers (a few tokens), passes that a mitigation adds, time in which
a GPU waits. So it is a scale to plan with; `Pace` tells what recorded steps took.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from lmmcl.config.settings import Training
from lmmcl.errors import UserError
from lmmcl.models.hub import HubLMM
from lmmcl.models.linears import linear_shapes
from lmmcl.models.lmm import LMM
from lmmcl.planning.activations import example_tokens
from lmmcl.steps import Evaluate, Finetune, Step
from lmmcl.steps.count_trained import count_trained
from lmmcl.tasks.files.prepared import about
from lmmcl.tasks.hub.hub_data import TEST, TRAIN, HubBenchmark, HubSkill, prepared_file
from lmmcl.tasks.papers.sizes import ABOUT
from lmmcl.tasks.skills import Benchmark, Skill

PEAK = 989e12
"""Floating-point operations a second of an H100 in bf16, without sparsity (the vendor's figure)."""
UTILISATION = 0.4
HARDWARE = "H100"


@dataclass(frozen=True)
class Hours:
    """GPU hours of the steps that could be estimated, and how many steps could not (no such model, or unknown size)."""

    training: float
    evaluation: float
    unknown: int

    def to_dict(self) -> dict[str, Any]:
        """For `--json`, with what was assumed."""
        return {**asdict(self), "gpu": HARDWARE, "peak_flops": PEAK, "utilisation": UTILISATION}

    def __str__(self) -> str:
        more = f"; {self.unknown} steps without an estimate" if self.unknown else ""
        return (
            f"about {_rounded(self.training)} {HARDWARE}-hours of training and {_rounded(self.evaluation)} of evaluation "
            f"(arithmetic of the language model at {UTILISATION:.0%} of the peak, not measured{more})"
        )


def _rounded(hours: float) -> str:
    """Two digits: more would promise more than is known."""
    return f"{float(f'{hours:.2g}'):,g}" if hours >= 0.1 else f"{hours:.2f}"


def estimate_hours(steps: Iterable[Step]) -> Hours | None:
    """Hours of `steps`; None when none of them is of a model that is run on GPUs (the embedded ones are not)."""
    training = evaluation = 0.0
    counted = unknown = 0
    for step in steps:
        if isinstance(step, Finetune) and isinstance(step.model.plain, HubLMM):
            flops = _taught(step)
        elif isinstance(step, Evaluate) and isinstance(step.checkpoint.model.plain, HubLMM):
            flops = _asked(step)
        else:
            continue
        counted += 1
        if flops is None:
            unknown += 1
        elif isinstance(step, Finetune):
            training += flops
        else:
            evaluation += flops
    if not counted:
        return None
    seconds = PEAK * UTILISATION * 3600
    return Hours(training / seconds, evaluation / seconds, unknown)


def _taught(step: Finetune) -> float | None:
    examples = trained_examples(step.skill, step.training)
    forward = _forward(step.model)
    if examples is None or forward is None:
        return None
    tokens = example_tokens(step.model)
    weights = 2 * tokens * count_trained(step.recipe, step.model).trained
    return examples * (3 * forward + weights)  # forward, again for the checkpoints, and back


def trained_examples(skill: Skill, training: Training) -> float | None:
    """Examples that a stage passes, or None where the size of its skill is not known."""
    if training.max_steps is not None:
        return training.max_steps * training.global_batch_size
    size = known_size(skill)
    if size is None:
        return None
    return training.epochs * min(size, training.examples or size)


def _asked(step: Evaluate) -> float | None:
    size = known_size(step.benchmark)
    forward = _forward(step.checkpoint.model)
    if size is None or forward is None:
        return None
    return min(size, step.evaluation.limit or size) * forward


def known_size(task: Skill | Benchmark) -> int | None:
    """Examples of a skill's training data or a benchmark: counted where prepared, else what its owner says; None if neither."""
    part = {HubSkill: TRAIN, HubBenchmark: TEST}.get(type(task))
    if part is None:
        return None
    file = prepared_file(task.name, part)
    if file.is_file() and (rows := about(file).get("rows")):
        return int(rows)
    return ABOUT.get((task.name, part))


@cache
def _forward(lmm: LMM) -> float | None:
    """Operations of one example, forward through the language model; None for one that does not tell its layers."""
    try:
        shapes = linear_shapes(lmm)
    except UserError:
        return None
    blocks = {match[0] for role in shapes if (match := re.match(r"llm\.blocks\.\d+", role))}
    width = min(inputs for role, layers in shapes.items() if role.startswith("llm.blocks.") for _, inputs in layers)
    parameters = sum(count for role, count in lmm.role_counts().items() if role.startswith("llm.blocks."))
    tokens = example_tokens(lmm)
    return float(tokens * (2 * parameters + 2 * tokens * width * len(blocks)))
