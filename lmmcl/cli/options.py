"""What commands share: options that mean the same everywhere, the store that is meant, and ways to print."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lmmcl import strict_json
from lmmcl.config.cluster import load_cluster
from lmmcl.ledger import Ledger
from lmmcl.ledger.named_store import open_ledger
from lmmcl.masking import mask
from lmmcl.terminal import say_json

SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP", help="a sweep file, such as sweeps/quickstart.yaml")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="change the sweep: training.epochs=2")
]
Store = Annotated[str | None, typer.Option("--store", help="folder or URI; else LMMCL_STORE, else ./lmmcl-store")]
ClusterFile = Annotated[Path | None, typer.Option("--cluster", help="where and how to run; default: this machine")]
Tracking = Annotated[
    list[str] | None,
    typer.Option("--tracking", metavar="NAME", help="also log to tensorboard, trackio or wandb; may be repeated"),
]
AsJson = Annotated[bool, typer.Option("--json", help="machine-readable output")]
TrialName = Annotated[
    str, typer.Argument(metavar="TRIAL", help="a trial: name, part of a name, key or beginning of a key")
]
Checkpoint = Annotated[
    str,
    typer.Argument(
        metavar="STEP",
        help="a checkpoint: key, beginning of a key, folder name, or a trial's name for its last, NAME@1 for that after stage 1",
    ),
]


def read_ledger(store: str | None, cluster: Path | None = None) -> Ledger:
    """The store of a command that only reads; raises UserError where there is none, for a wrong name is not an empty store."""
    ledger = open_ledger(store, load_cluster(cluster))
    ledger.check_exists()
    return ledger


def given_again(set_: Sequence[str] | None, store: str | None, cluster: Path | None) -> str:
    """The options of a command as words to paste behind another that a message names: ` --set training.epochs=2 --store DIR`."""
    words = [word for override in set_ or () for word in ("--set", override)]
    words += ["--store", mask(store)] if store else []
    words += ["--cluster", str(cluster)] if cluster else []
    return "".join(f" {shlex.quote(word)}" for word in words)


def print_json(value: Any) -> None:
    """Plain JSON on standard output, never wrapped or coloured, without NaN."""
    say_json(strict_json.dumps(value, indent=2))
