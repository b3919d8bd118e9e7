"""By what, where and when a step was computed: kept beside its results, and in no key."""

from __future__ import annotations

import os
import socket
import sys
import time
from functools import lru_cache
from typing import Any

PACKAGES = ("torch", "transformers", "ray", "tokenizers", "pillow", "torchvision")
"""Whose versions a record holds (None where a package is not installed)."""

NUMBERS = ("torch", "transformers", "tokenizers", "pillow", "torchvision")
"""Those of them that can change a number."""


def provenance(started: float) -> dict[str, Any]:
    """By what, where and when a step was computed: versions, commit, host, times (seconds since 1970)."""
    return {**_versions(), "host": socket.gethostname(), "started": started, "finished": time.time()}


def this_run() -> str:
    """What computes no step twice at a time: the Ray job, whose actor holds all flights; empty without Ray, for this process."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return ""
    context = ray.get_runtime_context()
    return f"{context.get_session_name()}/{context.get_job_id()}"


def computed_by() -> str:
    """The run that this process works for, as a record names it: its Ray job, else host and process."""
    return this_run() or f"{socket.gethostname()}/{os.getpid()}"


@lru_cache(maxsize=1)
def _versions() -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    from lmmcl.version import __version__, source_commit

    versions: dict[str, Any] = {"lmmcl": __version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {**versions, "commit": source_commit()}
