"""Mitigations by name: one, or several that act together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.errors import UserError, shown
from lmmcl.methods.combination import combine
from lmmcl.methods.mitigation import Mitigation
from lmmcl.methods.recipes.recipe import RECIPES
from lmmcl.named_settings import build, name_and_settings
from lmmcl.registry import member, members

if TYPE_CHECKING:
    from lmmcl.tasks.skills import Skill


def mitigation_names() -> list[str]:
    """Names of all mitigations that ship."""
    return list(members("lmmcl.methods", "MITIGATIONS"))


def get_mitigation(
    spec: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]],
    *,
    skills: Mapping[str, Skill] | None = None,
    folder: Path | None = None,
) -> Mitigation:
    """A mitigation from `name` or `{name: {setting: value}}`, or of a list of these their combination.

    Raises UserError for unknown names, bad settings and what does not combine; of a list, its place is the position.
    Where a setting names a skill, `skills` are the sweep's own by name; where it names a file, it is relative to `folder`.
    """
    if isinstance(spec, str | Mapping):
        return _single(spec, skills or {}, folder or Path())
    members = []
    for number, entry in enumerate(spec):
        try:
            members.append(_single(entry, skills or {}, folder or Path()))
        except UserError as error:
            raise UserError(str(error), place=f"[{number}]") from error
    return combine(members)


def _single(spec: str | Mapping[str, Any], skills: Mapping[str, Skill], folder: Path) -> Mitigation:
    if spec in (None, "none"):
        raise UserError("none stands for no mitigation and cannot be combined with others; remove it from the list")
    if not isinstance(spec, str | Mapping):
        raise UserError(f"a mitigation is a name or {{name: {{setting: value}}}}, not {shown(spec)}")
    name, settings = name_and_settings("mitigation", spec)
    if name in RECIPES and name not in mitigation_names():
        raise UserError(f"{shown(name)} is a recipe, not a mitigation; allowed in `recipe: [{name}]`")
    kind: type[Mitigation] = member("lmmcl.methods", "MITIGATIONS", "mitigation", name)
    return build(kind, name, settings, context={"skills": skills, "folder": folder})
