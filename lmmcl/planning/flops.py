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
from collections import Counter
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
from lmmcl.reports import formatting
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
    """GPU hours of the steps that could be estimated, and how many steps could not (no such model, or unknown size).

    None where there are such steps and none of them could be estimated: unknown is not 0.
    """

    training: float | None
    evaluation: float | None
    unknown: int

    def to_dict(self) -> dict[str, Any]:
        """For `--json`, with what was assumed."""
        return {**asdict(self), "gpu": HARDWARE, "peak_flops": PEAK, "utilisation": UTILISATION}

    def __str__(self) -> str:
        if self.training is None and self.evaluation is None:
            return f"unknown (no estimate for {formatting.plural(self.unknown, 'step')}: the sizes of their data are not known)"
        more = f"; {formatting.plural(self.unknown, 'step')} without an estimate" if self.unknown else ""
        return (
            f"{self._times()} (arithmetic of the language model at {UTILISATION:.0%} of the peak, not measured{more})"
        )

    def _times(self) -> str:
        """`about 850 H100-hours of training and 570 of evaluation`."""
        parts, last = [], ""
        for what, hours in (("training", self.training), ("evaluation", self.evaluation)):
            if hours is None:
                parts.append(f"an unknown time of {what}")
            elif hours:
                number, unit = _scaled(hours)
                parts.append(f"{number} of {what}" if unit == last else f"{number} {HARDWARE}-{unit} of {what}")
                last = unit
        return "about " + " and ".join(parts) if parts else "none"


def _scaled(hours: float) -> tuple[str, str]:
    """Two digits, for more would promise more than is known, in the unit in which they are 1 or more."""
    for unit, size in (("hours", 1.0), ("minutes", 60.0), ("seconds", 3600.0)):
        value = float(f"{hours * size:.2g}")
        if value >= 1 or unit == "seconds":
            return f"{value:,g}", unit
    raise AssertionError("seconds are the last unit")


def estimate_hours(steps: Iterable[Step]) -> Hours | None:
    """Hours of `steps`; None when none of them is of a model that is run on GPUs (the embedded ones are not)."""
    known: dict[str, list[float]] = {"training": [], "evaluation": []}
    counted: Counter[str] = Counter()
    for step in steps:
        if isinstance(step, Finetune) and isinstance(step.model.plain, HubLMM):
            what, flops = "training", _taught(step)
        elif isinstance(step, Evaluate) and isinstance(step.checkpoint.model.plain, HubLMM):
            what, flops = "evaluation", _asked(step)
        else:
            continue
        counted[what] += 1
        known[what] += [] if flops is None else [flops / (PEAK * UTILISATION * 3600)]
    if not counted:
        return None
    hours = {what: sum(times) if times or not counted[what] else None for what, times in known.items()}
    return Hours(hours["training"], hours["evaluation"], counted.total() - sum(map(len, known.values())))


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
