"""Every question of a sweep's benchmarks, with what was answered to it after every stage: what the page's answer browser shows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lmmcl.errors import UserError
from lmmcl.ledger.index.view import RecordView
from lmmcl.reports.flips import AnswerRows, notable_keys
from lmmcl.reports.page.question_pictures import Questions, encode_picture
from lmmcl.reports.report_records import rows_of
from lmmcl.reports.results import SweepResults
from lmmcl.search.progress import TrialProgress
from lmmcl.search.run_context import RunContext
from lmmcl.steps import Evaluate
from lmmcl.tasks.skills import Benchmark

ALL_OF = 8
"""Trials up to which the page has the answers of all; of more, of those that `notable_keys` names."""
LONGEST = 4_000
"""Characters of a question or an answer; what is longer is cut, and ends in `…`."""
MOST_PICTURES = 4
"""Pictures of a question."""


@dataclass
class PageAnswers:
    """The answers of `trials` (keys), one block of plain values for each benchmark, and pictures by digest, each once."""

    trials: list[str] = field(default_factory=list)
    blocks: list[dict[str, Any]] = field(default_factory=list)
    pictures: dict[str, tuple[bytes, str]] = field(default_factory=dict)

    def summary(self) -> list[dict[str, Any]]:
        """For the page's own data: the name of each benchmark and how many questions it has."""
        return [{"name": block["name"], "questions": len(block["ids"])} for block in self.blocks]

    def add_picture(self, content: bytes, kind: str) -> str:
        """The digest that the picture is found by; one that is there already is not kept twice."""
        digest = hashlib.sha256(content).hexdigest()[:20]
        self.pictures.setdefault(digest, (content, kind))
        return digest


def page_answers(context: RunContext, results: SweepResults) -> PageAnswers:
    """The answers of all trials of a small sweep, else of the front and others that learn most (one seed of each).

    Pictures are those of benchmarks that draw themselves or lie in local files; nothing is fetched for a report.
    """
    started = {trial.key for trial in results.trials if len(trial.stages) > 1}
    keys = started if len(results.trials) <= ALL_OF else started & set(notable_keys(results))
    walks = [context.of(trial) for trial in context.sweep.trials if trial.key in keys]
    answers = PageAnswers([walk.trial.key for walk in walks])
    # Of a large sweep a few records are looked at: in a folder an index of all would take longer to read.
    ledger = context.ledger if context.ledger.is_local else RecordView(context.ledger)
    rows = AnswerRows(partial(rows_of, ledger))
    for benchmark in {asked.name: asked for walk in walks for asked in walk.trial.benchmarks}.values():
        block = _Block(benchmark, answers)
        for place, walk in enumerate(walks):
            block.add_trial(place, walk, rows)
        if block.columns:
            answers.blocks.append(block.as_values())
    return answers


class _Block:
    """One benchmark. A column holds what one checkpoint answered; trials that share a checkpoint share the column."""

    def __init__(self, benchmark: Benchmark, answers: PageAnswers) -> None:
        self._benchmark, self._answers, self._questions = benchmark, answers, Questions(benchmark)
        self._places: dict[str, int] = {}
        self._asked: list[tuple[int, list[int], list[str]]] = []
        self._texts: dict[str, int] = {}
        self._by_step: dict[str, int] = {}
        self.columns: list[tuple[dict[int, int], dict[int, float]]] = []
        self._runs: list[dict[str, Any]] = []

    def add_trial(self, place: int, walk: TrialProgress, rows: AnswerRows) -> None:
        """The stages of a trial that were asked this benchmark; damaged answers are left out, and reported elsewhere."""
        stages = []
        for stage in walk.stages:
            for step in stage.evaluations:
                if step.benchmark.name == self._benchmark.name and (column := self._column(step, rows)) is not None:
                    stages.append([stage.number, stage.skill.name if stage.skill else None, column])
        if stages:
            self._runs.append({"trial": place, "stages": stages})

    def _column(self, step: Evaluate, rows: AnswerRows) -> int | None:
        if step.path not in self._by_step:
            answered = rows.of(step)
            if not answered:
                return None
            self._by_step[step.path] = len(self.columns)
            self.columns.append(self._read(answered))
        return self._by_step[step.path]

    def _read(self, rows: Iterable[Mapping[str, Any]]) -> tuple[dict[int, int], dict[int, float]]:
        predictions, scores = {}, {}
        for row in rows:
            question = self._question(row)
            predictions[question] = self._text(row["prediction"])
            scores[question] = round(float(row["score"]), 3)
        return predictions, scores

    def _question(self, row: Mapping[str, Any]) -> int:
        id = row["id"]
        if id not in self._places:
            self._places[id] = len(self._asked)
            references = [self._text(str(reference)) for reference in row["references"]]
            self._asked.append((self._text(row["question"]), references, self._pictures(id)))
        return self._places[id]

    def _text(self, text: str) -> int:
        """The place of a text; questions and answers are often the same ones."""
        return self._texts.setdefault(shortened(text), len(self._texts))

    def _pictures(self, id: str) -> list[str]:
        example = self._questions.find(id)
        if example is None:
            return []
        try:
            images = example.open_images()[:MOST_PICTURES]
        except (UserError, OSError):  # a file that has gone or changed since: its question is shown without it
            return []
        return [self._answers.add_picture(*encode_picture(image)) for image in images]

    def as_values(self) -> dict[str, Any]:
        """For JSON: questions, references and predictions are places in `texts`; None is where there is no answer."""
        numbers = range(len(self._asked))
        return {
            "name": self._benchmark.name,
            "ids": list(self._places),
            "questions": [question for question, _, _ in self._asked],
            "references": [references for _, references, _ in self._asked],
            "pictures": [pictures for _, _, pictures in self._asked],
            "texts": list(self._texts),
            "columns": [
                {
                    "predictions": [predictions.get(number) for number in numbers],
                    "scores": _numbers(scores, len(numbers)),
                }
                for predictions, scores in self.columns
            ],
            "runs": self._runs,
        }


def _numbers(scores: Mapping[int, float], length: int) -> list[float | int | None]:
    """Whole numbers as such: `1` is half as long as `1.0`."""
    by_question = [scores.get(place) for place in range(length)]
    return [int(score) if score is not None and score == int(score) else score for score in by_question]


def shortened(text: str) -> str:
    """The text, or its beginning where it is longer than a page shows."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
