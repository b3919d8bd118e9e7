"""What a sweep found: report · compare · samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmmcl.cli.options import (
    AsJson,
    ClusterFile,
    Overrides,
    Store,
    SweepFile,
    TrialName,
    open_ledger,
    print_json,
    wide_console,
)
from lmmcl.spec.cluster import load_cluster
from lmmcl.spec.sweep import load_sweep

app = typer.Typer()


@app.command()
def report(
    sweep: SweepFile,
    set_: Overrides = None,
    store: Store = None,
    cluster: ClusterFile = None,
    format_: Annotated[str, typer.Option("--format", help="table, json, md, csv, parquet or html")] = "table",
    csv: Annotated[bool, typer.Option("--csv", help="the same as --format csv")] = False,
    to: Annotated[Path | None, typer.Option("--to", help="write to this file")] = None,
    mlflow: Annotated[str | None, typer.Option("--mlflow", help="fill this MLflow store from the ledger")] = None,
    budget: Annotated[float, typer.Option("--budget", min=0, help="points of held-out forgetting to accept")] = 2.0,
    against: Annotated[
        str | None, typer.Option("--against", help="'published', or a YAML file of figures: ours beside theirs")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option("--pictures", help="instead, write PNGs of trade-off, page and MLflow to this folder")
    ] = None,
) -> None:
    """Show the trade-off of learning against forgetting, from what the ledger holds."""
    from lmmcl.runner.command import report_against, report_sweep

    place = load_cluster(cluster)
    ledger = open_ledger(store, place)
    console = wide_console()
    format_ = "csv" if csv else format_
    if against:
        report_against(load_sweep(sweep, set_), ledger, against, format=format_, to=to, console=console)
        return
    report_sweep(
        load_sweep(sweep, set_),
        ledger,
        format=format_,
        to=to,
        mlflow=mlflow,
        console=console,
        budget=budget,
        pictures=pictures,
    )


@app.command()
def compare(
    sweep: SweepFile,
    first: TrialName,
    second: TrialName,
    set_: Overrides = None,
    store: Store = None,
    alone: Annotated[bool, typer.Option("--alone", help="these two trials, not their other seeds")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare two trials of a sweep: paired differences, benchmark by benchmark, with intervals and p-values."""
    from lmmcl.reports.compare import compare_trials, comparison_table

    found = compare_trials(load_sweep(sweep, set_), open_ledger(store), first, second, alone=alone)
    print_json(found.to_dict()) if as_json else wide_console().print(comparison_table(found))


@app.command()
def samples(
    sweep: SweepFile,
    benchmark: Annotated[str, typer.Option("--benchmark", "-b", help="a benchmark of the sweep")],
    trial: Annotated[
        list[str] | None, typer.Option("--trial", help="name, key or beginning of a key; default: all trials")
    ] = None,
    flipped: Annotated[
        bool, typer.Option("--flipped/--wrong", help="questions that teaching turned, or all that are wrong after it")
    ] = True,
    most: Annotated[int, typer.Option("--most", min=1, help="list so many questions of each kind")] = 20,
    set_: Overrides = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """List questions that a model answered before it was taught and does not after, and the reverse."""
    from lmmcl.reports.flips import flips_view, sweep_flips

    found = sweep_flips(load_sweep(sweep, set_), open_ledger(store), benchmark, trial or ())
    if as_json:
        print_json([each.to_dict() for each in found])
    elif found:
        wide_console().print(flips_view(found, most, ("lost", "gained") if flipped else ("wrong",)))
        typer.echo(f"with their pictures, for trials of the front: lmmcl report {sweep} --format html")
    else:
        typer.echo(f"no trial has answers to {benchmark} before and after a stage yet")
