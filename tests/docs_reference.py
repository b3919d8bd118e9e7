"""Tables of the docs that are made from the code: settings, members, measures, commands (`python tests/architecture_tree.py`).

A page holds `<!-- made: WHAT NAME -->`, and everything from there to `<!-- end -->` is made by the maker of that name here.
"""

from __future__ import annotations

import importlib
import json
import re
import types
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lmmcl.cli import app, completion
from lmmcl.errors import UserError
from lmmcl.inspection.catalog import catalogue
from lmmcl.ledger import Ledger
from lmmcl.measures import MEASURES
from lmmcl.methods import Mitigation, get_mitigation, mitigation_names
from lmmcl.methods.combination import HOOKS
from lmmcl.methods.divided import DIVIDED, check_divided
from lmmcl.methods.recipes.recipe import NOT_OFFERED, RECIPES, Recipe
from lmmcl.models import roles as roles_module
from lmmcl.registry import members
from lmmcl.tasks import benchmark_names, skill_names

DOCS = Path(__file__).parents[1] / "docs"
STRATEGIES = DOCS / "strategies.json"
"""What tests/training/distributed/test_strategy_table.py measured."""
MARK = re.compile(r"(<!-- made: (\w+) ?([\w.:]*) -->\n)(?:.*?\n)??(<!-- end -->)", re.DOTALL)
PLAIN = {int: "whole number", float: "number", bool: "true or false", str: "text", Any: "any value"}


def render(page: str) -> str:
    """The text of a page with every generated part as the code has it now."""
    return MARK.sub(lambda found: f"{found[1]}{MAKERS[found[2]](found[3])}\n{found[4]}", page)


def write() -> None:
    """Bring all pages up to date, and the names that a shell completes."""
    completion.NAMES.write_text(shipped_names(), encoding="utf-8")
    for path in sorted(DOCS.glob("*.md")):
        path.write_text(render(path.read_text(encoding="utf-8")), encoding="utf-8")


