"""What there is: members by kind, a model's roles and recipes."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table

from lmmcl.errors import UserError, unknown
from lmmcl.ledger import Ledger
from lmmcl.methods import RECIPES, mitigation_names
from lmmcl.models import get_model, model_names
from lmmcl.models.roles import summary
from lmmcl.planning.memory_estimate import BYTES
from lmmcl.registry import members
from lmmcl.steps.count_trained import count_trained
from lmmcl.tasks import benchmark_names, get_benchmark, get_skill, skill_names
from lmmcl.tasks.metrics.metric import get_metric, metric_names
from lmmcl.tasks.probes import probe_names

KINDS = ("models", "recipes", "mitigations", "skills", "benchmarks", "probes", "metrics", "steps")


def catalogue(kind: str, ledger: Ledger) -> list[dict[str, str]]:
    """Rows of name and description (for steps: of what the store holds); raises UserError for another kind."""
    if kind not in KINDS:
        raise UserError(unknown("kind", kind, KINDS))
    if kind == "steps":
        return [{"name": path, "description": ""} for path in ledger.paths()]
    named = {
        "models": {name: getattr(get_model(name), "description", "") for name in model_names()}
        if kind == "models"
        else {},
        "recipes": {name: recipe.description for name, recipe in RECIPES.items()},
        "mitigations": {
            name: _module_line(members("lmmcl.methods", "MITIGATIONS")[name]) for name in mitigation_names()
        },
        "skills": {name: get_skill(name).description for name in skill_names()} if kind == "skills" else {},
        "benchmarks": {name: get_benchmark(name).description for name in benchmark_names()}
        if kind == "benchmarks"
        else {},
        "probes": {name: _first_line(members("lmmcl.tasks", "PROBES")[name]) for name in probe_names()},
        "metrics": {name: _first_line(get_metric(name).score) for name in metric_names()},
    }[kind]
    return [{"name": name, "description": description} for name, description in named.items()]


def _first_line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().split("\n")[0]


def _module_line(thing: Any) -> str:
    """What the file of a class is for: its class tells the settings."""
    return _first_line(sys.modules[thing.__module__])


def catalogue_table(kind: str, rows: list[dict[str, str]]) -> Table:
    """For the terminal."""
    table = Table(kind, "", box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(row["name"], row["description"])
    return table


def model_facts(name: str) -> dict[str, Any]:
    """Roles (block numbers folded) and recipes of a model, each with parameters and bytes in bf16; from no weights.

    A recipe that does not fit the model (it names a role which is not there, or a rank above its layers) is in `refused`, with why.
    """
    model = get_model(name)
    counts = model.role_counts()
    folded: Counter[str] = Counter()
    for role, parameters in counts.items():
        folded[summary([role])[0]] += parameters
    recipes, refused = {}, {}
    for recipe in RECIPES.values():
        try:
            recipes[recipe.name] = _size(count_trained(recipe, model).trained)
        except UserError as error:
            refused[recipe.name] = error.message.partition(" Its roles:")[0].partition("; did you mean")[0].rstrip(".")
    total = _size(sum(counts.values()))
    roles = {role: _size(n) for role, n in folded.items()}
    about = model.about()
    return {"model": name, "about": about, "total": total, "roles": roles, "recipes": recipes, "refused": refused}


def _size(parameters: int) -> dict[str, int]:
    return {"parameters": parameters, "bytes": parameters * BYTES["bf16"]}


def model_table(facts: dict[str, Any]) -> Group:
    """For the terminal."""
    tables = []
    for part in ("roles", "recipes"):
        table = Table(part, "parameters", "share", box=SIMPLE_HEAD)
        for name, size in facts[part].items():
            share = size["parameters"] / facts["total"]["parameters"]
            table.add_row(name, f"{size['parameters']:,}", f"{share:.1%}")
        tables.append(table)
    if facts["refused"]:
        table = Table("recipes that do not apply", "why", box=SIMPLE_HEAD)
        for name, why in facts["refused"].items():
            table.add_row(name, why)
        tables.append(table)
    about = [f"{key}: {text}" for key, text in facts["about"].items()]
    return Group(f"{facts['model']}: {facts['total']['parameters']:,} parameters", *about, *tables)
