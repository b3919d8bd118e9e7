"""Trials by name where only a store is given: those of the sweeps that were run or reported with it, and those that failed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lmmcl.config.trial_names import SEPARATOR, find_one, near_part
from lmmcl.errors import UserError, shown, unknown
from lmmcl.ledger import Ledger
from lmmcl.ledger.record import DamagedError
from lmmcl.ledger.side_files import WARNINGS, read_object
from lmmcl.reports.failures import all_failures
from lmmcl.steps import Recorded

AFTER_STAGE = re.compile(r"(.+)@(\d+)")
"""`TRIAL@STAGE`: the checkpoint after a stage of a trial."""


@dataclass(frozen=True)
class StoredTrial:
    """A trial as its sweep wrote it down; `steps` are the keys of what is evaluated after each stage, none where only a
    failure is known."""

    name: str
    key: str
    sweep: str = ""
    steps: Mapping[str, str] = field(default_factory=dict)


def stored_sweeps(ledger: Ledger) -> Iterator[dict[str, Any]]:
    """What runs and reports of the store understood of their sweeps; damaged files are named in the log and left out."""
    for name in ledger.files.matches("reports/*/sweep.json"):
        try:
            yield read_object(ledger.files, name) or {"trials": []}
        except DamagedError as error:
            WARNINGS.say(error)


def stored_trials(ledger: Ledger) -> list[StoredTrial]:
    """All trials that the store knows by name, each once."""
    by_key = {failure.key: StoredTrial(failure.trial, failure.key) for failure in all_failures(ledger) if failure.trial}
    for sweep in stored_sweeps(ledger):
        for trial in sweep["trials"]:
            by_key[trial["key"]] = StoredTrial(trial["name"], trial["key"], sweep["name"], trial.get("steps", {}))
    return list(by_key.values())


def find_stored_trial(ledger: Ledger, wanted: str) -> StoredTrial | None:
    """The trial that a name, a part of one, or `SWEEP: NAME` means; None where no trial fits. Raises UserError for several."""
    trials = stored_trials(ledger)
    sweep, colon, name = wanted.partition(": ")
    if colon and (of_sweep := [trial for trial in trials if trial.sweep == sweep]):
        trials, wanted = of_sweep, name
    return find_one(wanted, trials, file=f"store {ledger.store}", missing_ok=True)


def find_checkpoint(ledger: Ledger, wanted: str) -> Recorded:
    """The recorded checkpoint with this key (or its beginning), label or folder name, or the last one of the trial that is meant.

    `TRIAL@STAGE` is that after a stage of it. Raises UserError with the near ones, or with what a trial that is not finished has
    so far.
    """
    if ledger.checkpoint_paths(wanted):
        return ledger.checkpoint(wanted)
    if match := AFTER_STAGE.fullmatch(wanted):
        return _after_stage(ledger, match[1], match[2])
    trial = find_stored_trial(ledger, wanted)
    if trial is None:
        folders = [path.rsplit("/", 1)[1] for path in ledger.paths()]
        raise UserError(_unknown(ledger, "checkpoint or trial", wanted, folders), file=f"store {ledger.store}")
    if not ledger.checkpoint_paths(trial.key):
        raise unfinished(ledger, trial)
    return ledger.checkpoint(trial.key)


def _unknown(ledger: Ledger, kind: str, wanted: str, others: Iterable[str] = ()) -> str:
    """With the nearest names, and the nearest part of a trial's name."""
    names = [trial.name for trial in stored_trials(ledger)]
    parts = {part for name in names for part in name.split(SEPARATOR)}
    near = near_part(wanted, parts | {part.partition("(")[0] for part in parts})
    return f"{unknown(kind, wanted, [*names, *others])}{near}"


def _after_stage(ledger: Ledger, wanted: str, stage: str) -> Recorded:
    trial = find_stored_trial(ledger, wanted)
    if trial is None:
        raise UserError(_unknown(ledger, "trial", wanted), file=f"store {ledger.store}")
    key = trial.steps.get(str(int(stage)))
    if key is None:
        allowed = f"0 to {max(map(int, trial.steps))}" if trial.steps else "none is known"
        raise UserError(
            f"trial {shown(trial.name)} has no stage {stage}; allowed: {allowed}", file=f"store {ledger.store}"
        )
    if not ledger.checkpoint_paths(key):
        raise unfinished(ledger, trial)
    return ledger.checkpoint(key)


def unfinished(ledger: Ledger, trial: StoredTrial) -> UserError:
    """Why a trial has no last checkpoint to show, and which one it has."""
    recorded = [(number, key) for number, key in trial.steps.items() if ledger.checkpoint_paths(key)]
    so_far = f"; after stage {recorded[-1][0]} its checkpoint is {recorded[-1][1]}" if recorded else ""
    return UserError(
        f"trial {shown(trial.name)} has no checkpoint of its last stage yet{so_far}. see `lmmcl status`",
        file=f"store {ledger.store}",
    )
