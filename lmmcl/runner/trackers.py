"""The trackers of a run: which are started and where, what is said of them at the end, and how they are filled later."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console

from lmmcl.config.sweep import Sweep
from lmmcl.ledger import Ledger
from lmmcl.masking import mask
from lmmcl.reports import formatting
from lmmcl.reports.results import SweepResults
from lmmcl.search.run_context import RunContext
from lmmcl.tracking.background import BackgroundTracker, BackgroundTrackers, Delivery
from lmmcl.tracking.database import SERVERS, check_reachable, default_artifact_location, default_tracking_uri
from lmmcl.tracking.destinations import OFF, SHOWN_AS, Destinations, WriterProcess, how_to_look
from lmmcl.tracking.extras import Answers, view_address
from lmmcl.tracking.tracker import Tracker

BESIDE = "lmmcl-reports"
"""Where pages go if the store is elsewhere."""


def start_trackers(places: Destinations, context: RunContext) -> BackgroundTrackers:
    """Every tracker that is asked for, each on a thread of its own."""
    trackers = [] if places.mlflow == OFF else [_background(_uri(places, context.ledger), context)]
    for name in places.beside:
        connect = partial(_writer, name, tracker_folder(name, context))
        trackers.append(BackgroundTracker(name, context.sweep.name, connect=connect, tracker=name))
    return BackgroundTrackers(trackers)


def _uri(places: Destinations, ledger: Ledger) -> str:
    return places.mlflow or default_tracking_uri(ledger.store)


def _background(uri: str, context: RunContext) -> BackgroundTracker:
    check_reachable(uri)
    connect = partial(Tracker, extras=Answers(context).extras)
    return BackgroundTracker(uri, context.sweep.name, artifact_location(uri, context.ledger), connect=connect)


def _writer(name: str, folder: Path, uri: str, sweep: str, artifacts: str | None) -> WriterProcess:
    return WriterProcess(name, sweep, folder)


def tracker_folder(name: str, context: RunContext) -> Path:
    """Where a tracker that writes files keeps those of a sweep: beside its page."""
    return (report_folder(context.ledger, context.sweep) / name).absolute()


def tracked_line(delivery: Delivery, context: RunContext) -> str:
    """What the last lines of a run say of a tracker: what did not arrive, or how to look at it."""
    sent = f"{context.sweep.words} --store {shlex.quote(mask(context.ledger.store))}"
    name = delivery.tracker
    if (message := delivery.message(sent)) is not None:
        return message
    if name:
        look = how_to_look(name, context.sweep.name, tracker_folder(name, context))
        return f"{SHOWN_AS[name]:7} {look}"
    return mlflow_line(delivery.uri)


def mlflow_line(uri: str) -> str:
    """How to look at what MLflow holds."""
    is_server = urlsplit(uri).scheme in SERVERS  # `mlflow ui` is for databases
    look = mask(uri) if is_server else f"mlflow ui --backend-store-uri {shlex.quote(mask(uri))}"
    return f"{'MLflow':7} {look}"


def artifact_location(uri: str, ledger: Ledger) -> str | None:
    """Beside the store's own database; a server, or a database elsewhere, decides for itself."""
    if not ledger.is_local or uri != default_tracking_uri(ledger.store):
        return None
    return default_artifact_location(ledger.store)


def report_folder(ledger: Ledger, sweep: Sweep) -> Path:
    """Where a run writes its page: in a local store, else beside the work."""
    root = Path(ledger.store if ledger.is_local else BESIDE)
    return root / "reports" / sweep.name


def fill_mlflow(
    results: SweepResults, uri: str, context: RunContext, console: Console, report: Callable[[], Sequence[Path]]
) -> None:
    """Log every trial, and the files that `report` writes, to the MLflow store at `uri`."""
    check_reachable(uri)
    name, ledger = context.sweep.name, context.ledger
    tracker = Tracker(uri, name, artifact_location(uri, ledger), extras=Answers(context).extras)
    for trial in results.trials:
        tracker.log_trial(trial, running=False)
    tracker.log_report(report())
    console.print(f"{formatting.plural(len(results.trials), 'trial')} in {uri}", soft_wrap=True)
    console.print(f"trade-off  MLFLOW-ADDRESS/{view_address(tracker.experiment_id)}", soft_wrap=True, highlight=False)


def fill_tracker(results: SweepResults, name: str, context: RunContext, console: Console) -> None:
    """Write every trial to a tracker beside MLflow."""
    writer = WriterProcess(name, context.sweep.name, tracker_folder(name, context))
    for trial in results.trials:
        writer.log_trial(trial, running=False)
    writer.close()
    look = how_to_look(name, context.sweep.name, tracker_folder(name, context))
    console.print(
        f"{formatting.plural(len(results.trials), 'trial')} in {name}: {look}", soft_wrap=True, highlight=False
    )
