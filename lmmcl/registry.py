"""Members found by walking a folder: a new model family, skill or mitigation is one file and no list to edit."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any

from lmmcl.errors import UserError, unknown


@cache
def members(package: str, attribute: str) -> dict[str, Any]:
    """Every member that a module of `package` lists in its tuple `attribute`, by name.

    Raises ValueError when two modules claim one name.
    """
    by_name: dict[str, Any] = {}
    for info in pkgutil.walk_packages(importlib.import_module(package).__path__, prefix=f"{package}."):
        for member in getattr(importlib.import_module(info.name), attribute, ()):
            if member.name in by_name:
                raise ValueError(f"{info.name}: the name {member.name!r} is taken already in {package}.{attribute}")
            by_name[member.name] = member
    return by_name


def member(package: str, attribute: str, kind: str, name: str) -> Any:
    """The member called `name`; raises UserError with the nearest names when there is none."""
    registered = members(package, attribute)
    if name not in registered:
        raise UserError(unknown(kind, name, registered))
    return registered[name]
