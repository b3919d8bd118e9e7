"""Which store is meant: the one that is named, else LMMCL_STORE, else the cluster file's, else `lmmcl-store` beside the work."""

from __future__ import annotations

import os
from pathlib import Path

from fsspec.registry import get_filesystem_class

from lmmcl.config.cluster import Cluster
from lmmcl.errors import UserError
from lmmcl.ledger.ledger import Ledger

STORE_VARIABLE = "LMMCL_STORE"


def open_ledger(store: str | None, cluster: Cluster | None = None) -> Ledger:
    """The store that is named, else the one in LMMCL_STORE, else the cluster file's, else `lmmcl-store` beside the work."""
    named = store or os.environ.get(STORE_VARIABLE) or (cluster.store if cluster else None)
    ledger = Ledger(named or "lmmcl-store")
    _check(ledger.store)
    return ledger


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
        raise UserError(
            f"Unsupported store URL scheme '{kind}://' (not known to fsspec)", file=f"store {store}"
        ) from None
    except ImportError as error:
        raise UserError(
            f"needs an additional package for this kind of store ({error}); for s3:// it is in `pip install lmmcl[s3]`",
            file=f"store {store}",
        ) from error
