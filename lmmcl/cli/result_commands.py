"""What a sweep found: report · compare · samples."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from lmmcl.cli.completion import one_of, sweep_benchmarks, trials
from lmmcl.cli.options import (
    AsJson,
    ClusterFile,
    Overrides,
    Store,
    SweepFile,
    Tracking,
    TrialName,
    given_again,
    load_cluster,
    load_sweep,
    open_ledger,
    print_json,
    read_ledger,
)
from lmmcl.errors import UserError
from lmmcl.terminal import say, wide_console

app = typer.Typer()
FORMATS = ("table", "json", "md", "csv", "parquet", "html", "latex", "pdf", "svg", "zip")
ReportFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="table, json, md, csv, parquet, html, latex, pdf, svg or zip",
        show_default="table",
        shell_complete=one_of(FORMATS),
    ),
]


@app.command()
def report(
    sweep: SweepFile,
    set_: Overrides = None,
    store: Store = None,
    cluster: ClusterFile = None,
    format_: ReportFormat = None,
    csv: Annotated[bool, typer.Option("--csv", help="same as --format csv")] = False,
    to: Annotated[Path | None, typer.Option("--to", help="write to this file")] = None,
    mlflow: Annotated[
        str | None, typer.Option("--mlflow", help="fill this MLflow tracking store from the ledger")
    ] = None,
    tracking: Tracking = None,
    budget: Annotated[
        float | None,
        typer.Option("--budget", min=0, help="acceptable held-out forgetting, in percentage points", show_default="2"),
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="figures to compare with: 'published', or a YAML file")
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            "--pictures", help="write PNGs of the trade-off, the page and MLflow to this folder, and no table"
        ),
    ] = None,
) -> None:
    """Show the trade-off of learning against forgetting, from what the ledger holds."""
    from lmmcl.reports.recommend import BUDGET
    from lmmcl.runner.reporting.report_command import report_against, report_sweep

    options: dict[str, object] = {"--mlflow": mlflow, "--tracking": tracking or None, "--pictures": pictures}
    options |= {"--budget": budget, "--csv": csv or None, "--format": format_, "--to": to, "--against": against}
    _check_together({name for name, value in options.items() if value is not None}, format_)
    # What was published can be looked at before the first run.
    ledger = read_ledger(store, cluster) if against is None else open_ledger(store, load_cluster(cluster))
    console = wide_console()
    format_ = "csv" if csv else format_ or "table"
    if against is not None:
        report_against(load_sweep(sweep, set_), ledger, against, format=format_, to=to, console=console)
        return
    report_sweep(
        load_sweep(sweep, set_),
        ledger,
        format=format_,
        to=to,
        mlflow=mlflow,
        tracking=tracking or (),
        console=console,
        budget=BUDGET if budget is None else budget,
        pictures=pictures,
    )


def _check_together(options: set[str], format: str | None) -> None:
    """Raises UserError for options of `report` that cancel each other's effect."""
    if "--csv" in options and format not in (None, "csv"):
        raise UserError(f"--csv means --format csv and contradicts --format {format}; use one of them")
    alone = {
        "--against": (
            ["--mlflow", "--tracking", "--pictures", "--budget", "--csv"],
            "--format table, json or md, and --to",
        ),
        "--pictures": (["--format", "--csv", "--to", "--budget"], "--mlflow and --tracking"),
    }
    for option, (others, allowed) in alone.items():
        if option in options and (wrong := [other for other in others if other in options]):
            raise UserError(f"{option} cannot be combined with {', '.join(wrong)}; allowed with it: {allowed}")
    shape = "csv" if "--csv" in options else format
    if "--budget" in options and shape in ("csv", "parquet", "html", "latex", "pdf", "svg", "zip"):
        why = "where the reader sets it" if shape == "html" else "which recommends nothing"
        raise UserError(f"--budget has no effect on {shape}, {why}; allowed with table, json and md")


@app.command()
def compare(
    sweep: SweepFile,
    first: TrialName,
    second: TrialName,
    set_: Overrides = None,
    store: Store = None,
    cluster: ClusterFile = None,
    alone: Annotated[bool, typer.Option("--alone", help="these two trials, not their other seeds")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare two trials of a sweep: paired differences, benchmark by benchmark, with intervals and p-values."""
    from lmmcl.reports.tables.compare import compare_trials, comparison_table

    comparison = compare_trials(load_sweep(sweep, set_), read_ledger(store, cluster), first, second, alone=alone)
    print_json(comparison.to_dict()) if as_json else wide_console().print(comparison_table(comparison))


@app.command()
def samples(
    sweep: SweepFile,
    benchmark: Annotated[
        str, typer.Option("--benchmark", "-b", help="a benchmark of the sweep", shell_complete=sweep_benchmarks)
    ],
    trial: Annotated[
        list[str] | None,
        typer.Option(
            "--trial",
            help="name, part of a name, key or beginning of a key; default: all trials",
            shell_complete=trials,
        ),
    ] = None,
    flipped: Annotated[
        bool,
        typer.Option(
            "--flipped/--wrong",
            help="questions whose correctness changed during training, or all that are wrong afterwards",
        ),
    ] = True,
    most: Annotated[int, typer.Option("--most", min=1, help="maximum number of questions to list of each kind")] = 20,
    set_: Overrides = None,
    store: Store = None,
    cluster: ClusterFile = None,
    as_json: AsJson = False,
) -> None:
    """List questions that a model answered before it was taught and does not after, and the reverse."""
    from lmmcl.reports.flips import flips_view, sweep_flips

    by_trial = sweep_flips(load_sweep(sweep, set_), read_ledger(store, cluster), benchmark, trial or ())
    if as_json:
        print_json([flips.to_dict() for flips in by_trial])
    elif by_trial:
        wide_console().print(flips_view(by_trial, most, ("lost", "gained") if flipped else ("wrong",)))
        command = f"lmmcl report {shlex.quote(str(sweep))}{given_again(set_, store, cluster)} --format html"
        say(f"with their pictures, for trials of the front: {command}")
    else:
        say(f"no trial has answers to {benchmark} before and after a stage yet")
