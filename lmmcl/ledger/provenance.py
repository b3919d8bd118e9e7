"""By what, where and when a step was computed or a report was made: kept beside the results, and in no key."""

from __future__ import annotations

import datetime
import os
import platform
import socket
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from lmmcl.masking import mask
from lmmcl.terminal import escape_controls

PACKAGES = ("torch", "transformers", "ray", "tokenizers", "pillow", "torchvision")
"""Whose versions a record holds (None where a package is not installed)."""

NUMBERS = ("torch", "transformers", "tokenizers", "pillow", "torchvision")
"""Those of them that can change a number."""


def provenance(started: float) -> dict[str, Any]:
    """By what, where and when a step was computed: versions, commit, host, times (seconds since 1970)."""
    return {**_versions(), "host": socket.gethostname(), "started": started, "finished": time.time()}


def report_provenance() -> dict[str, Any]:
    """What made the numbers of a report: versions, commit, command, date."""
    return {
        "versions": {name: value for name, value in _versions().items() if name != "commit"},
        "python": platform.python_version(),
        "commit": _short_commit(),
        "command": _command(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _short_commit() -> str | None:
    """The commit of this package's source, shortened, with `+` where tracked files differ from it; None outside its repository."""
    from lmmcl.version import git, source_commit

    commit = source_commit()
    return commit and commit[:7] + ("+" if git("status", "--porcelain", "-uno") else "")


def _command() -> str:
    """The command line as it was typed, or that this was another program of Python's: a notebook, a script."""
    program = Path(sys.argv[0])
    is_lmmcl = program.name == "lmmcl" or program.parts[-2:] == ("lmmcl", "__main__.py")
    return escape_controls(mask(" ".join(["lmmcl", *sys.argv[1:]]))) if is_lmmcl else "Python"


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
