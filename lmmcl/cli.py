"""Words to one call each: plan · run · status · report · show · list · eval · export · data · schema · tiny.

Exit codes: 0 done, 1 a trial failed, 2 bad input (told in one message, nothing finished is lost), 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.spec.cluster import Cluster, load_cluster
from lmmcl.spec.sweep import load_sweep

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
data_app = typer.Typer(no_args_is_help=True, help="Data of the papers' skills and benchmarks, and your own files.")
ledger_app = typer.Typer(no_args_is_help=True, help="What has been computed.")
tiny_app = typer.Typer(no_args_is_help=True, help="The embedded tiny models.")
app.add_typer(data_app, name="data")
app.add_typer(ledger_app, name="ledger")
app.add_typer(tiny_app, name="tiny")

SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP", help="a sweep file, such as sweeps/quickstart.yaml")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="change the sweep: training.epochs=2")
]
Store = Annotated[str | None, typer.Option("--store", help="folder or URI; else LMMCL_STORE, else ./lmmcl-store")]
ClusterFile = Annotated[Path | None, typer.Option("--cluster", help="where and how to run; default: this machine")]
AsJson = Annotated[bool, typer.Option("--json", help="machine-readable output")]
TrialName = Annotated[str, typer.Argument(metavar="TRIAL", help="a trial: name, key or beginning of a key")]
Checkpoint = Annotated[
    str, typer.Argument(metavar="STEP", help="a checkpoint: key, beginning of a key, or folder name")
]


def main() -> None:
    """Entry point: every bad input becomes one message and exit code 2."""
    try:
        app()
    except UserError as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


@app.command()
def plan(
    sweep: SweepFile,
    set_: Overrides = None,
    store: Store = None,
    cluster: ClusterFile = None,
    as_json: AsJson = False,
) -> None:
    """Say what a sweep wants, what is recorded and what is to run. Computes nothing."""
    from lmmcl.runner.plan import make_plan, plan_table

    place = load_cluster(cluster)
    made = make_plan(load_sweep(sweep, set_), open_ledger(store, place), place if cluster else None)
    if as_json:
        print_json(made.to_dict())
    else:
        wide_console().print(plan_table(made))


@app.command()
def run(
    sweep: SweepFile,
    set_: Overrides = None,
    store: Store = None,
    cluster: ClusterFile = None,
    inline: Annotated[bool, typer.Option("--inline", help="in this process, without Ray")] = False,
    mlflow: Annotated[str | None, typer.Option("--mlflow", help="tracking URI; 'off' for none")] = None,
) -> None:
    """Compute what is missing of a sweep, then report. The same command resumes, extends and repairs."""
    from lmmcl.runner.command import run_and_report

    place = load_cluster(cluster)
    loaded = load_sweep(sweep, set_)
    ledger = open_ledger(store, place)
    try:
        failed = run_and_report(loaded, ledger, place, inline=inline, mlflow=mlflow, console=wide_console())
    except KeyboardInterrupt:
        typer.echo("interrupted; everything finished is kept, and the same command goes on from there", err=True)
        raise typer.Exit(130) from None
    if failed:
        raise typer.Exit(1)


@app.command()
def submit(
    sweep: SweepFile,
    address: Annotated[str, typer.Option("--address", help="of the cluster: http://HOST:8265")],
    set_: Overrides = None,
    store: Store = None,
    cluster: ClusterFile = None,
    mlflow: Annotated[str | None, typer.Option("--mlflow", help="tracking URI; 'off' for none")] = None,
    working_dir: Annotated[Path, typer.Option("--working-dir", help="folder that is sent along")] = Path(),
    env: Annotated[list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="for the job")] = None,
    runtime_env: Annotated[
        Path | None, typer.Option("--runtime-env", help="YAML with more of Ray's runtime env")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="pass on the log until the job ends")] = True,
) -> None:
    """Run a sweep as a job of a Ray cluster. Submit it again to resume, extend or repair."""
    from lmmcl.runner import submit as job

    made = job.make_submission(
        load_sweep(sweep, set_),
        load_cluster(cluster),
        working_dir=working_dir.resolve(),
        cluster_file=cluster,
        store=store or os.environ.get("LMMCL_STORE"),
        set_=set_ or (),
        mlflow=mlflow,
        environment=env or (),
        runtime_env=runtime_env,
    )
    if code := job.submit(made, address, follow=follow, tell=typer.echo):
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
    from lmmcl.runner import status as how_far

    loaded, ledger = load_sweep(sweep, set_), open_ledger(store, load_cluster(cluster))
    try:
        made = how_far.watch(loaded, ledger, wide_console()) if watch else how_far.sweep_status(loaded, ledger)
    except KeyboardInterrupt:  # the reader has seen enough; what runs elsewhere goes on
        raise typer.Exit(130) from None
    if as_json:
        print_json(made.to_dict())
    else:
        wide_console().print(how_far.status_table(made))


@app.command()
def report(
    sweep: SweepFile,
    set_: Overrides = None,
    store: Store = None,
    cluster: ClusterFile = None,
    format_: Annotated[str, typer.Option("--format", help="table, json, md, csv, parquet or html")] = "table",
    to: Annotated[Path | None, typer.Option("--to", help="write to this file")] = None,
    mlflow: Annotated[str | None, typer.Option("--mlflow", help="fill this MLflow store from the ledger")] = None,
    budget: Annotated[float, typer.Option("--budget", min=0, help="points of held-out forgetting to accept")] = 2.0,
) -> None:
    """Show the trade-off of learning against forgetting, from what the ledger holds."""
    from lmmcl.runner.command import report_sweep

    place = load_cluster(cluster)
    ledger = open_ledger(store, place)
    console = wide_console()
    report_sweep(load_sweep(sweep, set_), ledger, format=format_, to=to, mlflow=mlflow, console=console, budget=budget)


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
    else:
        typer.echo(f"no trial has answers to {benchmark} before and after a stage yet")


@app.command()
def show(
    what: Annotated[str, typer.Argument(help="a step's key, or the word 'model'")],
    name: Annotated[str | None, typer.Argument(help="the model's name")] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Show a recorded step (what, from which parents, where, how long), or a model's roles and recipes."""
    from lmmcl.runner.show import model_facts, model_table, step_facts, step_table

    if what == "model":
        if name is None:
            raise UserError("show model needs a name; `lmmcl list models` has them")
        facts, table = model_facts(name), model_table
    else:
        facts, table = step_facts(open_ledger(store), what), step_table
    print_json(facts) if as_json else wide_console().print(table(facts))


