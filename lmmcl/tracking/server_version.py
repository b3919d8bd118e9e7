"""Whether MLflow's pages at a place show shared views: of a server as it says itself, else as the installed MLflow does."""

from __future__ import annotations

from importlib.metadata import version
from urllib.parse import urlsplit

from lmmcl.private_api.mlflow_private import is_view_supported
from lmmcl.tracking.database import SERVERS, ask_server


def are_views_supported(uri: str) -> bool:
    """Whether shared views are known to work; a server that does not tell its version is taken to have none."""
    if urlsplit(uri).scheme not in SERVERS:
        return is_view_supported(version("mlflow"))
    try:
        return is_view_supported(ask_server(uri, "/version"))
    except (OSError, ValueError):
        return False
