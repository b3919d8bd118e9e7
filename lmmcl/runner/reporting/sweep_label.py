"""What a sweep's page, folder and experiment are called: its name, with a number where the store has another sweep of that name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from lmmcl.config.sweep import Sweep
from lmmcl.ledger import Ledger
from lmmcl.ledger.record import DamagedError
from lmmcl.ledger.side_files import encode, read_object, read_text
from lmmcl.masking import mask
from lmmcl.search.run_context import RunContext
from lmmcl.tracking.extras import resolved
from lmmcl.tracking.sweep_identity import SweepIdentity, numbered, origin_of

BESIDE = "lmmcl-reports"
"""Where pages go if the store is elsewhere."""


@dataclass(frozen=True)
class SweepLabel:
    """What a sweep is called in a store; found once, so that all of a run goes to one place whatever other runs do meanwhile.

    `note` is what to tell where something of the sweep's name has another origin.
    """

    identity: SweepIdentity
    ledger: Ledger
    note: str | None = None

    @property
    def name(self) -> str:
        """The sweep's name, with a number where that is another's."""
        return self.identity.name

    @property
    def folder(self) -> Path:
        """Where a run writes its page: in a local store, else beside the work."""
        return Path(self.ledger.store if self.ledger.is_local else BESIDE) / "reports" / self.name

    @property
    def in_store(self) -> SweepIdentity:
        """The sweep as a tracker tells it apart: a file of the same path, in another container say, may have another store."""
        return replace(self.identity, origin=f"{self.identity.origin or 'Python'} in {mask(self.ledger.store)}")

    def keep(self, sweep: Sweep) -> None:
        """Write the sweep as understood into the store: `lmmcl show` reads from it which trials need a step."""
        self._keep(sweep, self.ledger)

    def keep_beside_page(self, sweep: Sweep) -> None:
        """Write the sweep as understood beside its page."""
        self._keep(sweep, _all(self.ledger)[-1])

    def _keep(self, sweep: Sweep, ledger: Ledger) -> None:
        ledger.keep_text(f"reports/{self.name}/sweep.json", resolved(sweep))
        if self.identity.origin and _origin(self.name, ledger) != self.identity.origin:
            ledger.keep_text(_origin_file(self.name), self.identity.origin)


def find_label(sweep: Sweep, ledger: Ledger) -> SweepLabel:
    """The label under which this store knows the sweep, or would."""
    identity = _identity(sweep, ledger)
    label = next(name for name in numbered(sweep.name) if _is_free_everywhere(name, identity, ledger))
    return _labelled(label, identity, sweep, ledger)


def claim_label(sweep: Sweep, ledger: Ledger) -> SweepLabel:
    """The same for a run, which has the label from now on: of two sweeps of one name that start together each gets its own."""
    identity = _identity(sweep, ledger)
    label = next(
        name
        for name in numbered(sweep.name)
        if _is_free_everywhere(name, identity, ledger) and all(_claim(name, identity, store) for store in _all(ledger))
    )
    return _labelled(label, identity, sweep, ledger)


def _identity(sweep: Sweep, ledger: Ledger) -> SweepIdentity:
    trials = {trial.key: trial.name for trial in RunContext.resolve(sweep, ledger).sweep.trials}
    return SweepIdentity(sweep.name, origin_of(sweep), trials)


def _labelled(label: str, identity: SweepIdentity, sweep: Sweep, ledger: Ledger) -> SweepLabel:
    return SweepLabel(replace(identity, name=label), ledger, _note(label, identity, sweep, ledger))


def _note(label: str, identity: SweepIdentity, sweep: Sweep, ledger: Ledger) -> str | None:
    others = [store for store in _all(ledger) if not identity.is_from(_origin(sweep.name, store))]
    if label != sweep.name:
        taken = [store for store in others if not _is_free(sweep.name, identity, store)]
        where = "this store" if not taken or taken[0] is ledger else f"the folder {BESIDE}"
        before = f" ({_origin(sweep.name, taken[0])})" if taken else ""
        return (
            f"note: {where} has another sweep named {sweep.name!r}{before}, with none of these trials: page and "
            f"MLflow experiment of this one are named {label!r}. For another name, edit `name` in {sweep.file}"
        )
    if not others:
        return None
    before = _origin(sweep.name, others[0])
    return f"note: the page of {sweep.name!r} was last made from {before}, which has trials in common; it will show this one"


def _claim(name: str, identity: SweepIdentity, ledger: Ledger) -> bool:
    """Whether the name is this sweep's from now on, where it is free: of several that claim it at once, one gets it."""
    if not identity.origin:  # a sweep built in Python: its name alone decides
        return True
    file = _origin_file(name)
    return ledger.files.create(file, encode(file, identity.origin)) or _is_free(name, identity, ledger)


def _is_free_everywhere(name: str, identity: SweepIdentity, ledger: Ledger) -> bool:
    return all(_is_free(name, identity, store) for store in _all(ledger))


def _origin_file(name: str) -> str:
    return f"reports/{name}/origin.txt"


def _all(ledger: Ledger) -> list[Ledger]:
    return [ledger] if ledger.is_local else [ledger, Ledger(BESIDE)]


def _is_free(name: str, identity: SweepIdentity, ledger: Ledger) -> bool:
    """Whether nobody's report has this name, or this sweep's has; not where another run has claimed it a moment ago."""
    if identity.is_from(_origin(name, ledger)):
        return True
    try:
        before = read_object(ledger.files, f"reports/{name}/sweep.json")
    except DamagedError:  # a run writes it again
        return True
    return before is not None and identity.shares_a_trial([trial["key"] for trial in before["trials"]])


def _origin(name: str, ledger: Ledger) -> str:
    try:
        return (read_text(ledger.files, _origin_file(name)) or "").strip()
    except DamagedError:
        return ""
