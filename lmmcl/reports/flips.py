"""Question by question: what a model could answer before it was taught and cannot after, and the reverse."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from lmmcl.errors import UserError, unknown
from lmmcl.ledger import Ledger
from lmmcl.ledger.searches import with_proposals
from lmmcl.reports import words
from lmmcl.reports.recommend import advise
from lmmcl.reports.results import SweepResults
from lmmcl.reports.seeds import averaged
from lmmcl.spec.steps import Evaluate
from lmmcl.spec.sweep import Sweep
from lmmcl.spec.trial import Trial
from lmmcl.tasks.base import Benchmark, Example
from lmmcl.tasks.draw import Examples as Drawn
from lmmcl.tasks.hub_data import HubBenchmark
from lmmcl.tasks.lmms_eval import LmmsEvalBenchmark

ANSWERED = 0.5
"""A score from which a question counts as answered: metrics may give a part of a point."""
PAGE_TRIALS, PAGE_EACH, PAGE_BYTES = 6, 4, 2_000_000
"""In a page: trials, questions of each kind for a benchmark, and bytes of pictures altogether."""
THUMBNAIL = 96
"""Longest side of a picture in a page, in pixels."""


@dataclass(frozen=True)
class Flip:
    """One question, what counts as right, and what was said before the first stage and after the one compared."""

    id: str
    question: str
    references: Sequence[str]
    before: str
    after: str
    score_before: float
    score_after: float


@dataclass(frozen=True)
class Flips:
    """The questions of one benchmark that one trial has unlearnt (`lost`), learnt (`gained`) or has wrong, out of `questions`."""

    trial: str
    key: str
    benchmark: str
    stage: int
    questions: int
    lost: list[Flip] = field(default_factory=list)
    gained: list[Flip] = field(default_factory=list)
    wrong: list[Flip] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def sweep_flips(sweep: Sweep, ledger: Ledger, benchmark: str, trials: Iterable[str] = ()) -> list[Flips]:
    """The flips of the named trials (none: of all that have a stage after the first) on one benchmark.

    Raises UserError for an unknown trial or benchmark, and for a named trial that has not been asked yet.
    """
    sweep = with_proposals(sweep, ledger)
    names = list(dict.fromkeys(each.name for trial in sweep.trials for each in trial.benchmarks))
    if benchmark not in names:
        raise UserError(unknown("benchmark", benchmark, names), file=sweep.file)
    wanted = [sweep.trial(name) for name in trials]
    cache: dict[str, list[dict[str, Any]]] = {}
    found = [trial_flips(trial, ledger, benchmark, cache) for trial in wanted or sweep.trials]
    for trial, flips in zip(wanted, found, strict=False):
        if flips is None:
            raise UserError(f"{trial.name} has no answers to {benchmark} after a stage yet", file=sweep.file)
    return [flips for flips in found if flips is not None]


def trial_flips(
    trial: Trial, ledger: Ledger, benchmark: str, cache: dict[str, list[dict[str, Any]]] | None = None
) -> Flips | None:
    """Answers after the last stage that has them against those before the first; None where one of them is missing."""
    cache = {} if cache is None else cache
    answers = [
        (stage.number, _samples(step, ledger, cache))
        for stage in trial.stages
        for step in stage.evaluations
        if step.benchmark.name == benchmark
    ]
    answered = [(number, rows) for number, rows in answers if rows]
    if len(answered) < 2 or answered[0][0] != 0:
        return None
    (_, before), (stage, after) = answered[0], answered[-1]
    by_id = {row["id"]: row for row in before}
    pairs = [(by_id[row["id"]], row) for row in after if row["id"] in by_id]
    lost = [_flip(a, b) for a, b in pairs if a["score"] >= ANSWERED > b["score"]]
    gained = [_flip(a, b) for a, b in pairs if a["score"] < ANSWERED <= b["score"]]
    wrong = [_flip(a, b) for a, b in pairs if b["score"] < ANSWERED]
    return Flips(trial.name, trial.key, benchmark, stage, len(pairs), lost, gained, wrong)


def _samples(step: Evaluate, ledger: Ledger, cache: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The answers of a step. Those of the model before the first stage are the same for all trials, and kept."""
    if step.path not in cache:
        rows = ledger.read_lines(step.path, "samples.jsonl")
        if step.checkpoint.depth:
            return rows
        cache[step.path] = rows
    return cache[step.path]


def _flip(before: Mapping[str, Any], after: Mapping[str, Any]) -> Flip:
    said = (before["prediction"], after["prediction"])
    return Flip(after["id"], after["question"], after["references"], *said, before["score"], after["score"])


TITLES = {
    "lost": "Answered before, not after",
    "gained": "Answered after, not before",
    "wrong": "Wrong after the last stage",
}


def flips_view(found: Sequence[Flips], most: int, kinds: Sequence[str] = ("lost", "gained")) -> Group:
    """For the terminal: counts by trial; of one trial its questions, of several those that concern most of them first."""
    counts = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    counts.add_column("trial")
    for heading in ("stage", "questions", "lost", "gained", "wrong"):
        counts.add_column(heading, justify="right")
    for each in sorted(found, key=lambda each: len(each.lost)):
        numbers = (each.stage, each.questions, len(each.lost), len(each.gained), len(each.wrong))
        counts.add_row(escape(each.trial), *map(str, numbers))
    parts: list[Any] = [counts]
    for kind in kinds:
        parts.append(f"[bold]{TITLES[kind]}[/bold]")
        parts.append(_of_one(getattr(found[0], kind), most) if len(found) == 1 else _of_many(found, kind, most))
    return Group(*parts)


