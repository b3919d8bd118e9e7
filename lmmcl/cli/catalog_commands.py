"""What there is, and what it is: show · list · schema."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lmmcl.cli.completion import SHELLS, one_of, shown
from lmmcl.cli.options import AsJson, ClusterFile, Store, open_ledger, print_json, read_ledger
from lmmcl.errors import UserError
from lmmcl.terminal import wide_console

app = typer.Typer()
KINDS = ("models", "recipes", "mitigations", "skills", "benchmarks", "probes", "metrics", "steps")


@app.command()
def show(
    what: Annotated[
        str,
        typer.Argument(
            help="a step's key, a trial's key, name or part of a name, or the word 'model'", shell_complete=shown
        ),
    ],
    name: Annotated[str | None, typer.Argument(help="the model's name")] = None,
    store: Store = None,
    cluster: ClusterFile = None,
    as_json: AsJson = False,
) -> None:
    """Show a recorded step (what, why, from what, where, how long, how to get it again), why a trial failed, or a model."""
    from lmmcl.inspection.catalog import model_facts, model_table
    from lmmcl.inspection.step_details import step_facts, step_table

    if what == "model":
        if name is None:
            raise UserError("show model needs a name; `lmmcl list models` has them")
        facts, table = model_facts(name), model_table
    elif name is not None:
        raise UserError(
            f"{name!r} is an unexpected extra argument: a second argument names a model "
            "(`lmmcl show model NAME`); put a trial's name in quotes"
        )
    else:
        facts, table = step_facts(read_ledger(store, cluster), what), step_table
    print_json(facts) if as_json else wide_console().print(table(facts))


@app.command("list")
def list_(
    kind: Annotated[
        str,
        typer.Argument(
            help="models, recipes, mitigations, skills, benchmarks, probes, metrics or steps",
            shell_complete=one_of(KINDS),
        ),
    ],
    store: Store = None,
    cluster: ClusterFile = None,
    as_json: AsJson = False,
) -> None:
    """List what there is of a kind, by name."""
    from lmmcl.inspection.catalog import catalogue, catalogue_table

    rows = catalogue(kind, read_ledger(store, cluster) if kind == "steps" else open_ledger(store))
    print_json(rows) if as_json else wide_console().print(catalogue_table(kind, rows))


@app.command()
def schema(
    kind: Annotated[
        str, typer.Argument(help="sweep or cluster", shell_complete=one_of(("sweep", "cluster")))
    ] = "sweep",
) -> None:
    """Print the JSON schema of sweep files (or cluster files), for editors."""
    from lmmcl.config.cluster import Cluster
    from lmmcl.config.sweep_file import SweepFile as SweepForm
    from lmmcl.errors import unknown

    forms: dict[str, Any] = {"sweep": SweepForm, "cluster": Cluster}
    if kind not in forms:
        raise UserError(unknown("kind of file", kind, forms))
    print_json(forms[kind].model_json_schema())


@app.command()
def completion(
    shell: Annotated[str, typer.Argument(help="bash, zsh or fish", shell_complete=one_of(SHELLS))],
) -> None:
    """Print the script with which a shell completes lmmcl's words: `eval "$(lmmcl completion bash)"`.

    Completed are commands, options, sweep files, trials, checkpoints and benchmarks, from the files here and the store
    (--store, LMMCL_STORE or ./lmmcl-store) where that is a folder. `lmmcl --install-completion` writes the script to the
    files that your shell reads when it starts.
    """
    from lmmcl.cli.completion import script
    from lmmcl.errors import unknown

    if shell not in SHELLS:
        raise UserError(unknown("shell", shell, SHELLS))
    typer.echo(script(shell))
