"""What commands share: options that mean the same everywhere, the files and the store that are meant, and ways to print.

Modules of commands import at once what takes no time, and the rest where it is used: a shell that completes a word waits for
these imports.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lmmcl import strict_json
from lmmcl.cli.completion import checkpoints, sweep_files, trials
from lmmcl.masking import mask
from lmmcl.terminal import say_json

if TYPE_CHECKING:
    from lmmcl.config.cluster import Cluster
    from lmmcl.config.sweep import Sweep
    from lmmcl.ledger import Ledger

Precision = Literal["fp32", "bf16", "fp16"]
SweepFile = Annotated[
    Path,
    typer.Argument(metavar="SWEEP", help="a sweep file, such as sweeps/quickstart.yaml", shell_complete=sweep_files),
]
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
    str,
    typer.Argument(
        metavar="TRIAL", help="a trial: name, part of a name, key or beginning of a key", shell_complete=trials
    ),
]
Checkpoint = Annotated[
    str,
    typer.Argument(
        metavar="STEP",
        help="a checkpoint: key, beginning of a key, folder name, or a trial's name for its last, NAME@1 for that after stage 1",
        shell_complete=checkpoints,
    ),
]


def load_sweep(path: str | Path, set_: Sequence[str] | None = None) -> Sweep:
    """See `lmmcl.config.sweep.load_sweep`."""
    from lmmcl.config import sweep

    return sweep.load_sweep(path, set_)


def load_cluster(path: Path | None) -> Cluster:
    """See `lmmcl.config.cluster.load_cluster`."""
    from lmmcl.config import cluster

    return cluster.load_cluster(path)


def open_ledger(store: str | None, cluster: Cluster | None = None) -> Ledger:
    """See `lmmcl.ledger.named_store.open_ledger`."""
    from lmmcl.ledger import named_store

    return named_store.open_ledger(store, cluster)


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
