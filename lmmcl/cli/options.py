"""What commands share: options that mean the same everywhere, the store that is meant, and ways to print."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from fsspec.registry import get_filesystem_class
from rich.console import Console

from lmmcl.config.cluster import Cluster, load_cluster
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger

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


def open_ledger(store: str | None, cluster: Cluster | None = None) -> Ledger:
    """The store that is named on the command line, in LMMCL_STORE, in the cluster file, or beside the work."""
    named = store or os.environ.get("LMMCL_STORE") or (cluster.store if cluster else None)
    ledger = Ledger(named or "lmmcl-store")
    _check(ledger.store)
    return ledger


def read_ledger(store: str | None, cluster: Path | None = None) -> Ledger:
    """The store of a command that only reads; raises UserError where there is none, for a wrong name is no empty store."""
    ledger = open_ledger(store, load_cluster(cluster))
    ledger.check_exists()
    return ledger


def given_again(set_: Sequence[str] | None, store: str | None, cluster: Path | None) -> str:
    """The options of a command as words to paste behind another that is told: ` --set training.epochs=2 --store DIR`."""
    words = [word for each in set_ or () for word in ("--set", each)]
    words += ["--store", store] if store else []
    words += ["--cluster", str(cluster)] if cluster else []
    return "".join(f" {shlex.quote(word)}" for word in words)


def _check(store: str) -> None:
    """Raises UserError for what cannot be a store; one that is not there yet is empty."""
    if "://" not in store:
        if Path(store).exists() and not Path(store).is_dir():
            raise UserError("is a file; a store is a folder or a URI", file=f"store {store}")
        return
    kind = store.split("://")[0]
    try:
        get_filesystem_class(kind)
    except ValueError:
        raise UserError(f"{kind}:// is no kind of store that fsspec knows", file=f"store {store}") from None
    except ImportError as error:
        raise UserError(
            f"needs a package for its kind of store ({error}); for s3:// it is in `pip install lmmcl[s3]`",
            file=f"store {store}",
        ) from error


def wide_console() -> Console:
    """The terminal; where output goes to a file or pipe, wide enough that no table is folded."""
    return Console() if sys.stdout.isatty() else Console(width=200)


def print_json(value: Any) -> None:
    """Plain JSON on standard output, never wrapped or coloured."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
