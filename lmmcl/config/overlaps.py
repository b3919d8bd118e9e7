"""Rows that are taught and asked, or taught twice: refused, or allowed by `benchmarks.allow_overlap`, and said on the page.

Compared are files of your own and prepared data of the hub. Skills and benchmarks that draw their pictures divide them by their
bytes, so that none is both taught and asked; tasks of lmms-eval are not compared, as only lmms-eval can read their data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, Protocol

from lmmcl.config.sweep import Sweep
from lmmcl.errors import UserError
from lmmcl.methods.data.data_hybrid import DataHybrid
from lmmcl.steps.trial import Trial
from lmmcl.tasks.files.fingerprints import Fingerprints


class Comparable(Protocol):
    """A skill, a benchmark, or a file that a mitigation mixes in."""

    @property
    def name(self) -> str: ...
    def identity(self) -> dict[str, Any]: ...
    def fingerprints(self) -> Fingerprints | None: ...
    def notes(self) -> tuple[str, ...]: ...


Kind = Literal["asked", "mixed", "taught"]


@dataclass(frozen=True)
class Overlap:
    """`rows` of the `total` rows of `name` are rows of `other` too; the first is row `first` here, and row `same` there.

    `kind` says what `name` is: a benchmark (asked), data that a mitigation mixes in (mixed), or another skill (taught).
    """

    kind: Kind
    name: str
    other: str
    rows: int
    total: int
    first: int
    same: int
    allowed: bool

    def __str__(self) -> str:
        what = {"asked": "benchmark", "mixed": "mixed-in data", "taught": "skill"}[self.kind]
        held = f"{self.rows} of the {self.total} rows of {what} {self.name!r} are also taught by {self.other!r}"
        allowed = "; allowed by benchmarks.allow_overlap" if self.allowed and self.kind != "taught" else ""
        return f"{held} (row {self.first} is row {self.same} there){allowed}"

    @property
    def refused(self) -> bool:
        """Whether a sweep with it is not run. Skills may overlap: what they share is learnt twice, and that is said."""
        return self.kind != "taught" and not self.allowed


def find_overlaps(sweep: Sweep, trials: Iterable[Trial] | None = None) -> list[Overlap]:
    """All overlaps in trials of `sweep` (default: all, and those that its searches may propose), once each."""
    prints = _Prints()
    overlaps: dict[tuple[str, str, str], Overlap] = {}
    alike: dict[object, Trial] = {}
    for trial in _trials(sweep) if trials is None else trials:  # most differ in what cannot overlap, such as seeds
        data = (*trial.skills, None, *trial.held_out, None, *mixed_in(trial))
        alike.setdefault(tuple(map(id, data)), trial)
    for trial in alike.values():
        for kind, one, other in _pairs(trial):
            place = (kind, str(one.identity()), str(other.identity()))
            if place in overlaps:
                continue
            mine, theirs = prints.of(one), prints.of(other)
            shared = mine.rows_in(theirs) if mine and theirs else []
            if mine and shared:
                first, same = shared[0]
                allowed = one.name in sweep.allow_overlap
                overlaps[place] = Overlap(kind, one.name, other.name, len(shared), mine.total, first, same, allowed)
    return list(overlaps.values())


def describe_overlaps(sweep: Sweep) -> list[str]:
    """The overlaps in words, for a report: data that can no longer be read hide no result."""
    try:
        return [str(overlap) for overlap in find_overlaps(sweep)]
    except UserError as error:
        return [f"could not check whether rows are both taught and asked: {error}"]


def check_overlaps(sweep: Sweep, trials: Iterable[Trial] | None = None) -> None:
    """Raises UserError that names all overlaps that are not allowed."""
    refuse_overlaps(find_overlaps(sweep, trials), sweep.file)


def refuse_overlaps(overlaps: Iterable[Overlap], file: str) -> None:
    """Raises UserError for those that are refused, with what helps."""
    refused = [overlap for overlap in overlaps if overlap.refused]
    if not refused:
        return
    names = ", ".join(dict.fromkeys(overlap.name for overlap in refused))
    raise UserError(
        "; ".join(map(str, refused)) + ". A score on training rows measures memorisation. "
        f"Use other rows, or allow it with `benchmarks: {{allow_overlap: [{names}]}}`; the page will say so",
        file=file or None,
        place="benchmarks",
    )


class _Prints:
    """Fingerprints by what they are of, each read once."""

    def __init__(self) -> None:
        self._known: dict[str, Fingerprints | None] = {}

    def of(self, data: Comparable) -> Fingerprints | None:
        key = str(data.identity())
        if key not in self._known:
            self._known[key] = data.fingerprints()
        return self._known[key]


def _trials(sweep: Sweep) -> Iterator[Trial]:
    yield from sweep.trials
    for space in sweep.spaces:
        yield from space.extremes


def mixed_in(trial: Trial) -> Sequence[Comparable]:
    """What the mitigations of a trial mix into its stages, each once."""
    sources = (
        source
        for mitigation in trial.mitigations
        if isinstance(mitigation, DataHybrid)
        for source in mitigation.auxiliary
    )
    return list({source.name: source for source in sources}.values())


def _pairs(trial: Trial) -> Iterator[tuple[Kind, Comparable, Comparable]]:
    """What may overlap in a trial: kind, whose rows are counted, and what teaches them."""
    skills = list({skill.name: skill for skill in trial.skills}.values())
    mixed = mixed_in(trial)
    for benchmark in trial.benchmarks:
        for taught in (*skills, *mixed):
            yield "asked", benchmark, taught
    for source in mixed:
        for skill in skills:
            yield "mixed", source, skill
    for one, other in combinations(skills, 2):
        yield "taught", one, other