def shipped_names() -> str:
    """The skills and benchmarks that ship, one a line."""
    return "".join(f"{name}\n" for name in sorted({*skill_names(), *benchmark_names()}))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table without its columns that are empty in every row."""
    head, rows = list(head), [[_cell(cell) for cell in row] for row in rows]
    used = [i for i in range(len(head)) if any(row[i] for row in rows)]
    lines = [[head[i] for i in used], ["---"] * len(used), *([row[i] for i in used] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def settings_in(module: str) -> list[str]:
    """The classes of settings that a module defines."""
    found = vars(importlib.import_module(module)).items()
    named = [(name, kind) for name, kind in found if is_settings(kind) and not name.startswith("_")]
    return [name for name, kind in named if kind.__module__ == module or name == "Grid"]


def is_settings(kind: Any) -> bool:
    """Whether something is a class of settings with fields."""
    return isinstance(kind, type) and issubclass(kind, BaseModel) and bool(kind.model_fields)


def settings(name: str) -> str:
    """The fields of a class of settings, named by `module:Class`."""
    module, _, kind = name.partition(":")
    return _fields(getattr(importlib.import_module(module), kind))


def mitigation(name: str) -> str:
    """The settings of a mitigation."""
    return _fields(members("lmmcl.methods", "MITIGATIONS")[name])


def combinations(_: str) -> str:
    """Where each mitigation acts, what it does not combine with, and the strategies that it cannot have."""
    kinds = members("lmmcl.methods", "MITIGATIONS")
    return table(("mitigation", "acts in", "is refused", "not under"), map(_combines, kinds))


def _combines(name: str) -> tuple[str, ...]:
    own = get_mitigation(name)
    acts = ", ".join(hook for hook in HOOKS if own.in_training and own.in_training.uses(hook)) or "merge"
    others = {other: _refused(other, name) for other in mitigation_names() if other != name}
    if own.merges and all(others[other] for other in others if get_mitigation(other).merges):
        refused = "after another merge"
    else:
        refused = ", ".join(f"beside `{other}`" for other in others if others[other] and _refused(name, other))
    not_under = ", ".join(f"`{strategy}`" for strategy in DIVIDED if _divided(own, strategy))
    return f"`{name}`", acts.replace("_", " "), refused or "–", not_under or "–"


def strategies(_: str) -> str:
    """What holds under which strategy, as it was measured; the reasons of what is refused below."""
    measured = json.loads(STRATEGIES.read_text(encoding="utf-8"))
    columns = list(measured["rows"][0]["cells"])
    reasons: list[str] = []
    parts = []
    for kind in dict.fromkeys(row["kind"] for row in measured["rows"]):
        rows = [row for row in measured["rows"] if row["kind"] == kind]
        filled = ((row["name"], *(_cell_of(row["cells"][name], name, reasons) for name in columns)) for row in rows)
        parts.append(table((kind, *(f"`{name}`" for name in columns)), filled))
    notes = "\n".join(f"{number}. {reason}" for number, reason in enumerate(reasons, start=1))
    versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    return "\n\n".join(
        [
            *parts,
            f"Refused, as `lmmcl plan` says it with the strategy's name:\n\n{notes}",
            f"{measured['date']}: {versions}.",
        ]
    )


def _cell_of(cell: Mapping[str, Any], strategy: str, reasons: list[str]) -> str:
    """`holds (1e-06)`, or the number of the reason why it is refused."""
    if "refused" not in cell:
        return f"holds ({cell['difference']:.0e})"
    reason = re.sub(rf"\b{strategy}\b", "the strategy", cell["refused"])
    if reason not in reasons:
        reasons.append(reason)
    return f"refused ({reasons.index(reason) + 1})"


def _refused(first: str, second: str) -> bool:
    try:
        get_mitigation([first, second])
    except UserError:
        return True
    return False


def _divided(own: Mitigation, strategy: str) -> bool:
    try:
        check_divided(own, strategy, trains_head=lambda: False)
    except UserError:
        return True
    return False


def probe(name: str) -> str:
    """The settings of a probe."""
    return _fields(members("lmmcl.tasks", "PROBES")[name])


def _fields(kind: type[BaseModel]) -> str:
    rows = [
        (f"`{name}`", value_of(field), default_of(field), meaning_of(kind, name))
        for name, field in kind.model_fields.items()
        if get_origin(field.annotation) is not Literal or len(get_args(field.annotation)) > 1  # a tag with one value
    ]
    return table(("key", "value", "default", "meaning"), rows) if rows else "It has no settings."


def meaning_of(kind: type[BaseModel], name: str) -> str:
    """A field's description; else that of the class it overrides, or what the class of its value is for."""
    bases = [base for base in kind.__mro__ if is_settings(base) and name in base.model_fields]
    own = [base.model_fields[name].description for base in bases]
    inner = kind.model_fields[name].annotation
    own += [(inner.__doc__ or "").partition("\n")[0]] if is_settings(inner) else []
    return next((each for each in own if each), "")


def value_of(field: FieldInfo) -> str:
    """What a field takes: `number, above 0`."""
    words = type_words(field.annotation)
    return ", ".join([words, *limits(field.metadata)])


