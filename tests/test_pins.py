"""The ranges in pyproject.toml: what is installed lies in them, and the lowest ends are what `.ci/pins lowest` installs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DIRECT = [Requirement(text) for text in PROJECT["dependencies"]]
OPTIONAL = [Requirement(text) for texts in PROJECT["optional-dependencies"].values() for text in texts]


def test_what_is_installed_lies_in_the_ranges() -> None:
    checked = 0
    for requirement in (*DIRECT, *OPTIONAL):
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:  # an extra, or another system's
            continue
        checked += 1
        assert requirement.specifier.contains(installed, prereleases=True), f"{requirement}: {installed} is installed"
    assert checked >= len(DIRECT) - 2


def test_the_lowest_ends_are_inside_the_ranges() -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / ".ci" / "lowest_pins.py"], capture_output=True, text=True, check=True
    )
    lowest = {found.name: found for line in done.stdout.splitlines() if (found := Requirement(line)).name != "boto3"}
    floored = [each for each in DIRECT if any(part.operator == ">=" for part in each.specifier)]
    assert {each.name for each in floored} <= lowest.keys() and len(lowest) >= 25
    for requirement in floored:
        (held,) = lowest[requirement.name].specifier
        assert requirement.specifier.contains(held.version.replace("*", "99")), f"{requirement}: {held}"


def test_every_dependency_with_breaking_releases_has_a_ceiling() -> None:
    open_ended = {each.name for each in DIRECT if not any(part.operator == "<" for part in each.specifier)}
    assert open_ended <= {"fsspec"}, "named by its date, and s3fs goes with it"
