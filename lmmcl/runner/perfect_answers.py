"""Before anything runs: what no answer could get right is told, and refused where it is most of a benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator

from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.models import LMM
from lmmcl.steps import Step
from lmmcl.steps.scoring import Evaluate


def check_answers(steps: Iterable[Step], ledger: Ledger, say: Callable[[str], None]) -> None:
    """Tells by `say` which questions of the evaluations that are still to run no answer of their model can get right.

    Raises UserError that names each benchmark of which that is true for most questions.
    """
    from lmmcl.evaluation.attainable import attainable

    refused = []
    for model, asked in _to_ask(steps, ledger).items():
        processor = model.load_processor()
        for step in asked:
            result = attainable(model.name, processor, step.benchmark, step.evaluation.limit)
            try:
                result.check()
            except UserError as error:
                refused.append(error)
            else:
                for note in result.notes():
                    say(note)
    if refused:
        raise refused[0] if len(refused) == 1 else UserError("\n" + "\n".join(str(error) for error in refused))


def _to_ask(steps: Iterable[Step], ledger: Ledger) -> dict[LMM, list[Evaluate]]:
    """One evaluation for each model and benchmark of which any is not recorded."""
    found: dict[str, dict[str, Evaluate]] = {}
    models: dict[str, LMM] = {}
    for step in _evaluations(steps):
        model = step.checkpoint.model
        name = json.dumps([model.label, model.identity()], sort_keys=True)
        asked = json.dumps([step.benchmark.identity(), step.evaluation.limit], sort_keys=True)
        models.setdefault(name, model)
        known = found.setdefault(name, {})
        if asked not in known and ledger.find(step) is None:
            known[asked] = step
    return {models[name]: list(asked.values()) for name, asked in found.items() if asked}


def _evaluations(steps: Iterable[Step]) -> Iterator[Evaluate]:
    return (step for step in steps if isinstance(step, Evaluate))