@app.command("list")
def list_(
    kind: Annotated[
        str, typer.Argument(help="models, recipes, mitigations, skills, benchmarks, probes, metrics or steps")
    ],
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """List what there is of a kind, by name."""
    from lmmcl.runner.show import catalogue, catalogue_table

    rows = catalogue(kind, open_ledger(store))
    print_json(rows) if as_json else wide_console().print(catalogue_table(kind, rows))


@app.command("eval")
def eval_(
    step: Checkpoint,
    benchmark: Annotated[
        list[str], typer.Option("--benchmark", "-b", help="skill or benchmark; more than one is fine")
    ],
    store: Store = None,
    cluster: ClusterFile = None,
    limit: Annotated[int | None, typer.Option(min=1, help="ask the first N questions")] = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16")] = "fp32",
    as_json: AsJson = False,
) -> None:
    """Ask benchmarks of a recorded checkpoint (or of a model, by name), in this process."""
    from lmmcl.runner.command import evaluate_checkpoint

    place = load_cluster(cluster)
    scores = evaluate_checkpoint(step, benchmark, open_ledger(store, place), place, limit=limit, precision=precision)
    if as_json:
        print_json(scores)
    else:
        for asked, score in scores.items():
            typer.echo(f"{asked:20} {score:6.1f}")


@app.command()
def export(
    step: Checkpoint,
    to: Annotated[Path, typer.Option("--to", help="an empty folder")],
    adapter: Annotated[
        bool, typer.Option("--adapter", help="one PEFT adapter for the pre-trained model (LoRA)")
    ] = False,
    store: Store = None,
) -> None:
    """Write a checkpoint as a plain `save_pretrained` folder that transformers and vLLM load, or as a PEFT adapter."""
    ledger = open_ledger(store)
    if adapter:
        from lmmcl.training.adapter_export import export_adapter

        export_adapter(ledger.checkpoint(step), ledger, to)
    else:
        from lmmcl import checkpoint

        checkpoint.export(ledger.checkpoint(step), ledger, to)
    typer.echo(f"exported {step} to {to}")


@app.command()
def gc(
    sweeps: Annotated[list[Path], typer.Argument(metavar="SWEEP...", help="sweep files that you still want to run")],
    store: Store = None,
    cluster: ClusterFile = None,
    keep: Annotated[list[str] | None, typer.Option("--keep", metavar="STEP", help="keep this checkpoint too")] = None,
    everything: Annotated[bool, typer.Option("--all", help="also checkpoints of sweeps that are not named")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would go, remove nothing")] = False,
    as_json: AsJson = False,
) -> None:
    """Drop weights that no planned step of the sweeps still needs. Records and scores always stay."""
    from lmmcl.runner.gc import collect_garbage, freed_text

    loaded = [load_sweep(path) for path in sweeps]
    ledger = open_ledger(store, load_cluster(cluster))
    freed = collect_garbage(loaded, ledger, keep=keep or (), everything=everything, dry_run=dry_run)
    print_json(freed.to_dict()) if as_json else typer.echo(freed_text(freed, dry_run=dry_run))


@ledger_app.command("check")
def ledger_check(
    store: Store = None,
    cluster: ClusterFile = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="put damaged records aside: a run computes them again")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read every file of a store and report what is damaged. Exit code 1 when something is."""
    from lmmcl.runner.audit import check_store

    audit = check_store(open_ledger(store, load_cluster(cluster)), repair=repair)
    if as_json:
        print_json(audit.to_dict())
    else:
        for damage in audit.damages:
            typer.echo(str(damage))
        typer.echo(audit.summary())
    if audit.damages:
        raise typer.Exit(1)


@data_app.command("check")
def data_check(
    file: Annotated[Path, typer.Argument(help="LLaVA JSON or messages: .json, .jsonl, .parquet")],
    images: Annotated[Path | None, typer.Option(help="folder of the images; default that of the file")] = None,
    as_json: AsJson = False,
) -> None:
    """Report every bad row of a data file, by row number and field. Exit code 2 when there is one."""
    from lmmcl.tasks.data_check import check_file

    found = check_file(file, images)
    if as_json:
        print_json(found.to_dict())
    else:
        for problem in found.problems:
            typer.echo(str(problem))
        typer.echo(found.summary())
    if found.problems:
        raise typer.Exit(2)


@data_app.command("prepare")
def data_prepare(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="skills (train and test data) and benchmarks")],
    to: Annotated[Path | None, typer.Option("--to", help="folder; else LMMCL_DATA, else the user's cache")] = None,
    copies: Annotated[Path | None, typer.Option(help="folder with local copies, each at <owner>/<name>")] = None,
    images: Annotated[Path | None, typer.Option(help="folder of images, for data sets that only name theirs")] = None,
    again: Annotated[bool, typer.Option("--again", help="make anew what is there")] = False,
) -> None:
    """Fetch, convert and check data of the hub, once. The same command goes on after an interruption."""
    from lmmcl.tasks import hub_client, hub_prepare
    from lmmcl.tasks.hub_data import data_folder

    folder = to or data_folder()
    hub = hub_client.Hub(folder / "downloads", copies, images)
    hub_prepare.prepare(names, hub, folder, again=again, say=typer.echo)


@data_app.command("list")
def data_list(as_json: AsJson = False) -> None:
    """List the data sets of the hub: where each comes from, its licence, and how many rows are prepared here."""
    from lmmcl.tasks.hub_prepare import data_rows

    rows = data_rows()
    if as_json:
        print_json(rows)
    for row in [] if as_json else rows:
        state = "not prepared" if row["rows"] is None else f"{row['rows']} rows"
        typer.echo(f"{row['name']:16} {row['part']:6} {state:14} {row['hub']} ({row['licence']})")


@app.command()
def schema(kind: Annotated[str, typer.Argument(help="sweep or cluster")] = "sweep") -> None:
    """Print the JSON schema of sweep files (or cluster files), for editors."""
    from lmmcl.errors import unknown
    from lmmcl.spec.file import SweepFile as SweepForm

    forms: dict[str, Any] = {"sweep": SweepForm, "cluster": Cluster}
    if kind not in forms:
        raise UserError(unknown("kind of file", kind, forms))
    print_json(forms[kind].model_json_schema())


@tiny_app.command("train")
def tiny_train(
    to: Annotated[Path, typer.Option("--to", help="folder for weights, processor and training.json")],
    seed: Annotated[int | None, typer.Option(help="default: the seed of the weights that ship")] = None,
) -> None:
    """Make the embedded model's weights again: pre-train tiny-onevision on its eight general visual skills."""
    from lmmcl.models.tiny_train import pretrain

    print_json(pretrain(to) if seed is None else pretrain(to, seed=seed))


def open_ledger(store: str | None, cluster: Cluster | None = None) -> Ledger:
    """The store that is named on the command line, in LMMCL_STORE, in the cluster file, or beside the work."""
    named = store or os.environ.get("LMMCL_STORE") or (cluster.store if cluster else None)
    return Ledger(named or "lmmcl-store")


def wide_console() -> Console:
    """The terminal; where output goes to a file or pipe, wide enough that no table is folded."""
    return Console() if sys.stdout.isatty() else Console(width=200)


def print_json(value: Any) -> None:
    """Plain JSON on standard output, never wrapped or coloured."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