def _of_one(flips: Sequence[Flip], most: int) -> Table | str:
    if not flips:
        return "  none\n"
    table = Table("id", "question", "wanted", "before", "after", box=box.SIMPLE_HEAD)
    for flip in flips[:most]:
        wanted = " / ".join(map(str, flip.references))
        table.add_row(*map(escape, (flip.id, flip.question, wanted, flip.before, flip.after)))
    if len(flips) > most:
        table.caption = f"{len(flips) - most} more; --most says how many to list"
    return table


def _of_many(found: Sequence[Flips], kind: str, most: int) -> Table | str:
    every = {flip.id: flip for flips in found for flip in getattr(flips, kind)}
    often = Counter(flip.id for flips in found for flip in getattr(flips, kind))
    if not often:
        return "  none\n"
    table = Table("id", "question", "wanted", "trials", box=box.SIMPLE_HEAD)
    for id, times in often.most_common(most):
        wanted = " / ".join(map(str, every[id].references))
        table.add_row(*map(escape, (id, every[id].question, wanted)), f"{times} of {len(found)}")
    return table


def front_keys(results: SweepResults) -> list[str]:
    """Keys of the trials of the fronts, one seed of each; at most as many as a page shows, those that learn most."""
    chosen = [choice.trial for advice in advise(averaged(results)) for choice in advice.choices]
    return [trial.seeds[0].key if trial.seeds else trial.key for trial in chosen][-PAGE_TRIALS:]


def page_flips(sweep: Sweep, ledger: Ledger, results: SweepResults) -> list[dict[str, Any]]:
    """For the page: a few questions of each kind, with pictures, for the trials of the front (one seed of each).

    Pictures are those of benchmarks that draw themselves or lie in local files; nothing is fetched for a report.
    """
    keys = front_keys(results)
    pictures, cache, found = Pictures(PAGE_BYTES), dict[str, list[dict[str, Any]]](), []
    for trial in (trial for trial in sweep.trials if trial.key in keys):
        for benchmark in trial.benchmarks:
            flips = trial_flips(trial, ledger, benchmark.name, cache)
            if flips is not None and (flips.lost or flips.gained):
                found.append(_for_page(flips, benchmark, pictures))
    return found


def _for_page(flips: Flips, benchmark: Benchmark, pictures: Pictures) -> dict[str, Any]:
    def cards(some: Sequence[Flip]) -> list[dict[str, Any]]:
        return [
            {
                "question": words.first_line(" ".join(flip.question.split()), 400),
                "references": [words.first_line(str(each)) for each in flip.references[:3]],
                "before": words.first_line(flip.before),
                "after": words.first_line(flip.after),
                "image": pictures.of(benchmark, flip.id),
            }
            for flip in some[:PAGE_EACH]
        ]

    counts = {"questions": flips.questions, "lost_count": len(flips.lost), "gained_count": len(flips.gained)}
    return {"name": flips.trial, "benchmark": flips.benchmark, **counts} | {
        "lost": cards(flips.lost),
        "gained": cards(flips.gained),
    }


class Pictures:
    """Small pictures of questions, until `most` bytes (as data URIs) are spent."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._questions: dict[str, Questions] = {}

    def of(self, benchmark: Benchmark, id: str) -> str | None:
        """The first picture of a question as a data URI; None without one, and once the bytes are spent."""
        made = self.bytes_of(benchmark, id)
        return f"data:image/{made[1]};base64,{base64.b64encode(made[0]).decode()}" if made else None

    def bytes_of(self, benchmark: Benchmark, id: str) -> tuple[bytes, str] | None:
        """(bytes, `png` or `jpeg`) of the first picture of a question; None without one, and once the bytes are spent."""
        if self._left <= 0:
            return None
        if benchmark.name not in self._questions:
            self._questions[benchmark.name] = Questions(benchmark)
        example = self._questions[benchmark.name].find(id)
        if example is None or not example.images:
            return None
        content, kind = thumbnail(example)
        self._left -= len(content) * 4 // 3
        return (content, kind) if self._left >= 0 else None


class Questions:
    """The questions of a benchmark by id, read (or drawn) no further than asked for; none where they lie on a hub, where
    lmms-eval would fetch them, or in files that have gone since: a report neither downloads nor imports lmms-eval."""

    def __init__(self, benchmark: Benchmark) -> None:
        self._seen: dict[str, Example] = {}
        self._drawn: Drawn | None = None
        self._rest: Iterator[Example] = iter(())
        if isinstance(benchmark, HubBenchmark | LmmsEvalBenchmark):
            return
        with suppress(UserError, OSError):
            examples = benchmark.load()
            self._drawn = examples if isinstance(examples, Drawn) else None
            self._rest = iter(examples)

    def find(self, id: str) -> Example | None:
        """The question called `id`, if it is there."""
        if self._drawn is not None:
            return self._drawn.find(id)
        with suppress(UserError, OSError):
            while id not in self._seen and (example := next(self._rest, None)) is not None:
                self._seen[example.id] = example
        return self._seen.get(id)


def thumbnail(example: Example) -> tuple[bytes, str]:
    """The first picture, made small: PNG where it is as small as drawn ones are, else JPEG."""
    picture = example.open_images()[0]
    kind = "png" if max(picture.size) <= THUMBNAIL else "jpeg"
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue(), kind
