"""The trackers of a run: which are started and where, what is said of them at the end, and how they are filled later."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console

from lmmcl.ledger import Ledger
from lmmcl.masking import mask
from lmmcl.reports import formatting
from lmmcl.reports.results import SweepResults
from lmmcl.runner.reporting.sweep_label import SweepLabel
from lmmcl.search.run_context import RunContext
from lmmcl.tracking.background import BackgroundTracker, BackgroundTrackers, Delivery
from lmmcl.tracking.database import (
    SERVERS,
    check_reachable,
    default_artifact_location,
    default_tracking_uri,
    sqlite_file,
)
from lmmcl.tracking.destinations import OFF, SHOWN_AS, Destinations, WriterProcess, how_to_look
from lmmcl.tracking.extras import Answers
from lmmcl.tracking.first_screen import trials_address
from lmmcl.tracking.server_version import are_views_supported
from lmmcl.tracking.sqlite_file import find_experiment
from lmmcl.tracking.tracker import Tracker

UI = "http://127.0.0.1:5000"
"""Where `mlflow ui` answers unless `--port` says otherwise."""


def start_trackers(places: Destinations, context: RunContext, label: SweepLabel) -> BackgroundTrackers:
    """Every tracker that is asked for, each on a thread of its own."""
    trackers = [] if places.mlflow == OFF else [_background(_uri(places, context.ledger), context, label)]
    for name in places.beside:
        connect = partial(_writer, name, tracker_folder(name, label))
        trackers.append(BackgroundTracker(name, label.name, connect=connect, tracker=name))
    return BackgroundTrackers(trackers)


def _uri(places: Destinations, ledger: Ledger) -> str:
    return places.mlflow or default_tracking_uri(ledger.store)


def _background(uri: str, context: RunContext, label: SweepLabel) -> BackgroundTracker:
    check_reachable(uri)
    connect = partial(Tracker, extras=Answers(context).extras)
    return BackgroundTracker(uri, label.in_store, artifact_location(uri, context.ledger), connect=connect)


def _writer(name: str, folder: Path, uri: str, sweep: str, artifacts: str | None) -> WriterProcess:
    return WriterProcess(name, sweep, folder)


def tracker_folder(name: str, label: SweepLabel) -> Path:
    """Where a tracker that writes files keeps those of a sweep: beside its page."""
    return (label.folder / name).absolute()


def tracked_lines(delivery: Delivery, context: RunContext, label: SweepLabel) -> list[str]:
    """What the last lines of a run say of a tracker: what did not arrive, or how to look at it."""
    sent = f"{context.sweep.words} --store {shlex.quote(mask(context.ledger.store))}"
    name = delivery.tracker
    if (message := delivery.message(sent)) is not None:
        return [message]
    if name:
        look = how_to_look(name, label.name, tracker_folder(name, label))
        return [f"{SHOWN_AS[name]:7} {look}"]
    return mlflow_lines(delivery.uri, delivery.address, _other(delivery.experiment, label))


def recorded_lines(uri: str, label: SweepLabel) -> list[str]:
    """How to look at a sweep in a database that shows it already, which may have it under another name; imports no MLflow."""
    file = sqlite_file(uri)
    experiment = find_experiment(file, label.in_store) if file else None
    if experiment is None:
        return mlflow_lines(uri, "")
    id, name = experiment
    return mlflow_lines(uri, trials_address(id, view=are_views_supported(uri)), _other(name, label))


def _other(experiment: str, label: SweepLabel) -> str:
    """What to add where the sweep's experiment is not called like it."""
    return "" if experiment in ("", label.name) else f" (experiment {experiment!r}: another has the name)"


def mlflow_lines(uri: str, address: str, other: str = "") -> list[str]:
    """How to look at the trials in MLflow: the address on a server; else the command that starts one, and the address then."""
    if urlsplit(uri).scheme in SERVERS:
        return [f"MLflow  {mask(uri).rstrip('/')}/{address}{other}"]
    command = f"MLflow  mlflow ui --backend-store-uri {shlex.quote(mask(uri))}{other}"
    return [command, f"        then open {UI}/{address}"] if address else [command]


def artifact_location(uri: str, ledger: Ledger) -> str | None:
    """Beside the store's own database; a server, or a database elsewhere, decides for itself."""
    if not ledger.is_local or uri != default_tracking_uri(ledger.store):
        return None
    return default_artifact_location(ledger.store)


def fill_mlflow(
    results: SweepResults,
    uri: str,
    context: RunContext,
    console: Console,
    label: SweepLabel,
    report: Callable[[], Sequence[Path]],
) -> None:
    """Log every trial, and the files that `report` writes, to the MLflow store at `uri`."""
    check_reachable(uri)
    sweep = label.in_store
    tracker = Tracker(uri, sweep, artifact_location(uri, context.ledger), extras=Answers(context).extras)
    for trial in results.trials:
        tracker.log_trial(trial, running=False)
    tracker.log_report(report())
    other = "" if tracker.experiment == sweep.name else f", as {tracker.experiment!r}: another sweep has the name there"
    lines = [f"{formatting.plural(len(results.trials), 'trial')} in {mask(uri)}{other}"]
    for line in [*lines, *mlflow_lines(uri, tracker.address)]:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def fill_tracker(results: SweepResults, name: str, label: SweepLabel, console: Console) -> None:
    """Write every trial to a tracker beside MLflow."""
    writer = WriterProcess(name, label.name, tracker_folder(name, label))
    for trial in results.trials:
        writer.log_trial(trial, running=False)
    writer.close()
    look = how_to_look(name, label.name, tracker_folder(name, label))
    console.print(
        f"{formatting.plural(len(results.trials), 'trial')} in {name}: {look}", soft_wrap=True, highlight=False
    )
