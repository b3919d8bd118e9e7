"""What the command line calls: a run with its report, a report alone."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lmmcl.atomic_files import write_text
from lmmcl.config.cluster import Cluster
from lmmcl.config.overlaps import find_overlaps
from lmmcl.config.sweep import Sweep
from lmmcl.errors import UserError, explain, unknown
from lmmcl.ledger import Ledger
from lmmcl.ledger.index.view import RecordView
from lmmcl.ledger.store import full, is_full
from lmmcl.masking import mask
from lmmcl.planning.data_notes import data_notes, overlap_notes
from lmmcl.planning.nearby_stores import store_state
from lmmcl.planning.trial_notes import few_examples
from lmmcl.reports import formatting
from lmmcl.reports.collect import collect_results
from lmmcl.reports.correlation import correlation_table
from lmmcl.reports.flips import front_keys, page_flips
from lmmcl.reports.inside import inside_table
from lmmcl.reports.recommend import BUDGET, recommendation
from lmmcl.reports.results import SweepResults
from lmmcl.reports.seeds import averaged, has_seeds
from lmmcl.reports.tables import export
from lmmcl.reports.tables.bound_table import bounds_table
from lmmcl.reports.tables.moments import moments_table
from lmmcl.reports.tables.order_spread import orders_table
from lmmcl.reports.tables.pairs import pairs_table
from lmmcl.reports.tables.table import terminal_table
from lmmcl.reports.tables.wording_spread import wordings_table
from lmmcl.runner.run import Outcome, run_sweep
from lmmcl.runner.trackers import (
    BESIDE,
    fill_mlflow,
    fill_tracker,
    mlflow_line,
    report_folder,
    start_trackers,
    tracked_line,
)
from lmmcl.runner.up_to_date import note_shown, page_of
from lmmcl.search.run_context import RunContext
from lmmcl.terminal import say, say_json
from lmmcl.tracking.database import MLFLOW_VARIABLE, default_tracking_uri
from lmmcl.tracking.destinations import OFF, Destinations, destinations
from lmmcl.tracking.extras import resolved, write_answers

FORMATS = ("table", "json", "md", "csv", "parquet", "html", "latex", "pdf", "svg", "zip")
TO_A_FILE = ("parquet", "pdf", "svg", "zip")


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
    for line in store_state(sweep, ledger, view).lines():
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    places = destinations(cluster, mlflow or os.environ.get(MLFLOW_VARIABLE), tracking)
    folder = report_folder(ledger, sweep)
    if (page := page_of(folder, sweep, ledger, view, places)) is not None:
        _show_again(sweep, ledger, view, places, page, console, started)
        return False
    context = RunContext.resolve(sweep, ledger)
    keep_sweep(context.sweep, ledger)
    trackers = start_trackers(places, context)
    notes = (note for trial in sweep.trials for note in (*few_examples(trial), *data_notes(trial)))
    for note in dict.fromkeys([*notes, *overlap_notes(find_overlaps(sweep))]):
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    files: list[Path] = []
    logged: list[Path] = []
    try:
        outcome = run_sweep(context, cluster, console=console, inline=inline, tracker=trackers)
        files, logged, unwritten = _write(context, outcome, tables=trackers.with_mlflow)
        for trial in outcome.results.trials:
            trackers.put(trial)
    finally:
        deliveries = trackers.close(report=logged)
    print_table(outcome.results, console)
    lines = [
        f"{outcome.counts()}; {time.monotonic() - started:.0f} s",
        f"page    {files[0] if files else f'not written: {unwritten}'}",
        f"store   {ledger.store}",
    ]
    lines += [tracked_line(delivery, context) for delivery in deliveries]
    if outcome.failures:
        lines.append(
            f"failed  {formatting.plural(len(outcome.failures), 'trial')}; run the same command to retry; "
            f"tracebacks in {ledger.store}/failures"
        )
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if not (unwritten or outcome.failures or any(delivery.message("") for delivery in deliveries)):
        note_shown(folder, sweep, ledger, RecordView(ledger), places)
    if unwritten and not outcome.failures:
        raise _report_missing(unwritten, sweep, ledger)
    return bool(outcome.failures)


def _show_again(
    sweep: Sweep,
    ledger: Ledger,
    view: RecordView,
    places: Destinations,
    page: Path,
    console: Console,
    started: float,
) -> None:
    """The table of a sweep that is recorded whole, and whose page and MLflow show it as it is."""
    results = collect_results(RunContext.resolve(sweep, ledger), last_only=True, view=view)
    print_table(results, console)
    lines = [
        f"0 steps computed, {results.recorded} recorded before; {time.monotonic() - started:.0f} s",
        f"page    {page} (up to date)",
        f"store   {ledger.store}",
    ]
    if places.mlflow != OFF:
        lines.append(mlflow_line(places.mlflow or default_tracking_uri(ledger.store)))
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _write(
    context: RunContext, outcome: Outcome, *, tables: bool
) -> tuple[list[Path], list[Path], UserError | OSError | None]:
    """The files of the report, those for MLflow, and what kept them from being written (a full disk, say).

    It is reported after everything that was computed, and hides no result and no failure.
    """
    try:
        keep_sweep(context.sweep, context.ledger)
        folder = report_folder(context.ledger, context.sweep)
        files = write_report(outcome.results, folder, page_flips(context, outcome.results))
        return files, [*files, *write_tables(context, outcome.results)] if tables else [], None
    except (UserError, OSError) as error:
        return [], [], error


def _report_missing(error: UserError | OSError, sweep: Sweep, ledger: Ledger) -> UserError:
    """The message where all is computed and the report could not be written; the page of an earlier run is still there."""
    why = str(full(report_folder(ledger, sweep), ledger.store)) if is_full(error) else explain(error)
    again = f"lmmcl report {sweep.words} --store {shlex.quote(mask(ledger.store))} --format html"
    return UserError(
        f"the report could not be written (an earlier one is unchanged): {why}. All steps are recorded; to write it later: {again}"
    )


def keep_sweep(sweep: Sweep, ledger: Ledger) -> None:
    """Write the sweep as understood beside its report: `lmmcl show` reads from it which trials need a step."""
    ledger.keep_text(f"reports/{sweep.name}/sweep.json", resolved(sweep))


def write_report(results: SweepResults, folder: Path, flips: Sequence[Mapping[str, Any]] = ()) -> list[Path]:
    """The page (with the questions of `flips`) and the picture of the trade-off."""
    from lmmcl.reports.page.page import write_page
    from lmmcl.reports.plots import write_scatter

    page, picture = folder / "index.html", folder / "tradeoff.png"
    write_page(results, page, flips)
    write_scatter(results, picture)
    return [page, picture]


def print_table(results: SweepResults, console: Console, budget: float = BUDGET) -> None:
    """The trade-off table, as wide as the terminal (or the pipe's default) allows, what to take, what the probes go with."""
    console.print(terminal_table(results, console.width), soft_wrap=True)
    advice = recommendation(averaged(results) if has_seeds(results) else results, budget)
    if advice:
        console.print(f"Which to take, with at most {budget:g} points of held-out forgetting (--budget)", style="bold")
        console.print("\n".join(f"  {line}" for line in advice), markup=False, highlight=False, soft_wrap=True)
    for table in (
        correlation_table(results),
        inside_table(results),
        moments_table(results, budget),
        wordings_table(results),
        pairs_table(results),
        orders_table(results),
        bounds_table(results),
    ):
        if table is not None:
            console.print(table, soft_wrap=True)
    for note in results.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def report_sweep(
    sweep: Sweep,
    ledger: Ledger,
    *,
    format: str,
    to: Path | None,
    mlflow: str | None,
    console: Console,
    budget: float = BUDGET,
    pictures: Path | None = None,
    tracking: Sequence[str] = (),
) -> None:
    """Show or write the report of what the ledger holds; `mlflow` and `tracking` are filled too, `pictures` is a folder of PNGs."""
    if format not in FORMATS:
        raise UserError(unknown("format", format, FORMATS))
    context = RunContext.resolve(sweep, ledger)
    is_table = format in ("table", "csv") and to is None and not (mlflow or tracking or pictures)
    results = collect_results(context, last_only=is_table)
    if mlflow:
        fill_mlflow(results, mlflow, context, console, lambda: _report_files(context, results))
    for name in destinations(Cluster(), OFF, tracking).beside:
        fill_tracker(results, name, context, console)
    if pictures:
        _draw(results, pictures, context, console)
    elif format == "table" and to is None:
        print_table(results, console, budget)
    elif format == "html":
        from lmmcl.reports.page.page import write_page

        flips = page_flips(context, results)
        page = to or write_report(results, report_folder(ledger, sweep), flips)[0]
        if to is not None:
            write_page(results, to, flips)
        console.print(str(page), soft_wrap=True)
    elif format == "latex":
        _show_or_write(paper_text(context, results), to, format)
    elif format in TO_A_FILE and to is None:
        raise UserError(f"--format {format} needs --to FILE")
    elif format in ("pdf", "svg") and to is not None:
        _draw_for_paper(results, to, format)
    elif format == "zip" and to is not None:
        _bundle(context, results, to)
    elif to is not None:
        export.write(results, to, "md" if format == "table" else format, budget)
    else:
        _print_text(export.as_text(results, format, budget), format)


def report_against(
    sweep: Sweep, ledger: Ledger, against: str, *, format: str, to: Path | None, console: Console
) -> None:
    """Show or write our figures beside published ones (see `lmmcl.reports.published.published`)."""
    from lmmcl.reports.published.published import hold_against
    from lmmcl.reports.published.published_view import published_table, published_text

    context = RunContext.resolve(sweep, ledger)
    results = collect_results(context)
    found = hold_against(context.sweep, averaged(results) if has_seeds(results) else results, against)
    if format == "table" and to is None:
        console.print(published_table(found), soft_wrap=False)
    else:
        text = published_text(found, "md" if format == "table" else format)
        _show_or_write(text if to is None else f"{text}\n", to, format)


def paper_text(context: RunContext, results: SweepResults) -> str:
    """The table for a paper, and the paragraph on methods."""
    from lmmcl.reports.paper.latex import escape_latex, latex_table
    from lmmcl.reports.paper.methods_text import methods_text

    return f"{latex_table(results)}\n% methods\n{escape_latex(methods_text(context, results))}\n"


def _draw_for_paper(results: SweepResults, to: Path, format: str) -> None:
    from lmmcl.reports.plots import write_paper_figure

    if to.suffix != f".{format}":
        raise UserError(f"--format {format} writes a file that ends in .{format}, not {to.name}")
    write_paper_figure(results, to)


def _bundle(context: RunContext, results: SweepResults, to: Path) -> None:
    from lmmcl.reports.paper.bundle import write_bundle

    texts = {"table.tex": paper_text(context, results), "sweep.json": resolved(context.sweep) + "\n"}
    write_bundle(context, results, to, texts)


def _show_or_write(text: str, to: Path | None, format: str) -> None:
    if to is None:
        _print_text(text, format)
    else:
        write_text(to, text)


def _print_text(text: str, format: str) -> None:
    (say_json if format == "json" else say)(text.rstrip("\n"))


def _draw(results: SweepResults, folder: Path, context: RunContext, console: Console) -> None:
    from lmmcl.maintenance.screenshots import write_pictures

    files, missing = write_pictures(results, folder, page_flips(context, results))
    for line in [*map(str, files), *missing]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _report_files(context: RunContext, results: SweepResults) -> list[Path]:
    files = write_report(results, report_folder(context.ledger, context.sweep), page_flips(context, results))
    return [*files, *write_tables(context, results)]


def write_tables(context: RunContext, results: SweepResults) -> list[Path]:
    """What the report's run in MLflow holds beside the page: the sweep as understood, its file, answers with pictures."""
    sweep, ledger = context.sweep, context.ledger
    folder = report_folder(ledger, sweep)
    keep_sweep(sweep, ledger if ledger.is_local else Ledger(BESIDE))
    answers = write_answers(context, folder / "answers", front_keys(results))
    file = Path(sweep.file)
    return [folder / "sweep.json", *([file] if file.is_file() else []), *([answers] if answers else [])]
