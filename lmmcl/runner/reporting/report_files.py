"""What a report consists of: the page, the picture, tables for MLflow, and what the terminal shows."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from lmmcl.reports.correlation import correlation_table
from lmmcl.reports.flips import front_keys
from lmmcl.reports.inside import inside_table
from lmmcl.reports.page.page_extras import PageExtras, page_extras
from lmmcl.reports.recommend import BUDGET, recommendation
from lmmcl.reports.results import SweepResults
from lmmcl.reports.seeds import averaged, has_seeds
from lmmcl.reports.tables.bound_table import bounds_table
from lmmcl.reports.tables.generation_budget import generation_table
from lmmcl.reports.tables.moments import moments_table
from lmmcl.reports.tables.order_spread import orders_table
from lmmcl.reports.tables.pairs import pairs_table
from lmmcl.reports.tables.table import terminal_table
from lmmcl.reports.tables.wording_spread import wordings_table
from lmmcl.runner.reporting.sweep_label import SweepLabel
from lmmcl.search.run_context import RunContext
from lmmcl.tracking.extras import write_answers


def write_report(results: SweepResults, folder: Path, extras: PageExtras | None = None) -> list[Path]:
    """The page (with a folder beside it where it is large), the picture of the trade-off, and that of KL where it was measured."""
    from lmmcl.reports.page.page import write_page
    from lmmcl.reports.pictures.divergence_plot import FILE, write_divergence
    from lmmcl.reports.plots import write_scatter

    files, picture = write_page(results, folder / "index.html", extras), folder / "tradeoff.png"
    write_scatter(results, picture)
    law = write_divergence(results, folder / FILE)
    return [*files, picture, *([law] if law else [])]


def print_table(results: SweepResults, console: Console, budget: float = BUDGET) -> None:
    """The trade-off table, as wide as the terminal (or the pipe's default) allows, what to take, what the probes go with."""
    soft = not console.is_terminal  # a terminal breaks lines at words; a file keeps them whole
    console.print(terminal_table(results, console.width), soft_wrap=soft)
    advice = recommendation(averaged(results) if has_seeds(results) else results, budget)
    if advice:
        heading = f"Which to take, with at most {budget:g} points of held-out forgetting (--budget)"
        console.print(Text(heading, style="bold"), soft_wrap=soft)
        for line in advice:
            console.print(Text(f"  {line}") if soft else Padding(Text(line), (0, 0, 0, 2)), soft_wrap=soft)
    for table in (
        correlation_table(results),
        inside_table(results),
        moments_table(results, budget),
        wordings_table(results),
        pairs_table(results),
        orders_table(results),
        bounds_table(results),
        generation_table(results),
    ):
        if table is not None:
            console.print(table, soft_wrap=soft)
    for note in results.notes:
        console.print(Text(f"note: {note}"), soft_wrap=soft)


def write_tables(context: RunContext, results: SweepResults, label: SweepLabel) -> list[Path]:
    """What the report's run in MLflow holds beside the page: the sweep as understood, its file, answers with pictures."""
    label.keep_beside_page(context.sweep)
    answers = write_answers(context, label.folder / "answers", front_keys(results))
    file = Path(context.sweep.file)
    return [label.folder / "sweep.json", *([file] if file.is_file() else []), *([answers] if answers else [])]


def report_files(context: RunContext, results: SweepResults, label: SweepLabel) -> list[Path]:
    """Write page, picture and tables; gives the files that MLflow's run of the report holds."""
    files = write_report(results, label.folder, page_extras(context, results))
    return [*files, *write_tables(context, results, label)]
