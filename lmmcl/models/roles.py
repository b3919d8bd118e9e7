"""Roles: what each parameter is for, so that a recipe never depends on a bare name suffix.

A role is a dotted path, from the coarse to the fine:

    vision.embeddings · vision.blocks.N.{attention,mlp,norm} · vision.norm · vision.other
    projector
    llm.embeddings · llm.blocks.N.attention.{q,k,v,o} · llm.blocks.N.mlp.{gate,up,down} · llm.blocks.N.norm · llm.norm · llm.head

Only some models have `qformer`, `audio.…` (as `vision.…`), `llm.per_layer_embeddings`, and in their blocks `cross_attention`,
`router`, `indexer`, `attention.gate`. Where blocks have several kinds of token mixer or of MLP, the kind is the last part:
`attention.q.softmax` and `attention.q.linear`; `mlp.gate.dense`, `mlp.gate.routed` and `mlp.gate.shared`. A tensor that holds
several parts at once has them joined by `+`: `mlp.gate+up`, `attention.q+k+v`; a selector of one of them means that slice.

A selector is a role or the beginning of one; `*` stands for any one part, `12-27` for a range of block numbers and `last-4` for
the last four blocks that the model has: `llm.blocks.*.attention`, `llm.blocks.12-27.mlp.gate`, `llm.blocks.last-4`, `vision`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from lmmcl.errors import UserError, shown


@dataclass(frozen=True)
class RoleRule:
    """Parameters whose whole name matches `pattern` have `role` (which may use the pattern's groups as \\1, \\2)."""

    pattern: str
    role: str


def assign_roles(rules: Iterable[RoleRule], names: Iterable[str]) -> dict[str, str]:
    """The role of each parameter name: a partition, each name in exactly one role.

    Raises ValueError for a name that no rule, or more than one rule, matches.
    """
    compiled = [(re.compile(rule.pattern), rule.role) for rule in rules]
    roles: dict[str, str] = {}
    for name in names:
        hits = [match.expand(role) for pattern, role in compiled if (match := pattern.fullmatch(name))]
        if len(hits) != 1:
            raise ValueError(
                f"parameter {name!r} has {len(hits)} roles ({', '.join(hits) or 'none'}); it must have one"
            )
        roles[name] = hits[0]
    return roles


def covers(rules: Iterable[RoleRule], names: Iterable[str]) -> bool:
    """Whether each name has exactly one role by `rules`: whether `assign_roles` would succeed."""
    compiled = [re.compile(rule.pattern) for rule in rules]
    return all(sum(pattern.fullmatch(name) is not None for pattern in compiled) == 1 for name in names)


def split_role(role: str) -> list[str]:
    """A role that joins several parts as one role each: `mlp.gate+up` → `mlp.gate`, `mlp.up`."""
    before, _, rest = role.partition("+")
    if not rest:
        return [role]
    front, _, first = before.rpartition(".")
    joined, dot, kind = rest.partition(".")
    return [f"{front}.{part}{dot}{kind}" for part in (first, *joined.split("+"))]


def selects(selector: str, role: str) -> bool:
    """Whether `selector` covers `role`, or at least one of the parts that it joins."""
    wanted, parts = selector.split("."), role.split(".")
    return len(wanted) <= len(parts) and all(_part_matches(w, g) for w, g in zip(wanted, parts, strict=False))


def _part_matches(wanted: str, part: str) -> bool:
    if wanted in ("*", part) or wanted in part.split("+"):
        return True
    span = re.fullmatch(r"(\d+)-(\d+)", wanted)
    return span is not None and part.isdigit() and int(span[1]) <= int(part) <= int(span[2])


def resolve(selector: str, roles: Iterable[str], *, model: str) -> str:
    """`selector` with `last-N` as the numbers of the last N blocks among `roles`; raises UserError when there are fewer.

    Done when a selector is used: as it is written it means the same for models of any depth.
    """
    parts = selector.split(".")
    for at, part in enumerate(parts):
        last = re.fullmatch(r"last-(\d+)", part)
        if last is None:
            continue
        before = ".".join(parts[:at])
        selected = (role.split(".") for role in roles if selects(before, role))
        numbers = {int(role[at]) for role in selected if len(role) > at and role[at].isdigit()}
        if not 1 <= int(last[1]) <= len(numbers):
            raise UserError(f"selector {shown(selector)}: {model} has {len(numbers)} blocks in {before!r}")
        end = max(numbers)
        parts[at] = f"{end - int(last[1]) + 1}-{end}"
    return ".".join(parts)


def select(roles: Mapping[str, str], selectors: Iterable[str], *, model: str) -> set[str]:
    """Names of the parameters whose role one of `selectors` covers, wholly or (for joined parts) in part.

    `roles` maps parameter names to roles. Raises UserError when a selector covers nothing: a recipe that silently
    trains less than it says is the commonest mistake of the field.
    """
    chosen: set[str] = set()
    for selector in selectors:
        resolved = resolve(selector, roles.values(), model=model)
        hits = {name for name, role in roles.items() if selects(resolved, role)}
        if not hits:
            why = _why_not(resolved, roles.values())
            near = _near(selector, roles.values()) or "."
            raise UserError(
                f"selector {shown(selector)} matches no parameter of {model}{why}{near} Its roles: "
                f"{', '.join(summary(roles.values()))}"
            )
        chosen |= hits
    return chosen


def check_whole(selectors: Iterable[str], roles: Collection[str], *, model: str) -> None:
    """Raise UserError where `selectors` cover only some of the parts that one of `roles` joins.

    For tensors whose parts cannot be told apart; of others each part has a role of its own where parameters are counted.
    """
    resolved = [resolve(selector, roles, model=model) for selector in selectors if "last-" not in selector]
    for role in roles:
        if "+" not in role:
            continue
        parts = split_role(role)
        chosen = [part for part in parts if any(selects(selector, part) for selector in resolved)]
        if chosen and len(chosen) < len(parts):
            raise UserError(
                f"{' and '.join(summary(parts))} are one tensor in {model} that cannot be divided; "
                f"name all of them or none (selected: {', '.join(summary(chosen))})"
            )


def _why_not(selector: str, roles: Collection[str]) -> str:
    """What about the model explains that `selector` covers nothing; empty where nothing is known."""
    if selector == "llm.head" and "llm.embeddings" in roles:
        return " (its head is tied: one tensor with llm.embeddings, which trains both)"
    parts = selector.split(".")
    if parts[3:4] == ["mlp"] and parts[4:5] == ["gate"] and any(".mlp." in role for role in roles):
        return " (its MLPs have no gate; use `mlp`, or `mlp_down` for their second layer)"
    if parts[-1] in ("softmax", "linear") and parts[3:4] == ["attention"]:
        return " (its blocks have one kind of token mixer; use `sa_proj`)"
    if parts[-1] in ("dense", "routed", "shared") and parts[3:4] == ["mlp"]:
        kinds = sorted({role.rpartition(".")[2] for role in roles} & {"dense", "routed", "shared"})
        return f" (its MLPs are {' and '.join(kinds) if kinds else 'all dense; use `mlp`'})"
    return ""


def _near(selector: str, roles: Iterable[str]) -> str:
    """`; did you mean 'llm.blocks.*.mlp'?`: the nearest selectors, block numbers folded; empty where none is near."""
    parts = [role.split(".") for role in summary(roles)]
    allowed = {".".join(names[:end]) for names in parts for end in range(1, len(names) + 1)}
    folded = re.sub(r"\.(?:\d+(?:-\d+)?|last-\d+)(?=\.|$)", ".*", selector)
    near = difflib.get_close_matches(folded, sorted(allowed), n=2, cutoff=0.7)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def summary(roles: Iterable[str]) -> list[str]:
    """The distinct roles with block numbers folded into `*`, sorted: what a person needs to see."""
    return sorted({re.sub(r"\.\d+(?=\.|$)", ".*", role) for role in roles})
