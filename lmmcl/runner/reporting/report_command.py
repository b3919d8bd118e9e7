"""What `lmmcl report` calls: a report of what the ledger holds, in every format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lmmcl.atomic_files import write_text
from lmmcl.config.cluster import Cluster
from lmmcl.config.sweep import Sweep
from lmmcl.errors import UserError, unknown
from lmmcl.ledger import Ledger
from lmmcl.reports.collect import collect_results
from lmmcl.reports.page.page_extras import page_extras
from lmmcl.reports.recommend import BUDGET
from lmmcl.reports.results import SweepResults
from lmmcl.reports.seeds import averaged, has_seeds
from lmmcl.reports.tables import export
from lmmcl.runner.reporting.report_files import print_table, report_files, write_report
from lmmcl.runner.reporting.sweep_label import find_label
from lmmcl.runner.trackers import fill_mlflow, fill_tracker
from lmmcl.search.run_context import RunContext
from lmmcl.terminal import say, say_json
from lmmcl.tracking.destinations import OFF, destinations
from lmmcl.tracking.extras import resolved

FORMATS = ("table", "json", "md", "csv", "parquet", "html", "latex", "pdf", "svg", "zip")
TO_A_FILE = ("parquet", "pdf", "svg", "zip")


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
    alone = not (mlflow or tracking or pictures)
    is_table = format in ("table", "csv") and to is None and alone
    is_shown = (format == "html" or (format == "table" and to is None)) and alone
    results = collect_results(context, last_only=is_table, shown_only=is_shown)
    label = find_label(sweep, ledger)
    if mlflow:
        fill_mlflow(results, mlflow, context, console, label, lambda: report_files(context, results, label))
    for name in destinations(Cluster(), OFF, tracking).beside:
        fill_tracker(results, name, label, console)
    if pictures:
        _draw(results, pictures, context, console)
    elif format == "table" and to is None:
        print_table(results, console, budget)
    elif format == "html":
        from lmmcl.reports.page.page import write_page

        extras = page_extras(context, results)
        page = to or write_report(results, label.folder, extras)[0]
        if to is not None:
            write_page(results, to, extras)
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
    comparison = hold_against(context.sweep, averaged(results) if has_seeds(results) else results, against)
    if format == "table" and to is None:
        console.print(published_table(comparison), soft_wrap=False)
    else:
        text = published_text(comparison, "md" if format == "table" else format)
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

    files, missing = write_pictures(results, folder, page_extras(context, results))
    for line in [*map(str, files), *missing]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
