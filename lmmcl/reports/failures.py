"""Why trials failed when they were last run: a text beside the records, told by reports until the trial is run again."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from lmmcl.ledger import Ledger
from lmmcl.ledger.record import DamagedError
from lmmcl.ledger.side_files import read_text
from lmmcl.masking import mask
from lmmcl.reports import formatting
from lmmcl.steps.trial import Trial

FOLDER = "failures"
DETAILS = "\n\n--- traceback ---\n"


@dataclass(frozen=True)
class Failure:
    """Why a trial failed for good: the reason (of a process that died, with the end of its log), and the traceback."""

    key: str
    trial: str
    why: str
    details: str

    @property
    def line(self) -> str:
        """The reason in one line."""
        return formatting.first_line(self.why)


def keep_failure(ledger: Ledger, trial: Trial, why: str, details: str) -> None:
    """Keep why `trial` failed. Raises UserError or OSError when the store does not take it."""
    ledger.keep_text(_file(trial.key), mask(f"{trial.name}\n{why}{DETAILS}{details}\n"))


def kept_failures(ledger: Ledger, trials: Iterable[Trial]) -> dict[str, Failure]:
    """What is kept of `trials`, by trial key."""
    wanted = _kept(ledger) & {trial.key for trial in trials}
    return {key: failure for key in sorted(wanted) if (failure := _read(ledger, key)) is not None}


def find_failure(ledger: Ledger, wanted: str) -> Failure | None:
    """What is kept of the trial with this name or key (or a beginning of the key that no other has)."""
    keys = _kept(ledger)
    hits = [key for key in keys if key.startswith(wanted)]
    if len(hits) == 1:
        return _read(ledger, hits[0])
    return next((failure for failure in all_failures(ledger) if failure.trial == wanted), None)


def all_failures(ledger: Ledger) -> list[Failure]:
    """All that is kept, by key."""
    return [failure for key in sorted(_kept(ledger)) if (failure := _read(ledger, key))]


def forget_failures(ledger: Ledger, trials: Iterable[Trial]) -> None:
    """Remove what is kept of `trials`: they are run again, with an outcome still open."""
    for key in kept_failures(ledger, trials):
        with suppress(FileNotFoundError):  # another run was first
            ledger.files.remove(_file(key))


def _file(key: str) -> str:
    return f"{FOLDER}/{key}.txt"


def _kept(ledger: Ledger) -> set[str]:
    names = ledger.files.matches(_file("*"))
    return {name.removeprefix(f"{FOLDER}/").removesuffix(".txt") for name in names}


def _read(ledger: Ledger, key: str) -> Failure | None:
    try:
        text = read_text(ledger.files, _file(key))
    except DamagedError as error:
        return Failure(key, "", f"the failure note is damaged: {error}", "")
    if text is None:  # a run that begins forgets it
        return None
    head, _, details = text.partition(DETAILS)
    trial, _, why = head.partition("\n")
    return Failure(key, trial, why, details.rstrip("\n"))
