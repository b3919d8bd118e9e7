"""Roles of an architecture without a family file, guessed from the usual names of modules.

Recognised is what has one decoder with `layers.N.self_attn.{q,k,v,o}_proj` and `layers.N.mlp.{gate,up,down}_proj`, a vision
tower and a projector under names in use. What is not recognised without doubt is refused: a guess that trains the wrong
part would be worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from lmmcl.errors import UserError
from lmmcl.models.architecture import Architecture

VERSION = 1
"""Raised whenever the guess changes: inventories are remembered under it."""

_VISION = re.compile(r"vision\w*|visual|vit|image_encoder|image_tower")
_INNER_PROJECTOR = re.compile(r"\w*merger\w*|\w*projector")
"""What a projector inside a vision tower is called: `projection` there is the tower's own, of patches."""
_PROJECTOR = re.compile(r"\w*(?:projector|projection|connector|merger\w*|aligner|resampler|adapter|embed_vision)")
_BLOCK = re.compile(r"(.*\.)?layers\.(\d+)\.(.+)")
_PARTS = {f"self_attn.{part}_proj": f"attention.{part}" for part in "qkvo"} | {
    f"mlp.{part}_proj": f"mlp.{part}" for part in ("gate", "up", "down")
}


def guess_architecture(model_type: str) -> Architecture:
    """A family of which nothing is known but its name."""
    return Architecture(
        name=model_type,
        rules=(),
        processor="AutoProcessor",
        image_processor="AutoImageProcessor",
        chat="not known",
        images="not known",
        dialogues=2,
    )


def generic_roles(names: Iterable[str], *, model: str) -> dict[str, str]:
    """The role of each parameter name; raises UserError that says what was not recognised."""
    names = list(names)
    decoder = _decoder(names, model)
    roles = {name: _role(name, decoder) for name in names}
    unknown = [name for name, role in roles.items() if role is None]
    if unknown:
        raise _refusal(model, f"{len(unknown)} parameters belong to no part that is known, such as {unknown[0]}")
    found = {role for role in roles.values() if role}
    for part in ("vision", "projector"):
        if not any(role.split(".")[0] == part for role in found):
            raise _refusal(model, f"no {part} was found")
    return {name: role for name, role in roles.items() if role}


def _decoder(names: Sequence[str], model: str) -> str:
    """The module that holds the language model's `layers`, with its dot."""
    roots: dict[str, set[str]] = {}
    for name in names:
        match = _BLOCK.fullmatch(name)
        if match and not any(_VISION.fullmatch(part) for part in (match[1] or "").split(".")):
            roots.setdefault(match[1] or "", set()).add(match[3].rsplit(".", 1)[0])
    complete = [root for root, parts in roots.items() if parts >= set(_PARTS)]
    if len(complete) != 1:
        raise _refusal(
            model, f"{len(complete)} decoders with layers.N.self_attn.q_proj and layers.N.mlp.gate_proj were found"
        )
    return complete[0]


def _role(name: str, decoder: str) -> str | None:
    parts = name.split(".")
    if name.startswith(f"{decoder}layers."):
        _, number, rest = _BLOCK.fullmatch(name).groups()  # type: ignore[union-attr]  # it begins like a block
        module = rest.rsplit(".", 1)[0]
        kind = _PARTS.get(module) or ("norm" if "norm" in module else "other")
        return f"llm.blocks.{number}.{kind}"
    if parts[-2:] == ["lm_head", "weight"]:
        return "llm.head"
    in_tower = any(_VISION.fullmatch(part) for part in parts[:-1])
    if any((_INNER_PROJECTOR if in_tower else _PROJECTOR).fullmatch(part) for part in parts[:-1]):
        return "projector"
    if in_tower:
        return "vision.other"
    if decoder and name.startswith(decoder):
        return {"embed_tokens": "llm.embeddings", "norm": "llm.norm"}.get(name.removeprefix(decoder).split(".")[0])
    return "vision.other" if parts[-1] in ("image_newline", "view_separator", "view_seperator") else None


def _refusal(model: str, what: str) -> UserError:
    return UserError(
        f"{what}; a model without a family file needs a vision tower, a projector and a decoder under usual names "
        "(a new family is one file in lmmcl/models/families: see llava.py)",
        file=model,
    )
