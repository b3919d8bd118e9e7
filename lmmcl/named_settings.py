"""`name` or `{name: {setting: value}}`: how a sweep file names a recipe, a mitigation, a probe or an adapter with its settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from lmmcl.errors import UserError, bad_setting, shown, unknown_key

if TYPE_CHECKING:
    from pydantic import BaseModel

KindT = TypeVar("KindT", bound="BaseModel")


def name_and_settings(what: str, spec: str | Mapping[str, Any]) -> tuple[str, Any]:
    """The name of a spec and its settings as written; raises UserError unless it is a name, or a mapping of one name."""
    if isinstance(spec, str):
        return spec, {}
    if len(spec) != 1:
        raise UserError(f"a {what} is a name or {{name: {{setting: value}}}}, not {shown(dict(spec))}")
    [(name, settings)] = spec.items()
    return name, settings


def check_settings(name: str, settings: Any, allowed: Collection[str]) -> dict[str, Any]:
    """Settings as a mapping of `allowed` names; raises UserError for anything else."""
    if not isinstance(settings or {}, Mapping):
        raise UserError(f"settings of {name} are a mapping such as {{setting: value}}, not {shown(settings)}")
    for setting in settings or {}:
        if setting not in allowed:
            raise UserError(f"{name}: {unknown_key('setting', setting, allowed)}")
    return dict(settings or {})


def build(kind: type[KindT], name: str, settings: Any, *, context: Mapping[str, Any] | None = None) -> KindT:
    """A `kind` from the settings of `name`; raises UserError for unknown names and bad values. `context` is pydantic's."""
    checked = check_settings(name, settings, kind.model_fields)
    return validated(kind, name, checked, context=context)


def validated(
    kind: type[KindT], name: str, fields: Mapping[str, Any], *, context: Mapping[str, Any] | None = None
) -> KindT:
    """A `kind` from fields; pydantic's errors come out as UserErrors that begin with `name`."""
    from pydantic import ValidationError

    try:
        return kind.model_validate(dict(fields), context=dict(context) if context is not None else None)
    except ValidationError as error:
        raise bad_setting(name, error, kind) from error
