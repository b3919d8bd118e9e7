"""The store, MLflow and the hub, as a run would use them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lmmcl.errors import UserError
from lmmcl.inspection.doctor.finding import Finding
from lmmcl.ledger import Ledger
from lmmcl.ledger.store import local_path
from lmmcl.masking import mask
from lmmcl.tracking.database import MLFLOW_VARIABLE, check_reachable, default_tracking_uri

SECONDS = 5.0


def store_findings(ledger: Ledger) -> Iterator[Finding]:
    """Whether the store can be written; one that is not there yet is not made."""
    store = mask(ledger.store)
    folder = local_path(ledger.store)
    if folder is not None and not folder.exists():
        parent = next(ancestor for ancestor in folder.parents if ancestor.exists())
        if os.access(parent, os.W_OK):
            yield Finding("store", "ok", f"{store} (new)")
        else:
            why = f"{store} cannot be created: {parent} is not writable"
            yield Finding("store", "problem", why, "name another with --store or LMMCL_STORE")
        return
    try:
        ledger.check_writable()
        yield Finding("store", "ok", f"{store}, {len(ledger.paths())} steps recorded")
    except UserError as error:
        yield Finding("store", "problem", str(error), "check its credentials and rights, or name another with --store")


def mlflow_findings(uri: str | None, ledger: Ledger) -> Iterator[Finding]:
    """Whether runs can be logged: to the server or database that is named, else to a database in the store."""
    uri = uri or os.environ.get(MLFLOW_VARIABLE)
    if uri == "off":
        yield Finding("MLflow", "ok", "off")
        return
    try:
        if uri:
            check_reachable(uri, SECONDS)
        yield Finding("MLflow", "ok", mask(uri or default_tracking_uri(ledger.store)))
    except UserError as error:
        yield Finding("MLflow", "problem", str(error), "correct --mlflow or LMMCL_MLFLOW, or run with --mlflow off")


def hub_findings() -> Iterator[Finding]:
    """Whether the hub answers, and as whom it knows this machine."""
    from huggingface_hub import HfApi, constants, get_session, get_token, is_offline_mode
    from huggingface_hub.errors import HTTPError

    cached = len(list(Path(constants.HF_HUB_CACHE).glob("models--*")))
    place = f"{cached} models in the cache"
    if is_offline_mode():
        yield Finding("hub", "ok", f"HF_HUB_OFFLINE is set: nothing is asked; {place}")
        return
    try:
        get_session().get(f"{constants.ENDPOINT}/api/models/lmmcl/doctor", timeout=SECONDS)
    except (HTTPError, OSError) as error:
        yield Finding(
            "hub",
            "warning",
            f"{constants.ENDPOINT} does not answer ({type(error).__name__}); {place}",
            "what is in the cache can be used; set HF_HUB_OFFLINE=1 to wait for nothing, or HF_ENDPOINT or a proxy to reach it",
        )
        return
    if get_token() is None:
        yield Finding(
            "hub", "ok", f"{constants.ENDPOINT} answers; no token (gated models need one: `hf auth login`); {place}"
        )
        return
    try:
        name = HfApi().whoami()["name"]
        yield Finding("hub", "ok", f"{constants.ENDPOINT} answers, logged in as {name}; {place}")
    except (HTTPError, OSError) as error:
        yield Finding(
            "hub",
            "warning",
            f"{constants.ENDPOINT} answers, but does not take the token ({type(error).__name__}); {place}",
            "make a new one on its settings page, then `hf auth login`; unset HF_TOKEN if it is an old one",
        )
