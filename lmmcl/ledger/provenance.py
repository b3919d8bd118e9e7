"""By what, where and when a step was computed: kept beside its results, and in no key."""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path
from typing import Any


def provenance(started: float) -> dict[str, Any]:
    """By what, where and when a step was computed: versions, commit, host, times (seconds since 1970)."""
    import socket

    return {**_versions(), "host": socket.gethostname(), "started": started, "finished": time.time()}


@lru_cache(maxsize=1)
def _versions() -> dict[str, Any]:
    import subprocess
    from importlib.metadata import PackageNotFoundError, version

    import lmmcl

    versions: dict[str, Any] = {"lmmcl": lmmcl.__version__}
    for package in ("torch", "transformers", "ray"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    here = Path(__file__).parent
    try:
        found = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return {**versions, "commit": None}
    return {**versions, "commit": found.stdout.strip() if found.returncode == 0 else None}
