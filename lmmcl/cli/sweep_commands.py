"""A sweep, computed: plan · run · submit · status."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from lmmcl.cli.options import AsJson, ClusterFile, Overrides, Store, SweepFile, open_ledger, print_json
from lmmcl.config.cluster import load_cluster
from lmmcl.config.sweep import load_sweep
from lmmcl.environment import neutral_environment
from lmmcl.ledger.named_store import STORE_VARIABLE
from lmmcl.terminal import say, wide_console
from lmmcl.tracking.database import MLFLOW_VARIABLE

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
    from lmmcl.planning.plan import make_plan, plan_table

    place = load_cluster(cluster)
    made = make_plan(load_sweep(sweep, set_), open_ledger(store, place), place if cluster else None)
    if as_json:
        print_json(made.to_dict())
    else:
        wide_console().print(plan_table(made))
    made.refuse_infeasible()


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
) -> None:
    """Compute what is missing of a sweep, then report. The same command resumes, extends and repairs."""
    place = load_cluster(cluster)
    try:
        with neutral_environment():  # before torch is imported, and before Ray hands the environment to its workers
            from lmmcl.runner.command import run_and_report

            loaded, ledger = load_sweep(sweep, set_), open_ledger(store, place)
            failed = run_and_report(loaded, ledger, place, inline=inline, mlflow=mlflow, console=wide_console())
    except KeyboardInterrupt:
        say("interrupted; everything finished is kept, and the same command goes on from there", err=True)
        raise typer.Exit(130) from None
    if failed:
        raise typer.Exit(1)


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
    working_dir: Annotated[
        Path, typer.Option("--working-dir", help="folder that is sent along; less what .gitignore and .rayignore name")
    ] = Path(),
    env: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="variable of the job; may be repeated")
    ] = None,
    runtime_env: Annotated[
        Path | None, typer.Option("--runtime-env", help="YAML with more of Ray's runtime environment: pip, env_vars, …")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="pass on the log until the job ends")] = True,
) -> None:
    """Run a sweep as a job of a Ray cluster. Submit it again to resume, extend or repair.

    Ctrl-C ends the following, not the job; `ray job stop` lets stages save and ends it. A cluster that wants a token: set
    RAY_AUTH_MODE=token and RAY_AUTH_TOKEN. The exit code is that of the job; 130 if it was stopped or is no longer followed.
    """
    from lmmcl.jobs import submit as job

    made = job.make_submission(
        load_sweep(sweep, set_),
        load_cluster(cluster),
        working_dir=working_dir.resolve(),
        cluster_file=cluster,
        store=store or os.environ.get(STORE_VARIABLE),
        set_=set_ or (),
        mlflow=mlflow or os.environ.get(MLFLOW_VARIABLE),
        environment=env or (),
        runtime_env=runtime_env,
    )
    if code := job.submit(made, address, follow=follow, tell=say):
        raise typer.Exit(code)


@app.command()
def status(
    sweep: SweepFile,
    set_: Overrides = None,
    store: Store = None,
    cluster: ClusterFile = None,
    watch: Annotated[bool, typer.Option("--watch", help="stay and show it anew until the sweep is done")] = False,
    as_json: AsJson = False,
) -> None:
    """Say how far each trial of a sweep is, and what is being computed now."""
    from lmmcl.inspection import status as how_far

    loaded, ledger = load_sweep(sweep, set_), open_ledger(store, load_cluster(cluster))
    if not watch:  # who watches may have come before the run, which makes the store
        ledger.check_exists()
    try:
        made = how_far.watch(loaded, ledger, wide_console()) if watch else how_far.sweep_status(loaded, ledger)
    except KeyboardInterrupt:  # the reader has seen enough; what runs elsewhere goes on
        raise typer.Exit(130) from None
    if as_json:
        print_json(made.to_dict())
    else:
        wide_console().print(how_far.status_table(made))
