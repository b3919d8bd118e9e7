"""What the command line calls: a run with its report, a report alone, one checkpoint asked by hand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lmmcl.errors import UserError, unknown
from lmmcl.ledger import Ledger
from lmmcl.models import get_model, model_names
from lmmcl.reports import export
from lmmcl.reports.collect import collect
from lmmcl.reports.results import SweepResults
from lmmcl.reports.table import markdown_table, terminal_table
from lmmcl.runner.run import run_sweep
from lmmcl.runner.tracking import BackgroundTracker, Tracker
from lmmcl.runner.tracking_store import check_reachable, default_artifact_location, default_tracking_uri
from lmmcl.spec.cluster import Cluster
from lmmcl.spec.settings import Evaluation
from lmmcl.spec.steps import Checkpoint, Evaluate, Pretrained
from lmmcl.spec.sweep import Sweep
from lmmcl.tasks import benchmark_names, get_benchmark, get_skill, skill_names
from lmmcl.tasks.base import Benchmark

FORMATS = ("table", "json", "md", "csv", "parquet", "html")


def run_and_report(
    sweep: Sweep, ledger: Ledger, cluster: Cluster, *, inline: bool, mlflow: str | None, console: Console
) -> bool:
    """Run `sweep`, print its table, write its page, bring MLflow up to date; returns whether a trial failed."""
    started = time.monotonic()
    ledger.check_writable()
    uri = mlflow or cluster.tracking or default_tracking_uri(ledger.store)
    tracker = None if uri == "off" else _background(uri, sweep, ledger)
    try:
        before = sum(ledger.find(step) is not None for step in sweep.steps.values())
        outcome = run_sweep(sweep, ledger, cluster, console=console, inline=inline, tracker=tracker)
        results = outcome.results
        page, picture = write_report(results, report_folder(ledger, sweep))
        if tracker:
            for trial in results.trials:
                tracker.submit(trial)
            tracker.submit_report([page, picture])
    finally:
        if tracker:
            tracker.close()
    print_table(results, console)
    done = (results.recorded or 0) - before
    seconds = time.monotonic() - started
    console.print(f"{done} steps computed, {before} were recorded; {seconds:.0f} s", highlight=False)
    console.print(f"page    {page}", highlight=False, soft_wrap=True)
    console.print(f"store   {ledger.store}", highlight=False, soft_wrap=True)
    if tracker:
        console.print(f"MLflow  mlflow ui --backend-store-uri {uri}", highlight=False, soft_wrap=True)
    for trial in results.trials:
        if trial.key in outcome.failures:
            console.print(f"failed  {trial.name}: {trial.error}", style="red", markup=False, soft_wrap=True)
    return bool(outcome.failures)


def _background(uri: str, sweep: Sweep, ledger: Ledger) -> BackgroundTracker:
    check_reachable(uri)
    return BackgroundTracker(uri, sweep.name, artifact_location(uri, ledger))


def artifact_location(uri: str, ledger: Ledger) -> str | None:
    """Beside the store's own database; a server, or a database elsewhere, decides for itself."""
    return default_artifact_location(ledger.store) if uri == default_tracking_uri(ledger.store) else None


def report_folder(ledger: Ledger, sweep: Sweep) -> Path:
    """Where a run writes its page: in a local store, else beside the work."""
    root = Path(ledger.store) if ledger.is_local else Path("lmmcl-reports")
    return root / "reports" / sweep.name


def write_report(results: SweepResults, folder: Path) -> tuple[Path, Path]:
    """The page and the picture of the trade-off."""
    from lmmcl.reports.figures import write_scatter
    from lmmcl.reports.page import write_page

    folder.mkdir(parents=True, exist_ok=True)
    page, picture = folder / "index.html", folder / "tradeoff.png"
    write_page(results, page)
    write_scatter(results, picture)
    return page, picture


def print_table(results: SweepResults, console: Console) -> None:
    """The trade-off table, as wide as the terminal (or the pipe's default) allows."""
    console.print(terminal_table(results, console.width if console.is_terminal else None), soft_wrap=True)


def report_sweep(
    sweep: Sweep, ledger: Ledger, *, format: str, to: Path | None, mlflow: str | None, console: Console
) -> None:
    """Show or write the report of what the ledger holds; with `mlflow`, also fill that store."""
    if format not in FORMATS:
        raise UserError(unknown("format", format, FORMATS))
    results = collect(sweep, ledger)
    if mlflow:
        _refill(results, mlflow, sweep, ledger, console)
    if format == "table" and to is None:
        print_table(results, console)
    elif format == "html":
        page, _ = write_report(results, to.parent if to else report_folder(ledger, sweep))
        console.print(str(page.rename(to) if to else page), soft_wrap=True)
    elif format == "parquet" or to is not None:
        if to is None:
            raise UserError(f"--format {format} needs --to FILE")
        export.write(results, to, "md" if format == "table" else format)
    else:
        text = {"json": export.as_json, "csv": export.as_csv, "md": markdown_table}[format](results)
        print(text.rstrip("\n"))


def _refill(results: SweepResults, uri: str, sweep: Sweep, ledger: Ledger, console: Console) -> None:
    check_reachable(uri)
    tracker = Tracker(uri, sweep.name, artifact_location(uri, ledger))
    for trial in results.trials:
        tracker.log_trial(trial, running=False)
    page, picture = write_report(results, report_folder(ledger, sweep))
    tracker.log_report([page, picture])
    console.print(f"{len(results.trials)} trials are in {uri}", soft_wrap=True)


def evaluate_checkpoint(
    wanted: str, names: Sequence[str], ledger: Ledger, cluster: Cluster, *, limit: int | None, precision: str
) -> dict[str, float]:
    """Scores in points by benchmark; what is recorded is read, what is missing computed here and recorded."""
    from lmmcl.runner.inline import InlineSteps

    checkpoint: Checkpoint = Pretrained(get_model(wanted)) if wanted in model_names() else ledger.checkpoint(wanted)
    settings = Evaluation.model_validate({"limit": limit, "precision": precision})
    steps = [Evaluate(checkpoint, _asked(name), settings) for name in names]
    records = InlineSteps(ledger, cluster, lambda key, shown: None).ensure_all(steps)
    return {record["label"]: record["score"] for record in records}


def _asked(name: str) -> Benchmark:
    known = [*skill_names(), *benchmark_names()]
    if name not in known:
        raise UserError(unknown("benchmark", name, known))
    return get_skill(name).benchmark if name in skill_names() else get_benchmark(name)
