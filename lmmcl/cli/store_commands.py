"""A store, kept small and whole, and the machine that it is used from: gc · ledger check, pack, unpack · doctor."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmmcl.cli.completion import checkpoints, sweep_files
from lmmcl.cli.options import AsJson, ClusterFile, Store, load_cluster, load_sweep, open_ledger, print_json
from lmmcl.terminal import say, wide_console

if TYPE_CHECKING:
    from lmmcl.ledger.packs.packing import Packed

app = typer.Typer()
ledger_app = typer.Typer(no_args_is_help=True, help="What has been computed.")
app.add_typer(ledger_app, name="ledger")


@app.command()
def gc(
    sweeps: Annotated[
        list[Path],
        typer.Argument(metavar="SWEEP...", help="sweep files that you still want to run", shell_complete=sweep_files),
    ],
    store: Store = None,
    cluster: ClusterFile = None,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="STEP", help="keep this checkpoint too", shell_complete=checkpoints),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="also weights of sweeps that are not named")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only print what would be deleted")] = False,
    as_json: AsJson = False,
) -> None:
    """Drop weights that no planned step of the sweeps still needs. Records and scores always stay."""
    from lmmcl.inspection.gc import collect_garbage, freed_text

    loaded = [load_sweep(path) for path in sweeps]
    ledger = open_ledger(store, load_cluster(cluster))
    freed = collect_garbage(loaded, ledger, keep=keep or (), everything=everything, dry_run=dry_run)
    print_json(freed.to_dict()) if as_json else say(freed_text(freed, dry_run=dry_run))


@app.command()
def doctor(
    sweep: Annotated[
        Path | None,
        typer.Argument(metavar="[SWEEP]", help="also say what this sweep misses", shell_complete=sweep_files),
    ] = None,
    store: Store = None,
    cluster: ClusterFile = None,
    mlflow: Annotated[
        str | None, typer.Option("--mlflow", help="tracking URI; else LMMCL_MLFLOW; 'off' for none")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Examine this machine: versions, GPUs, Ray, store, MLflow, hub, disks, what a sweep misses. Exit code 2 for a problem."""
    from lmmcl.inspection.doctor.examine import examine

    place = load_cluster(cluster)
    findings = examine(open_ledger(store, place), place if cluster else None, sweep=sweep, mlflow=mlflow)
    print_json(findings.to_dict()) if as_json else wide_console().print(findings.table())
    if findings.problems:
        raise typer.Exit(2)


@ledger_app.command("pack")
def ledger_pack(store: Store = None, cluster: ClusterFile = None, as_json: AsJson = False) -> None:
    """Put the small files of all recorded steps into one file for each checkpoint; a run of 50 trials or more does so itself."""
    from lmmcl.ledger.packs.packing import pack

    ledger = open_ledger(store, load_cluster(cluster))
    ledger.check_exists()
    _print_packed("packed {steps} ({files}) into {packs}", pack(ledger), as_json=as_json)


@ledger_app.command("unpack")
def ledger_unpack(store: Store = None, cluster: ClusterFile = None, as_json: AsJson = False) -> None:
    """Write single files in place of packs, for an earlier version of lmmcl, which cannot read packs."""
    from lmmcl.ledger.packs.packing import unpack

    ledger = open_ledger(store, load_cluster(cluster))
    ledger.check_exists()
    _print_packed("unpacked {steps} ({files}) from {packs}", unpack(ledger), as_json=as_json)


def _print_packed(text: str, done: Packed, *, as_json: bool) -> None:
    """Print what was done; exit code 1 where something was left as it is."""
    from lmmcl.reports.formatting import plural

    if as_json:
        print_json(asdict(done))
    else:
        for path, why in done.left.items():
            say(f"{path}: {why}")
        counts = {"steps": plural(done.steps, "step"), "files": plural(done.files, "file")}
        say(text.format(**counts, packs=plural(done.packs, "pack")))
    if done.left:
        raise typer.Exit(1)


@ledger_app.command("check")
def ledger_check(
    store: Store = None,
    cluster: ClusterFile = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="quarantine damaged records, so that the next run recomputes them")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read every file of a store and report what is damaged. Exit code 1 when something is."""
    from lmmcl.inspection.audit import check_store

    audit = check_store(open_ledger(store, load_cluster(cluster)), repair=repair)
    if as_json:
        print_json(audit.to_dict())
    else:
        for damage in audit.damages:
            say(str(damage))
        say(audit.summary())
    if audit.damages:
        raise typer.Exit(1)
