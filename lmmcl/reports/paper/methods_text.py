"""The paragraph of a paper that says how a sweep was made: models, data, settings, seeds, versions and hardware."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lmmcl.config.trial_names import rate
from lmmcl.ledger import Record
from lmmcl.ledger.provenance import NUMBERS
from lmmcl.reports.formatting import plural
from lmmcl.reports.results import SweepResults
from lmmcl.search.run_context import RunContext
from lmmcl.steps.trial import Trial


def methods_text(context: RunContext, results: SweepResults) -> str:
    """Plain sentences, from the sweep and from what the records say of versions and devices; what is not recorded is said."""
    trials = list(context.sweep.trials)
    records = _records(trials, context)
    parts = [_models(trials), _data(trials), _training(trials), _grid(trials), _scoring(trials, results)]
    return " ".join([*parts, _made_with(records, results)])


def _records(trials: Sequence[Trial], context: RunContext) -> list[Record]:
    tuned = {stage.tuned.key: stage.tuned for trial in trials for stage in trial.stages if stage.tuned}
    return [record for step in tuned.values() if (record := context.ledger.find(step)) is not None]


def _models(trials: Sequence[Trial]) -> str:
    models = {trial.model.name: trial.model.identity().get("revision") for trial in trials}
    named = [f"{name} (revision {revision})" if revision else name for name, revision in models.items()]
    return f"We fine-tuned {_listed(named)} on one skill after another."


def _data(trials: Sequence[Trial]) -> str:
    orders = {trial.order: trial.skills for trial in trials}
    sequences = [f"{name}: {', '.join(skill.name for skill in skills)}" for name, skills in orders.items()]
    held_out = dict.fromkeys(benchmark.name for trial in trials for benchmark in trial.held_out)
    text = f"Skills were taught in {plural(len(sequences), 'order')} ({'; '.join(sequences)})."
    return f"{text} Held-out benchmarks: {_listed(list(held_out))}." if held_out else text


def _training(trials: Sequence[Trial]) -> str:
    first = trials[0].training
    amount = f"{first.max_steps} updates" if first.max_steps else f"{first.epochs:g} epoch{'s' * (first.epochs != 1)}"
    varied = [name for name in ("epochs", "global_batch_size", "precision") if _values(trials, name) > 1]
    examples = f" over {first.examples} examples" if first.examples else ""
    text = (
        f"Each stage took {amount}{examples} at a global batch size of {first.global_batch_size}, AdamW "
        f"(betas {first.adam_beta1:g} and {first.adam_beta2:g}, weight decay {first.weight_decay:g}), a "
        f"{first.lr_scheduler_type} schedule with {100 * first.warmup_ratio:g} % warm-up, gradients clipped at "
        f"{first.max_grad_norm:g}, in {first.precision}."
    )
    stages = any(trial.by_stage for trial in trials)
    notes = [f"{' and '.join(varied)} varied"] if varied else []
    notes += ["some stages had settings of their own"] if stages else []
    return f"{text} ({'; '.join(notes).capitalize()}; see the sweep file.)" if notes else text


def _values(trials: Iterable[Trial], name: str) -> int:
    return len({getattr(trial.training, name) for trial in trials})


def _grid(trials: Sequence[Trial]) -> str:
    rates = sorted({trial.training.learning_rate for trial in trials})
    recipes = dict.fromkeys(trial.recipe.name for trial in trials)
    mitigations = dict.fromkeys(trial.mitigation.label for trial in trials if trial.mitigation)
    seeds = sorted({trial.seed for trial in trials})
    shown = [rate(value) for value in rates]
    learning = _listed(shown) if len(rates) <= 6 else f"{len(rates)} values from {shown[0]} to {shown[-1]}"
    text = f"Recipes: {_listed(list(recipes))}; learning rate{'s' * (len(rates) > 1)} {learning}"
    text += f"; mitigations: {_listed(list(mitigations))}" if mitigations else ""
    return f"{text}; seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}; {plural(len(trials), 'trial')} in all."


def _scoring(trials: Sequence[Trial], results: SweepResults) -> str:
    counts = {name: n for trial in results.trials for stage in trial.stages for name, n in stage.sample_counts.items()}
    few, many = (min(counts.values()), max(counts.values())) if counts else (0, 0)
    asked = f", {few if few == many else f'{few} to {many}'} questions each" if counts else ""
    return (
        f"After every stage the model answered {plural(len(counts), 'benchmark')} by greedy decoding{asked}; intervals are "
        "95 % bootstrap intervals over questions."
    )


def _made_with(records: Sequence[Record], results: SweepResults) -> str:
    if not records:
        return "No stage is recorded yet: versions and hardware are not known."
    versions = [f"lmmcl {_one(records, _version_of('lmmcl'))}"]
    packages = [f"{name} {version}" for name in NUMBERS if (version := _one(records, _version_of(name)))]
    devices = {device for record in records if (device := _device(record))}
    commit = _one(records, _version_of("commit"))
    hours = sum(trial.cost("seconds") or 0.0 for trial in results.trials) / 3600
    text = f"Stages were computed with {', '.join([*versions, *packages])}"
    text += f" (commit {commit[:12]})" if commit else ""
    text += f" in {_listed(sorted(devices))}" if devices else ""
    return f"{text}; all stages and evaluations took {hours:.2g} hours."


def _device(record: Record) -> str | None:
    """`1 process on cpu`, `8 processes on cuda`; None where the record does not say."""
    strategy = record.fields.get("strategy")
    if not isinstance(strategy, dict):
        return None
    workers = int(strategy.get("workers") or 1)
    return f"{workers} process{'es' * (workers > 1)} on {strategy.get('device')}"


def _version_of(name: str) -> Callable[[Record], Any]:
    return lambda record: (record.fields.get("provenance") or {}).get(name)


def _one(records: Sequence[Record], value: Callable[[Record], Any]) -> str:
    """What all records say, or all that is said."""
    return " / ".join(sorted({str(fact) for record in records if (fact := value(record))}))


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))