def type_words(kind: Any) -> str:
    """A type in words: `fp32 | bf16`, `list of text`, `number or null`."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return ", ".join([type_words(inner[0]), *limits(inner[1:])])
    if origin is Literal:
        return " | ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if part is type(None) else type_words(part) for part in inner)
    if origin is tuple and get_origin(inner[0]) is tuple and len(get_args(inner[0])) == 2:
        return "mapping"  # pairs can be hashed
    if origin in (list, tuple):
        return f"list of {type_words(inner[0])}" if inner[0] is not Any else "list"
    if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return "mapping"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "mapping"
    return PLAIN.get(kind, str(getattr(kind, "__name__", kind)))


def limits(metadata: Iterable[Any]) -> list[str]:
    """`above 0`, `at most 1`."""
    said = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    found = {name: value for limit in metadata for name in said if (value := getattr(limit, name, None)) is not None}
    return [f"{said[name]} {value}" for name, value in found.items()]


def default_of(field: FieldInfo) -> str:
    """A default as YAML has it; empty where the field is a mapping of its own or depends on others."""
    if field.is_required():
        return "required"
    if field.default is PydanticUndefined or isinstance(field.default, BaseModel):
        return ""
    value = field.default
    if value == () and type_words(field.annotation) == "mapping":
        return "`{}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    if value is None or isinstance(value, bool):
        return "" if value is None else f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`" if value != "" else ""


def catalog(kind: str) -> str:
    """What `lmmcl list KIND` shows."""
    rows = catalogue(kind, Ledger("no-store"))
    return table(("name", "description"), ((f"`{row['name']}`", row["description"]) for row in rows))


def not_offered(_: str) -> str:
    """Recipes that people look for, and why there are none."""
    return "\n".join(f"- `{name}`: {why}." for name, why in NOT_OFFERED.items())


def recipes(_: str) -> str:
    """The recipes that ship: those that train parts of the model, then those that add an adapter."""
    plain = [(f"`{name}`", _listed(recipe.train)) for name, recipe in RECIPES.items() if recipe.adapter is None]
    adapted = [
        (f"`{name}`", _adapter(recipe), _listed(recipe.adapter.targets))
        for name, recipe in RECIPES.items()
        if recipe.adapter
    ]
    return f"{table(('recipe', 'trains'), plain)}\n\n{table(('recipe', 'adapter', 'of the layers under'), adapted)}"


def _adapter(recipe: Recipe) -> str:
    assert recipe.adapter
    return f"`{recipe.adapter.kind}`" + (f" over `{recipe.base.describe()}`" if recipe.base else "")


def roles(_: str) -> str:
    """What roles and selectors are, as the module that resolves them says."""
    return (roles_module.__doc__ or "").partition("\n\n")[2].strip()


def _listed(selectors: Iterable[str]) -> str:
    return ", ".join(f"`{selector}`" for selector in selectors)


def measures(_: str) -> str:
    """Every measure with its definition."""
    return table(
        ("measure", "definition"), ((f"`{name}`", measure.__doc__ or "") for name, measure in MEASURES.items())
    )


@cache
def commands(_: str) -> str:
    """Every command with its arguments and options."""
    return "\n\n".join(_command(typer.main.get_command(app), "lmmcl"))


def _command(command: Any, name: str) -> list[str]:
    inner = getattr(command, "commands", {})
    found = [] if name == "lmmcl" else [f"## `{name}`", str(command.help or "").strip()] if not inner else []
    if not inner:
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        usage = " ".join([name, *(_usage(each) for each in arguments), "[OPTIONS]"])
        rows = [(f"`{_name(each)}`", _default(each), each.help or "") for each in command.params if each.name != "help"]
        found += [f"    {usage}", table(("option", "default", "meaning"), rows)]
    for each in inner:
        found += _command(inner[each], f"{name} {each}")
    return found


def _usage(argument: Any) -> str:
    word = argument.metavar or argument.name.upper()
    return word if argument.required or word.startswith("[") else f"[{word}]"


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    return f"{names} {parameter.metavar}" if parameter.metavar else names


def _default(parameter: Any) -> str:
    value = parameter.default
    if parameter.required:
        return "required"
    if isinstance(parameter.show_default, str):
        return f"`{parameter.show_default}`"
    return "" if value in (None, False, "", ()) or callable(value) else f"`{value}`"


MAKERS: Mapping[str, Callable[[str], str]] = {
    "settings": settings,
    "mitigation": mitigation,
    "combinations": combinations,
    "strategies": strategies,
    "probe": probe,
    "catalog": catalog,
    "not_offered": not_offered,
    "recipes": recipes,
    "roles": roles,
    "measures": measures,
    "commands": commands,
}
