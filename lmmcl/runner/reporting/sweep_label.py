"""What a sweep's page, folder and experiment are called: its name, with a number where the store has another sweep of that name."""

from __future__ import annotations

from pathlib import Path

from lmmcl.config.sweep import Sweep
from lmmcl.ledger import Ledger
from lmmcl.ledger.record import DamagedError
from lmmcl.ledger.side_files import read_object, read_text
from lmmcl.search.run_context import RunContext
from lmmcl.tracking.extras import resolved
from lmmcl.tracking.sweep_identity import SweepIdentity, numbered, origin_of

BESIDE = "lmmcl-reports"
"""Where pages go if the store is elsewhere."""


def identify(sweep: Sweep, ledger: Ledger) -> SweepIdentity:
    """The sweep with the name under which this store knows it, or will."""
    trials = {trial.key: trial.name for trial in RunContext.resolve(sweep, ledger).sweep.trials}
    identity = SweepIdentity(sweep.name, origin_of(sweep), trials)
    label = next(
        name for name in numbered(sweep.name) if all(_is_free(name, identity, store) for store in _all(ledger))
    )
    return SweepIdentity(label, identity.origin, trials)


def report_folder(ledger: Ledger, sweep: Sweep) -> Path:
    """Where a run writes its page: in a local store, else beside the work."""
    return Path(ledger.store if ledger.is_local else BESIDE) / "reports" / identify(sweep, ledger).name


def keep_sweep(sweep: Sweep, ledger: Ledger) -> None:
    """Write the sweep as understood into the store: `lmmcl show` reads from it which trials need a step."""
    _keep(sweep, identify(sweep, ledger), ledger)


def keep_beside_page(sweep: Sweep, ledger: Ledger) -> None:
    """Write the sweep as understood beside its page."""
    _keep(sweep, identify(sweep, ledger), _all(ledger)[-1])


def name_note(sweep: Sweep, ledger: Ledger) -> str | None:
    """What to tell of a sweep where something of its name has another origin, or None."""
    identity = identify(sweep, ledger)
    before = _origin(sweep.name, ledger)
    if identity.name != sweep.name:
        return (
            f"note: this store has another sweep named {sweep.name!r} ({before}), with none of these trials: page and "
            f"MLflow experiment of this one are named {identity.name!r}. For another name, edit `name` in {sweep.file}"
        )
    if identity.is_from(before):
        return None
    return f"note: the page of {sweep.name!r} was last made from {before}, which has trials in common; it will show this one"


def _keep(sweep: Sweep, identity: SweepIdentity, ledger: Ledger) -> None:
    ledger.keep_text(f"reports/{identity.name}/sweep.json", resolved(sweep))
    if identity.origin and _origin(identity.name, ledger) != identity.origin:
        ledger.keep_text(f"reports/{identity.name}/origin.txt", identity.origin)


def _all(ledger: Ledger) -> list[Ledger]:
    return [ledger] if ledger.is_local else [ledger, Ledger(BESIDE)]


def _is_free(name: str, identity: SweepIdentity, ledger: Ledger) -> bool:
    """Whether nobody's report has this name, or this sweep's has."""
    if identity.is_from(_origin(name, ledger)):
        return True
    try:
        before = read_object(ledger.files, f"reports/{name}/sweep.json")
    except DamagedError:  # a run writes it again
        before = None
    return before is None or identity.shares_a_trial([trial["key"] for trial in before["trials"]])


def _origin(name: str, ledger: Ledger) -> str:
    try:
        return (read_text(ledger.files, f"reports/{name}/origin.txt") or "").strip()
    except DamagedError:
        return ""
