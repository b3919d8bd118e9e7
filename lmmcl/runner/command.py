"""What `lmmcl run` calls: a run with its report and its trackers."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lmmcl.config.cluster import Cluster
from lmmcl.config.overlaps import find_overlaps
from lmmcl.config.sweep import Sweep
from lmmcl.errors import UserError, explain
from lmmcl.ledger import Ledger
from lmmcl.ledger.index.view import RecordView
from lmmcl.ledger.store import full, is_full
from lmmcl.masking import mask
from lmmcl.planning.data_notes import data_notes, overlap_notes
from lmmcl.planning.nearby_stores import store_state
from lmmcl.planning.trial_notes import few_examples
from lmmcl.reports import formatting
from lmmcl.reports.collect import collect_results
from lmmcl.reports.page.page_extras import page_extras
from lmmcl.runner.heartbeat import saying
from lmmcl.runner.reporting.report_files import print_table, write_report, write_tables
from lmmcl.runner.reporting.sweep_label import SweepLabel, claim_label
from lmmcl.runner.run import Outcome, run_sweep
from lmmcl.runner.trackers import recorded_lines, start_trackers, tracked_lines
from lmmcl.runner.up_to_date import note_shown, page_of
from lmmcl.search.run_context import RunContext
from lmmcl.tracking.database import MLFLOW_VARIABLE, default_tracking_uri
from lmmcl.tracking.destinations import OFF, Destinations, destinations
from lmmcl.weights.freed_memory import collection_paused


def run_and_report(
    sweep: Sweep,
    ledger: Ledger,
    cluster: Cluster,
    *,
    inline: bool,
    mlflow: str | None,
    console: Console,
    tracking: Sequence[str] = (),
) -> bool:
    """Run `sweep`, print its table, write its page, bring the trackers up to date; returns whether a trial failed."""
    started = time.monotonic()
    ledger.check_writable()
    view = RecordView(ledger)
    label = claim_label(sweep, ledger)
    for line in [*store_state(sweep, ledger, view).lines(), *filter(None, [label.note])]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    places = destinations(cluster, mlflow or os.environ.get(MLFLOW_VARIABLE), tracking)
    if (page := page_of(label.folder, sweep, ledger, view, places)) is not None:
        _show_again(sweep, label, view, places, page, console, started)
        return False
    context = RunContext.resolve(sweep, ledger)
    label.keep(context.sweep)
    trackers = start_trackers(places, context, label)
    notes = (note for trial in sweep.trials for note in (*few_examples(trial), *data_notes(trial)))
    for note in dict.fromkeys([*notes, *overlap_notes(find_overlaps(sweep))]):
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    files: list[Path] = []
    logged: list[Path] = []
    try:
        outcome = run_sweep(context, cluster, console=console, inline=inline, tracker=trackers)
        with saying(console, "writing the report"), collection_paused():
            files, logged, unwritten = _write(context, outcome, label, tables=trackers.with_mlflow)
        for trial in outcome.results.trials:
            trackers.put(trial)
    finally:
        with saying(console, "logging the results"):
            deliveries = trackers.close(report=logged)
    print_table(outcome.results, console)
    lines = [
        f"{outcome.counts()}; {time.monotonic() - started:.0f} s",
        f"page    {files[0] if files else f'not written: {unwritten}'}",
        f"store   {ledger.store}",
    ]
    if outcome.failures:
        lines.append(
            f"failed  {formatting.plural(len(outcome.failures), 'trial')}; run the same command to retry; "
            f"tracebacks in {ledger.store}/failures"
        )
    # MLflow's is last in the list of trackers' lines, and its last line is what a person copies
    lines += [line for delivery in reversed(deliveries) for line in tracked_lines(delivery, context, label)]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if not (unwritten or outcome.failures or any(delivery.message("") for delivery in deliveries)):
        note_shown(label.folder, sweep, ledger, RecordView(ledger), places)
    if unwritten and not outcome.failures:
        raise _report_missing(unwritten, sweep, label)
    return bool(outcome.failures)


def _show_again(
    sweep: Sweep,
    label: SweepLabel,
    view: RecordView,
    places: Destinations,
    page: Path,
    console: Console,
    started: float,
) -> None:
    """The table of a sweep that is recorded whole, and whose page and MLflow show it as it is."""
    ledger = label.ledger
    results = collect_results(RunContext.resolve(sweep, ledger), last_only=True, shown_only=True, view=view)
    print_table(results, console)
    lines = [
        f"0 steps computed, {results.recorded} recorded before; {time.monotonic() - started:.0f} s",
        f"page    {page} (up to date)",
        f"store   {ledger.store}",
    ]
    if places.mlflow != OFF:
        lines += recorded_lines(places.mlflow or default_tracking_uri(ledger.store), label)
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _write(
    context: RunContext, outcome: Outcome, label: SweepLabel, *, tables: bool
) -> tuple[list[Path], list[Path], UserError | OSError | None]:
    """The files of the report, those for MLflow, and what kept them from being written (a full disk, say).

    It is reported after everything that was computed, and hides no result and no failure.
    """
    try:
        label.keep(context.sweep)
        files = write_report(outcome.results, label.folder, page_extras(context, outcome.results))
        return files, [*files, *write_tables(context, outcome.results, label)] if tables else [], None
    except (UserError, OSError) as error:
        return [], [], error


def _report_missing(error: UserError | OSError, sweep: Sweep, label: SweepLabel) -> UserError:
    """The message where all is computed and the report could not be written; the page of an earlier run is still there."""
    why = str(full(label.folder, label.ledger.store)) if is_full(error) else explain(error)
    again = f"lmmcl report {sweep.words} --store {shlex.quote(mask(label.ledger.store))} --format html"
    return UserError(
        f"the report could not be written (an earlier one is unchanged): {why}. All steps are recorded; to write it later: {again}"
    )
