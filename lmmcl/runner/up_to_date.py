"""Whether a run would find nothing to do: all is recorded, and page and MLflow show it as it is.

A run that ends well leaves a note beside its page of what it showed: a hash of the stamps of all records, and of MLflow's database.
Where these are the same there is nothing to write again. A tracking server is somebody else's, who may have lost what it had: a
run always brings that up to date, and other trackers too.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lmmcl.atomic_files import write_text
from lmmcl.config.sweep import Sweep
from lmmcl.ledger import Ledger
from lmmcl.ledger.index.view import RecordView
from lmmcl.ledger.packs.listing import local_stamp
from lmmcl.reports.failures import kept_failures
from lmmcl.search.run_context import RunContext
from lmmcl.search.search_state import search_states
from lmmcl.tracking.database import default_tracking_uri, sqlite_file
from lmmcl.tracking.destinations import OFF, Destinations
from lmmcl.tracking.extras import resolved
from lmmcl.version import __version__, source_commit

NOTE = "shown.json"


def page_of(folder: Path, sweep: Sweep, ledger: Ledger, view: RecordView, places: Destinations) -> Path | None:
    """The page in `folder` where it and MLflow show the finished sweep as it is; None where a run has something to do."""
    page = folder / "index.html"
    if not page.is_file():
        return None
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    now = _state(sweep, ledger, view, places)
    return page if now is not None and now == note else None


def note_shown(folder: Path, sweep: Sweep, ledger: Ledger, view: RecordView, places: Destinations) -> None:
    """Write down what page and MLflow show now; nothing where that is not all, or where it cannot be known."""
    state = _state(sweep, ledger, view, places)
    if state is not None:
        write_text(folder / NOTE, json.dumps(state, indent=1))


def _state(sweep: Sweep, ledger: Ledger, view: RecordView, places: Destinations) -> dict[str, Any] | None:
    if places.beside or any(state.proposed < state.num_points for state in search_states(sweep, ledger)):
        return None
    context = RunContext.resolve(sweep, ledger, view.find)
    steps = context.steps()
    view.prefetch(steps.values())
    if not all(view.has(step) for step in steps.values()) or kept_failures(ledger, context.sweep.trials):
        return None
    database = None
    if places.mlflow != OFF:
        file = sqlite_file(places.mlflow or default_tracking_uri(ledger.store))
        database = local_stamp(str(file)) if file else None
        if database is None:
            return None
    digest = hashlib.sha256(resolved(context.sweep).encode()).hexdigest()
    source = {"lmmcl": __version__, "commit": source_commit(), "store": ledger.store}
    return {**source, "sweep": digest, "records": view.fingerprint(steps.values()), "mlflow": database}
