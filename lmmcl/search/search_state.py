"""What searches have decided, kept in the store: the points that were proposed, and the trials that a scheduler ended.

    <store>/searches/<key of the search>/00007.json           the eighth point, created once whoever proposes it
    <store>/searches/<sweep>-asha-<key>/<trial>-<stage>.json  whether a trial may continue beyond a stage

A file is written whole and never changed: of two runs that decide at once, one is first, and the other follows it. Deleting
a folder forgets the decisions of a search and no result.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from lmmcl.config.grid_point import Space
from lmmcl.config.search_settings import Asha, Stopped
from lmmcl.config.sweep import Sweep
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.ledger.record import DamagedError
from lmmcl.ledger.side_files import WARNINGS, damaged, encode, quarantine, read_object
from lmmcl.ledger.store import Store
from lmmcl.measures import OLD_NAMES
from lmmcl.steps.keys import key_of
from lmmcl.steps.trial import Trial

FOLDER = "searches"
T = TypeVar("T")

log = logging.getLogger("lmmcl")


@dataclass(frozen=True)
class Proposal:
    """A proposed point, plain values by drawn axis, and the trial that it is."""

    point: Mapping[str, Any]
    trial: Trial


class Proposals:
    """The points of one search in the order in which they were proposed, at most as many as are asked for."""

    def __init__(self, space: Space, ledger: Ledger) -> None:
        self.space, self._ledger = space, ledger
        self._known: list[Proposal] = []
        self.read()

    @property
    def known(self) -> Sequence[Proposal]:
        """All that have been proposed, as of the last `read` or `add`."""
        return self._known

    @property
    def left(self) -> int:
        """How many are still to be proposed."""
        return self.space.num_points - len(self._known)

    def read(self) -> None:
        """Look for points that were added since."""
        try:
            while self.left > 0 and (proposal := self._read(len(self._known))) is not None:
                self._known.append(proposal)
        except DamagedError as error:  # what comes after it is found again when it is replaced
            WARNINGS.say(error)

    def add(self, point: Mapping[str, Any]) -> Proposal:
        """Keep one more point, and return what the store has in that place: another run may have been first."""
        number = len(self._known)
        trial = self.space.trial(point)
        text = json.dumps({"number": number, "point": dict(point), "trial": trial.key, "name": trial.name}, indent=1)
        proposal = _created(self._ledger.files, self._file(number), text, lambda: self._read(number))
        assert proposal is not None, f"{self._file(number)} was written a moment ago"
        self._known.append(proposal)
        return proposal

    def _file(self, number: int) -> str:
        return f"{FOLDER}/{self.space.key}/{number:05d}.json"

    def _read(self, number: int) -> Proposal | None:
        files, name = self._ledger.files, self._file(number)
        kept = read_object(files, name)
        if kept is None:
            return None
        try:
            point = kept["point"]
            if set(point) != set(self.space.draws):
                raise ValueError(f"its point has {', '.join(point)}")
            trial = self.space.trial(point)
        except (ValueError, KeyError, TypeError, UserError) as error:
            raise damaged(files, name, f"is not a valid point of {self.space.label} ({error})") from error
        if kept.get("trial") != trial.key:
            raise damaged(files, name, f"its point belongs to trial {trial.key}, not to {kept.get('trial')}")
        return Proposal(point, trial)


def _created(files: Store, name: str, text: str, read: Callable[[], T | None]) -> T | None:
    """Create a file unless there is one, and return what `read` finds in it; a damaged one is quarantined first."""
    content = encode(name, text)
    files.create(name, content)
    try:
        return read()
    except DamagedError as error:
        log.warning("%s", error)
        quarantine(files, name)
        files.create(name, content)
        return read()


def with_proposals(sweep: Sweep, ledger: Ledger) -> Sweep:
    """`sweep` with the trials that its searches have proposed so far after those that its file lists."""
    if not sweep.spaces:
        return sweep
    trials = {trial.key: trial for trial in sweep.trials}
    for space in sweep.spaces:
        for proposal in Proposals(space, ledger).known:
            trials.setdefault(proposal.trial.key, proposal.trial)
    return replace(sweep, trials=tuple(trials.values()))


@dataclass(frozen=True)
class SearchState:
    """How far a search is: points asked for, and proposed so far."""

    key: str
    label: str
    objectives: Mapping[str, str]
    num_points: int
    proposed: int

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.proposed} of {self.num_points} points proposed of {self.label}"


def search_states(sweep: Sweep, ledger: Ledger) -> list[SearchState]:
    """One for each space of `sweep`."""
    return [
        SearchState(
            space.key,
            space.label,
            dict(space.settings.objectives),
            space.num_points,
            len(Proposals(space, ledger).known),
        )
        for space in sweep.spaces
    ]


class Decisions:
    """What ASHA decided of the trials of one sweep. A decision that was made stays, so that a rerun ends the same trials."""

    def __init__(self, sweep: str, settings: Asha, ledger: Ledger) -> None:
        self.settings, self._ledger = settings, ledger
        self._folder = f"{FOLDER}/{sweep}-asha-{key_of({'kind': 'asha', **settings.identity()})}"
        self._known: dict[str, Mapping[str, Any]] = {}
        self.read()

    def read(self) -> None:
        """Look for decisions that were added since."""
        for name in self._ledger.files.matches(f"{self._folder}/*.json"):
            if name not in self._known:
                try:
                    self._known |= {name: decision} if (decision := self._read(name)) is not None else {}
                except DamagedError as error:
                    WARNINGS.say(error)

    def _read(self, name: str) -> Mapping[str, Any] | None:
        kept = read_object(self._ledger.files, name)
        if kept is None:
            return None
        whose = f"{kept.get('trial', name.rsplit('/', 1)[1].rsplit('-', 1)[0])}-{kept.get('stage')}"
        if f"{self._folder}/{whose}.json" != name or not {"measure", "value", "limit", "goes_on"} <= kept.keys():
            raise damaged(self._ledger.files, name, "is not the decision that its name says")
        return kept

    def may_go_on(self, trial: Trial, stage: int) -> bool | None:
        """Whether the trial may continue beyond a stage; None where nothing was decided."""
        decision = self._known.get(self._file(trial, stage))
        return None if decision is None else bool(decision["goes_on"])

    def stopped(self, trial: Trial) -> Stopped | None:
        """Where the trial was ended, or None."""
        for stage in trial.stages[:-1]:
            decision = self._known.get(self._file(trial, stage.number))
            if decision is not None and not decision["goes_on"]:
                measure = OLD_NAMES.get(decision["measure"], decision["measure"])
                return Stopped(stage.number, measure, decision["value"], decision["limit"], "asha")
        return None

    def add(self, trial: Trial, stage: int, value: float, limit: float | None, *, goes_on: bool) -> bool:
        """Keep a decision; returns what the store has: another run may have decided first."""
        name = self._file(trial, stage)
        decision = {"measure": self.settings.metric, "value": value, "limit": limit, "goes_on": goes_on}
        text = json.dumps({"name": trial.name, "trial": trial.key, "stage": stage, **decision}, indent=1)
        kept = _created(self._ledger.files, name, text, lambda: self._read(name))
        assert kept is not None, f"{name} was written a moment ago"
        self._known[name] = kept
        return bool(kept["goes_on"])

    def _file(self, trial: Trial, stage: int) -> str:
        return f"{self._folder}/{trial.key}-{stage}.json"


def decisions_of(sweep: Sweep, ledger: Ledger) -> Decisions | None:
    """The decisions of the scheduler that the sweep names; None where it names none."""
    return Decisions(sweep.name, sweep.search.asha, ledger) if sweep.search.asha else None
