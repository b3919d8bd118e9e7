"""Before anything runs: rows that a model's tokenizer cannot read are refused, questions that no answer can get right are named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.models import LMM
from lmmcl.steps import Finetune, Step
from lmmcl.steps.scoring import Evaluate
from lmmcl.tasks.examples import Example


@dataclass
class RowsToCheck:
    """The skills still to be taught to a model and the benchmarks still to be evaluated, each once."""

    model: LMM
    taught: dict[str, Finetune] = field(default_factory=dict)
    asked: dict[str, Evaluate] = field(default_factory=dict)


def check_rows(steps: Iterable[Step], ledger: Ledger, say: Callable[[str], None]) -> None:
    """Tells by `say` which questions of the evaluations that are still to run no answer of their model can get right.

    Raises UserError for each benchmark where that is true of most questions, and for the first row of each skill and benchmark
    that spells a control token which the tokenizer cannot read as plain text.
    """
    report_rows(*examine_rows(rows_to_check(steps, ledger.has)), say)


def report_rows(notes: Sequence[str], refused: Sequence[UserError], say: Callable[[str], None]) -> None:
    """Say what `examine_rows` found; raises UserError for what it refused."""
    for note in notes:
        say(note)
    if refused:
        raise refused[0] if len(refused) == 1 else UserError("\n" + "\n".join(str(error) for error in refused))


def examine_rows(rows: Iterable[RowsToCheck]) -> tuple[list[str], list[UserError]]:
    """What is to be said of these rows, and what keeps them from being taught or asked. Loads processors, and so the libraries."""
    from lmmcl.evaluation.attainable import attainable
    from lmmcl.evaluation.encodings import known_questions
    from lmmcl.evaluation.judging.server import check_judge
    from lmmcl.evaluation.question_cache import question_cache

    notes: list[str] = []
    refused: list[UserError] = []
    for todo in rows:
        processor = todo.model.load_processor()
        if unreadable := _unreadable(processor, todo):
            refused += unreadable
            continue
        for step in todo.asked.values():
            benchmark, limit = step.benchmark, step.evaluation.limit
            try:
                check_judge(benchmark.judge)
                questions = known_questions(processor, benchmark, limit, disk=question_cache())
                result = attainable(todo.model.name, processor, benchmark, limit, questions)
                result.check()
            except UserError as error:
                refused.append(error)
            else:
                notes += result.notes()
    return notes, refused


def rows_to_check(steps: Iterable[Step], has: Callable[[Step], bool]) -> list[RowsToCheck]:
    """What of the steps that are not recorded yet is to be checked, by model; `has` says which are."""
    by_model: dict[str, RowsToCheck] = {}
    for step in steps:
        if not isinstance(step, Finetune | Evaluate):
            continue
        model = step.model if isinstance(step, Finetune) else step.checkpoint.model
        todo = by_model.setdefault(json.dumps([model.label, model.identity()], sort_keys=True), RowsToCheck(model))
        if isinstance(step, Finetune):
            name = json.dumps([step.skill.identity(), step.training.examples], sort_keys=True)
            if name not in todo.taught and not has(step):
                todo.taught[name] = step
        else:
            name = json.dumps([step.benchmark.identity(), step.evaluation.limit], sort_keys=True)
            if name not in todo.asked and not has(step):
                todo.asked[name] = step
    return [todo for todo in by_model.values() if todo.taught or todo.asked]


def _unreadable(processor: Any, todo: RowsToCheck) -> list[UserError]:
    """The first row of each skill and benchmark that the tokenizer cannot read; none of them is read where it can read any."""
    if getattr(processor.tokenizer, "is_fast", False):
        return []
    taught = [(f"skill {step.skill.name}", step.skill.take(step.training.examples)) for step in todo.taught.values()]
    asked = [
        (f"benchmark {step.benchmark.name}", step.benchmark.take(step.evaluation.limit)) for step in todo.asked.values()
    ]
    errors = [_first_unreadable(processor, examples, file) for file, examples in (*taught, *asked)]
    return [error for error in errors if error is not None]


def _first_unreadable(processor: Any, examples: Sequence[Example], file: str) -> UserError | None:
    from lmmcl.models.processing.check_text import TextReader

    read = TextReader(processor)
    for example in examples:
        for number, turn in enumerate(example.messages, start=1):
            problem, _ = read(turn.role, turn.content)
            if problem:
                place = f"example {example.id!r}, turn {number} ({turn.role})"
                return UserError(f"{problem} (`lmmcl data check FILE --model …` lists all)", file=file, place=place)
    return None
