"""Python as on a machine that lacks packages: run as a program, `python without_packages.py [--only a,b | --without a,b] CODE`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, PackageNotFoundError, packages_distributions, requires
from typing import Any


def with_dependencies(packages: Iterable[str]) -> set[str]:
    """Names of the distributions that installing these brings, without extras."""
    known: set[str] = set()
    waiting = [_normal(name) for name in packages]
    while waiting:
        name = waiting.pop()
        if name in known:
            continue
        known.add(name)
        try:
            needed = requires(name) or []
        except PackageNotFoundError:  # of another platform
            continue
        waiting += [_normal(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in needed if "extra ==" not in line]
    return known


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


class Lacking(PathFinder):
    """Finds no module of the packages that are taken to be missing, as if they were not installed."""

    missing: frozenset[str] = frozenset()
    """Top-level modules, and names of distributions."""

    @classmethod
    def find_spec(cls, fullname: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        return None if fullname.partition(".")[0] in cls.missing else super().find_spec(fullname, path, target)

    @classmethod
    def find_distributions(cls, *arguments: Any) -> Iterator[Distribution]:
        """All but the missing ones: libraries also ask for the version of what they may use."""
        return (found for found in super().find_distributions(*arguments) if _normal(found.name) not in cls.missing)


def lack(missing: Iterable[str]) -> None:
    """From now on these modules and distributions are not found."""
    Lacking.missing = frozenset(missing)
    sys.meta_path[sys.meta_path.index(PathFinder)] = Lacking


def lack_all_but(packages: Iterable[str]) -> None:
    """From now on nothing can be imported but these distributions, what they need, the standard library and this repository."""
    installed = {*with_dependencies(packages), "lmmcl"}
    missing = {}
    for module, names in packages_distributions().items():
        if not installed & (distributions := {_normal(name) for name in names}):
            missing[module] = distributions
    lack({*missing, *(name for distributions in missing.values() for name in distributions)})


if __name__ == "__main__":
    {"--only": lack_all_but, "--without": lack}[sys.argv[1]](sys.argv[2].split(","))
    exec(compile(sys.argv[3], "<code>", "exec"), {"__name__": "__main__"})
