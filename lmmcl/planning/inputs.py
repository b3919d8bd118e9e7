"""What a run needs and may not have: models and prepared data. Told at once, in one message, before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from lmmcl.errors import UserError
from lmmcl.models.quantized.base_settings import check_package
from lmmcl.steps.optimizers import check_optimizer_package
from lmmcl.steps.trial import Trial
from lmmcl.tasks.hub.hub_data import check_prepared
from lmmcl.tasks.skills import Benchmark, Skill


def check_inputs(trials: Iterable[Trial]) -> None:
    """Raises UserError that names every model and data set that these trials need and this machine lacks."""
    problems = missing_inputs(trials)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise UserError("This machine lacks inputs of the sweep:\n" + "\n".join(f"- {problem}" for problem in problems))


def missing_inputs(trials: Iterable[Trial]) -> list[UserError]:
    """An error for each model and package that these trials need and this machine lacks, and one for all data sets."""
    trials = list(trials)
    checks: list[Any] = [model.check for model in {trial.model.name: trial.model for trial in trials}.values()]
    checks += _packages(trials)
    checks.append(lambda: check_prepared(task for trial in trials for task in tasks_of(trial)))
    problems = []
    for check in checks:
        try:
            check()
        except UserError as error:
            problems.append(error)
    return problems


def _packages(trials: Iterable[Trial]) -> list[Callable[[], None]]:
    """A check for each setting of these trials that needs an optional package."""
    checks: dict[str, Callable[[], None]] = {}
    for trial in trials:
        if trial.model.settings.base:
            checks["base"] = lambda: check_package("base: {quantize: nf4}")
        for settings in trial.settings.values():
            checks[settings.training.optimizer] = partial(check_optimizer_package, settings.training)
    return list(checks.values())


def tasks_of(trial: Trial) -> Iterator[Skill | Benchmark]:
    """All that is taught and asked in a trial, and the skills that its mitigations name."""
    for skill in trial.skills:
        yield skill
        yield from skill.benchmarks
    yield from trial.held_out
    for probe in trial.probes:
        yield from probe.benchmarks(trial.held_out, drawn=trial.model.knows_drawings, taught=trial.benchmarks)
    for value in (value for mitigation in trial.mitigations for value in vars(mitigation).values()):
        several = value if isinstance(value, tuple) else (value,)
        yield from (task for task in several if isinstance(task, Skill))
