"""What a plan says of its trials beside its numbers: settings of models, upper bounds, few examples, moments left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lmmcl.methods.recipes.adapters import KappaTune
from lmmcl.planning.data_notes import data_notes
from lmmcl.planning.flops import known_size
from lmmcl.reports import formatting
from lmmcl.steps import Finetune
from lmmcl.steps.count_trained import count_trained
from lmmcl.steps.trial import Trial


def trial_notes(trial: Trial) -> Iterator[str]:
    """What the numbers of a plan do not tell of a trial."""
    if trial.model.settings:
        yield f"model {trial.model.name}: {trial.model.settings.describe()}"
    for recipe in {settings.recipe.name: settings.recipe for settings in trial.settings.values()}.values():
        if isinstance(recipe.adapter, KappaTune):
            yield f"{recipe.name} chooses its layers when a stage begins: its parameters and bytes are upper bounds"
    yield from _by_stage(trial)
    yield from _left_out(trial)
    yield from few_examples(trial)
    yield from data_notes(trial)


def _by_stage(trial: Trial) -> Iterator[str]:
    """What each stage trains, where that differs."""
    trained = {
        number: count_trained(settings.recipe, trial.model).trained for number, settings in trial.settings.items()
    }
    if len(set(trained.values())) > 1:
        numbers = ", ".join(f"{number:,} at stage {stage}" for stage, number in trained.items())
        yield f"{trial.name}: parameters trained: {numbers}; the table shows the most"


def _taught_stages(trial: Trial) -> Iterator[Finetune]:
    """The fine-tune of each stage."""
    return (stage.tuned for stage in trial.stages if stage.tuned is not None)


def few_examples(trial: Trial) -> Iterator[str]:
    """Skills of a trial with fewer examples than an update takes: some are taken twice, so an epoch is more than one pass."""
    for stage in _taught_stages(trial):
        size = stage.examples or known_size(stage.skill)
        size = size and min(size, stage.training.examples or size)
        batch = stage.training.global_batch_size
        if size and size < batch:
            updates = stage.training.updates(size)
            yield (
                f"{stage.skill.name} has {formatting.plural(size, 'training example')} and global_batch_size is {batch}: "
                f"an update shows each {batch / size:.3g} times, and a stage has {formatting.plural(updates, 'update')}"
            )


def _left_out(trial: Trial) -> Iterator[str]:
    """The updates of probes and evaluations that lie beyond the end of a stage, and stages whose end nobody knows yet."""
    asked = [(f"{probe.name} is", probe.name, probe.updates) for probe in trial.probes if probe.updates]
    if trial.evaluation.looks_inside:
        every = trial.evaluation.every
        asked.append(("benchmarks are", "evaluation inside stages", (every,) if every else trial.evaluation.updates))
    for stage in _taught_stages(trial) if asked else ():
        for what, name, updates in asked:
            beyond = [update for update in updates if stage.updates and update > stage.updates]
            if beyond:
                yield (
                    f"{what} skipped after {_numbers(beyond)} updates of {stage.skill.name}: its stage has {stage.updates}"
                )
            if stage.updates is None:
                yield f"{name}: the number of updates of {stage.skill.name} is known once its data are prepared"


def _numbers(stages: Sequence[int]) -> str:
    return ", ".join(map(str, stages))
