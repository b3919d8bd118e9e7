"""Versions of Python and of the packages that lmmcl needs, held to the ranges that it was tested with."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from lmmcl.inspection.doctor.finding import Finding
from lmmcl.version import __version__

SHOWN = ("torch", "transformers", "peft", "ray", "mlflow", "datasets", "deepspeed")
"""Packages whose versions are listed."""
OPTIONAL = {"deepspeed": "strategy deepspeed", "ray": "anything but --inline", "mlflow": "anything but --mlflow off"}
"""Packages that some runs do without, and what needs them."""


def package_findings() -> Iterator[Finding]:
    """One finding on all, and one for each package that is missing or outside its range."""
    yield Finding("lmmcl", "ok", f"{__version__}, Python {platform.python_version()} ({sys.executable})")
    needed = _requirements()
    if not needed:
        yield Finding(
            "packages", "warning", "lmmcl is not installed as a package, so its ranges of versions are not known",
            "run `pip install -e .` in its folder",
        )  # fmt: skip
        return
    yield from (finding for requirement in needed if (finding := _check(requirement)) is not None)
    yield Finding("packages", "ok", ", ".join(f"{name} {version}" for name in SHOWN if (version := _version(name))))


def _requirements() -> list[Requirement]:
    """What the installed package says that it needs here; none where it is not installed."""
    try:
        listed = [Requirement(text) for text in requires("lmmcl") or ()]
    except PackageNotFoundError:
        return []
    return [
        requirement
        for requirement in listed
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]


def _check(needed: Requirement) -> Finding | None:
    version = _version(needed.name)
    if version is None:
        state, without = ("warning", OPTIONAL[needed.name]) if needed.name in OPTIONAL else ("problem", "any sweep")
        return Finding("packages", state, f"{needed.name} is not installed, which {without} needs", _install(needed))  # type: ignore[arg-type]
    if not needed.specifier.contains(version, prereleases=True):
        return Finding(
            "packages",
            "warning",
            f"{needed.name} {version} is outside the range that was tested ({needed.specifier})",
            _install(needed),
        )
    return None


def _install(needed: Requirement) -> str:
    return f"pip install '{needed.name}{needed.specifier}'"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
