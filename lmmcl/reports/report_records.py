"""A ledger as it is now, read for a report: each record as often as it is cheap, each curve when it is asked for."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, overload

from lmmcl.ledger import Ledger, Record
from lmmcl.ledger.index.view import RecordView
from lmmcl.ledger.record import DamagedError
from lmmcl.ledger.record_versions import VersionCounts
from lmmcl.steps import Step

log = logging.getLogger(__name__)
_TOLD: set[str] = set()
MOST_RECORDS = 2048
"""Records that are kept: those of some trials, and of the pre-trained model, which all trials share."""


@dataclass
class _Count:
    twice: int = 0
    equal: float = 0.0
    unreadable: int = 0
    questions: int = 0


class JudgeCounts:
    """Counts over records, added one by one."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], _Count] = {}

    def add(self, record: Record) -> None:
        """Count one more record; nothing of one that no judge scored."""
        facts = record.fields.get("judge")
        if not isinstance(facts, Mapping):
            return
        count = self._counts.setdefault((record["label"], str(facts["model"])), _Count())
        count.twice += facts["asked_twice"]
        count.equal += (facts["agreement"] or 0.0) * facts["asked_twice"]
        count.unreadable += facts["unreadable"]
        count.questions += len(record["sample_scores"])

    def notes(self) -> list[str]:
        """A line for each benchmark and judge."""
        return [
            f"{benchmark} is judged by {judge}: {_agreement(count)}; "
            f"{count.unreadable} of {count.questions} replies held no verdict"
            for (benchmark, judge), count in sorted(self._counts.items())
        ]


def _agreement(count: _Count) -> str:
    if not count.twice:
        return "no answer was judged twice"
    return f"{count.equal / count.twice:.1%} of {count.twice} answers that were judged twice got the same verdict"


class Reading:
    """The records of one moment. Scores of thousands of trials are not kept: a record is decoded again where it is needed."""

    def __init__(self, ledger: Ledger, view: RecordView | None = None) -> None:
        self._ledger, self._view = ledger, view or RecordView(ledger)
        self._kept: OrderedDict[str, Record | None] = OrderedDict()
        self._seen: set[str] = set()
        self._versions, self._judged = VersionCounts(), JudgeCounts()

    def prefetch(self, steps: Iterable[Step]) -> None:
        """Read what will be asked for in few requests (see `RecordView.prefetch`)."""
        self._view.prefetch(steps)

    def find(self, step: Step) -> Record | None:
        """The record of `step`, or None when it has not been computed."""
        key = step.key
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        record = self._view.find(step)
        self._kept[key] = record
        if len(self._kept) > MOST_RECORDS:
            self._kept.popitem(last=False)
        if record is not None and key not in self._seen:
            self._seen.add(key)
            self._versions.add(record)
            self._judged.add(record)
        return record

    def recorded(self, steps: Iterable[Step]) -> tuple[int, list[str]]:
        """How many of `steps` are recorded, and notes on these and on what was read before: versions that differ, and judges."""
        number = sum(step.key in self._seen or self.find(step) is not None for step in steps)
        self._view.keep()
        return number, [*self._versions.differing(), *self._judged.notes()]

    def curve(self, step: Step) -> Sequence[Mapping[str, Any]]:
        """The rows of a fine-tune's curve, read when they are looked at; empty when it has none."""
        return Curve(self._ledger, step.path)


def rows_of(ledger: Ledger | RecordView, path: str, name: str) -> list[dict[str, Any]]:
    """The rows of a .jsonl file of the step in `path`; none, with a warning, where the file is damaged.

    Curves and answers are beside the scores, which records hold themselves: no sweep ends for want of them.
    """
    try:
        return ledger.read_lines(path, name)
    except DamagedError as error:
        if str(error) not in _TOLD:
            _TOLD.add(str(error))
            log.warning("omitted from the report: %s", error)
        return []


@lru_cache(maxsize=16)
def _curve_rows(ledger: Ledger, path: str) -> list[dict[str, Any]]:
    return rows_of(ledger, path, "curve.jsonl")


class Curve(Sequence[Mapping[str, Any]]):
    """The rows of a curve, read when they are looked at: a large sweep has too many to keep, and looks at one after the other."""

    def __init__(self, ledger: Ledger, path: str) -> None:
        self._ledger, self._path = ledger, path

    def _rows(self) -> list[dict[str, Any]]:
        return _curve_rows(self._ledger, self._path)

    @overload
    def __getitem__(self, place: int) -> Mapping[str, Any]: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Mapping[str, Any]]: ...

    def __getitem__(self, place: int | slice) -> Any:
        return self._rows()[place]

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self._rows())

    def __len__(self) -> int:
        return len(self._rows())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._rows() == list(other)

    __hash__ = None  # type: ignore[assignment]
