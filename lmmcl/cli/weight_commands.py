"""Weights of one checkpoint: eval · export · tiny train."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from lmmcl.cli.completion import benchmarks
from lmmcl.cli.options import (
    AsJson,
    Checkpoint,
    ClusterFile,
    Precision,
    Store,
    load_cluster,
    open_ledger,
    print_json,
    read_ledger,
)
from lmmcl.environment import neutral_environment
from lmmcl.terminal import say

app = typer.Typer()
tiny_app = typer.Typer(no_args_is_help=True, help="The embedded tiny models.")
app.add_typer(tiny_app, name="tiny")


@app.command("eval")
def eval_(
    step: Checkpoint,
    benchmark: Annotated[
        list[str],
        typer.Option("--benchmark", "-b", help="skill or benchmark; may be repeated", shell_complete=benchmarks),
    ],
    store: Store = None,
    cluster: ClusterFile = None,
    limit: Annotated[int | None, typer.Option(min=1, help="ask a fixed sample of N questions")] = None,
    precision: Annotated[Precision, typer.Option(help="of weights and arithmetic")] = "fp32",
    engine: Annotated[
        str | None, typer.Option("--engine", help="overrides the engine of the cluster file, such as vllm")
    ] = None,
    parity: Annotated[
        bool, typer.Option("--parity", help="also evaluate with transformers and report where the answers differ")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Ask benchmarks of a recorded checkpoint, in this process; or of a model: short name, hub id, directory, adapter directory.

    Prints each score with its 95 % interval and the number of questions; what is being done is said on standard error.
    """
    place = load_cluster(cluster)
    if engine:
        place = place.model_copy(update={"evaluation": place.evaluation.model_copy(update={"engine": engine})})
    ledger = open_ledger(store, place)
    with neutral_environment():  # before torch is imported
        from lmmcl.runner.ad_hoc import compare_engine, evaluate_checkpoint

        if parity:
            parities = compare_engine(step, benchmark, ledger, place, limit=limit, precision=precision)
            print_json([pair.to_dict() for pair in parities]) if as_json else say("\n".join(map(str, parities)))
            return
        scores = evaluate_checkpoint(step, benchmark, ledger, place, limit=limit, precision=precision)
    if as_json:
        print_json({score.benchmark: score.to_dict() for score in scores})
    else:
        say("\n".join(map(str, scores)))


@app.command()
def export(
    step: Checkpoint,
    to: Annotated[Path, typer.Option("--to", help="an empty folder; with --push, one with this very export continues")],
    adapter: Annotated[
        bool, typer.Option("--adapter", help="one PEFT adapter for the pre-trained model (LoRA)")
    ] = False,
    push: Annotated[
        str | None, typer.Option("--push", metavar="OWNER/NAME", help="send it to the Hugging Face hub (private)")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="with --push: a new repository is public")] = False,
    store: Store = None,
    cluster: ClusterFile = None,
) -> None:
    """Write a checkpoint as a plain `save_pretrained` folder (transformers, vLLM) or a PEFT adapter, with its model card."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed tells on standard output when it has to find out
    from lmmcl.inspection.publishing.export_command import export_checkpoint
    from lmmcl.inspection.stored_trials import find_checkpoint

    ledger = read_ledger(store, cluster)
    recorded = find_checkpoint(ledger, step)
    for line in export_checkpoint(recorded, ledger, to, adapter=adapter, repository=push, public=public):
        say(line)


@tiny_app.command("train")
def tiny_train(
    to: Annotated[Path, typer.Option("--to", help="folder for weights, processor and training.json")],
    seed: Annotated[int | None, typer.Option(help="default: the seed of the weights that ship")] = None,
) -> None:
    """Make the embedded model's weights again: pre-train tiny-onevision on its eight general visual skills."""
    from lmmcl.maintenance.tiny_train import pretrain

    print_json(pretrain(to) if seed is None else pretrain(to, seed=seed))
