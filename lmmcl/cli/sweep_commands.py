"""A sweep, begun and computed: init · plan · run · submit · status."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmmcl.cli.options import (
    AsJson,
    ClusterFile,
    Overrides,
    Store,
    SweepFile,
    Tracking,
    load_cluster,
    load_sweep,
    open_ledger,
    print_json,
)
from lmmcl.environment import is_torchrun_worker, neutral_environment
from lmmcl.errors import UserError
from lmmcl.terminal import say, wide_console

if TYPE_CHECKING:
    from lmmcl.config.cluster import Cluster

app = typer.Typer()


@app.command()
def plan(
    sweep: SweepFile,
    set_: Overrides = None,
    store: Store = None,
    cluster: ClusterFile = None,
    as_json: AsJson = False,
) -> None:
    """Say what a sweep wants, what is recorded and what is to run. Computes nothing."""
    from lmmcl.ledger.index.view import RecordView
    from lmmcl.planning.nearby_stores import store_state
    from lmmcl.planning.plan import make_plan, plan_table

    place = load_cluster(cluster)
    loaded, ledger = load_sweep(sweep, set_), open_ledger(store, place)
    view = RecordView(ledger)
    where = store_state(loaded, ledger, view)
    if not as_json:
        say("\n".join(where.lines()))
    estimate = make_plan(loaded, ledger, place if cluster else None, view=view)
    if as_json:
        print_json({**estimate.to_dict(), "store": where.store, "finished_in": list(where.finished_in)})
    else:
        wide_console().print(plan_table(estimate))
    estimate.refuse_overlaps()
    estimate.refuse_infeasible()


@app.command()
def run(
    sweep: SweepFile,
    set_: Overrides = None,
    store: Store = None,
    cluster: ClusterFile = None,
    inline: Annotated[bool, typer.Option("--inline", help="in this process, without Ray")] = False,
    mlflow: Annotated[
        str | None, typer.Option("--mlflow", help="tracking URI; else LMMCL_MLFLOW; 'off' for none")
    ] = None,
    tracking: Tracking = None,
) -> None:
    """Compute what is missing of a sweep, then report. The same command resumes, extends and repairs.

    With --inline, `torchrun --nproc-per-node N -m lmmcl run …` trains each stage in N processes where the cluster file says
    workers: N.
    """
    place = load_cluster(cluster)
    launched = inline and is_torchrun_worker(place.training.workers)
    try:
        # Before torch is imported, and before Ray hands the environment to its workers.
        with neutral_environment(launched=launched), _processes(place, launched) as walks:
            from lmmcl.runner.command import run_and_report

            if not walks:
                return
            loaded, ledger = load_sweep(sweep, set_), open_ledger(store, place)
            failed = run_and_report(
                loaded, ledger, place, inline=inline, mlflow=mlflow, console=wide_console(), tracking=tracking or ()
            )
    except KeyboardInterrupt:
        say("interrupted; finished work is kept; run the same command to resume", err=True)
        raise typer.Exit(130) from None
    if failed:
        raise typer.Exit(1)


def _processes(cluster: Cluster, launched: bool) -> AbstractContextManager[bool]:
    """Those of torchrun, where that started this one; gives whether this is the process that walks the sweep."""
    if not launched:
        return nullcontext(True)
    from lmmcl.training.distributed.torchrun import joined

    return joined(cluster.training)


@app.command()
def init(
    model: Annotated[str, typer.Argument(help="short name, id of the hub, directory of a model or adapter")],
    data: Annotated[Path, typer.Argument(help="file or folder of training rows (docs/own_data.md)")],
    test: Annotated[
        str | None,
        typer.Option(help="file of test rows, or the share of the training rows to hold back", show_default="0.1"),
    ] = None,
    images: Annotated[Path | None, typer.Option(help="folder of the images; default that of the data")] = None,
    columns: Annotated[
        str | None, typer.Option(help="which column is which, such as image=photo,question=q,answer=a")
    ] = None,
    question: Annotated[str | None, typer.Option(help="the question for rows that hold none")] = None,
    metric: Annotated[str | None, typer.Option(help="default: the one that fits the answers")] = None,
    recipe: Annotated[list[str] | None, typer.Option(help="which parameters train; may be repeated")] = None,
    held_out: Annotated[list[str] | None, typer.Option("--held-out", help="a benchmark; may be repeated")] = None,
    name: Annotated[str | None, typer.Option(help="of sweep and skill; default that of the data")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="the file to write; default NAME.yaml here")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a file that exists")] = False,
    store: Store = None,
) -> None:
    """Write a commented sweep file for a model and a data file, after checking the first rows and planning it."""
    from lmmcl.atomic_files import write_text
    from lmmcl.planning.new_sweep import Wishes, new_sweep
    from lmmcl.planning.plan import make_plan, plan_table

    to = to or Path(f"{name or data.stem}.yaml")
    if to.is_dir():
        raise UserError("is a folder; name a file in it, such as sweep.yaml", file=str(to))
    if to.exists() and not force:
        raise UserError("exists already; name another with --to, or replace it with --force", file=str(to))
    wishes = Wishes(model, data, to, test, images, columns, question, metric, name, recipe or (), held_out or ())
    created = new_sweep(wishes)
    plan = make_plan(created.sweep, open_ledger(store))
    plan.refuse_overlaps()
    write_text(to, created.text)
    for report in created.reports:
        say("first rows of " + "\n".join([report.summary(), *report.details()]))
    wide_console().print(plan_table(plan))
    say(f"wrote {to}; next: lmmcl run {to}")


@app.command()
def submit(
    sweep: SweepFile,
    address: Annotated[str, typer.Option("--address", help="of the cluster's dashboard: http://HOST:8265")],
    set_: Overrides = None,
    store: Annotated[
        str | None,
        typer.Option("--store", help="URI, or folder that all nodes share; else LMMCL_STORE or the cluster file's"),
    ] = None,
    cluster: Annotated[
        Path | None, typer.Option("--cluster", help="where and how to run there; default: one CPU for each step")
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option("--mlflow", help="tracking URI, as the nodes see it; 'off' for none")
    ] = None,
    tracking: Tracking = None,
    working_dir: Annotated[
        Path,
        typer.Option(
            "--working-dir", help="folder to upload with the job, without what .gitignore and .rayignore exclude"
        ),
    ] = Path(),
    env: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="variable of the job; may be repeated")
    ] = None,
    runtime_env: Annotated[
        Path | None, typer.Option("--runtime-env", help="YAML with more of Ray's runtime environment: pip, env_vars, …")
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow/--no-follow",
            help="follow the job's log until it ends (Ctrl-C stops following the log; the job keeps running)",
        ),
    ] = True,
) -> None:
    """Run a sweep as a job of a Ray cluster. Submit it again to resume, extend or repair.

    Ctrl-C ends the following, not the job; `ray job stop` lets stages save and ends it. A cluster that wants a token: set
    RAY_AUTH_MODE=token and RAY_AUTH_TOKEN. The exit code is that of the job; 130 if it was stopped or is no longer followed.
    """
    from lmmcl.jobs import submit as job
    from lmmcl.ledger.named_store import STORE_VARIABLE
    from lmmcl.tracking.database import MLFLOW_VARIABLE

    submission = job.make_submission(
        load_sweep(sweep, set_),
        load_cluster(cluster),
        working_dir=working_dir.resolve(),
        cluster_file=cluster,
        store=store or os.environ.get(STORE_VARIABLE),
        set_=set_ or (),
        mlflow=mlflow or os.environ.get(MLFLOW_VARIABLE),
        tracking=tracking or (),
        environment=env or (),
        runtime_env=runtime_env,
    )
    if code := job.submit(submission, address, follow=follow, tell=say):
        raise typer.Exit(code)


@app.command()
def status(
    sweep: SweepFile,
    set_: Overrides = None,
    store: Store = None,
    cluster: ClusterFile = None,
    watch: Annotated[bool, typer.Option("--watch", help="refresh until the sweep is done")] = False,
    as_json: AsJson = False,
) -> None:
    """Say how far each trial of a sweep is, and what is being computed now."""
    from lmmcl.inspection import status as how_far
    from lmmcl.inspection.watching import watch as watch_sweep

    loaded, ledger = load_sweep(sweep, set_), open_ledger(store, load_cluster(cluster))
    if not watch:  # with --watch the run that makes the store may start later
        ledger.check_exists()
    try:
        progress = watch_sweep(loaded, ledger, wide_console()) if watch else how_far.sweep_status(loaded, ledger)
    except KeyboardInterrupt:  # the reader has seen enough; what runs elsewhere continues
        raise typer.Exit(130) from None
    if as_json:
        print_json(progress.to_dict())
    else:
        wide_console().print(how_far.status_view(progress))
