"""How many tokens a model has positions for: a longer input is refused, for beyond them a model answers, and learns, nonsense."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmmcl.errors import UserError

EXTENDED = ("linear", "dynamic", "yarn", "longrope", "llama3")
"""Kinds of rotary positions whose `factor` says how far beyond the length of their training they reach."""


def position_limits(model: Any) -> dict[str, int]:
    """By input of a loaded model, the most tokens of it; what has no limit is left out."""
    limits = {"input_ids": _limit(model.config.get_text_config(decoder=True))}
    if (qformer := getattr(model.config, "qformer_config", None)) is not None:
        limits["qformer_input_ids"] = _limit(qformer)
    return {name: limit for name, limit in limits.items() if limit}


def check_positions(encoded: Mapping[str, Any], limits: Mapping[str, int], *, answer_tokens: int = 0) -> None:
    """Raises UserError for an encoding that is longer than `limits`, or would be with an answer of `answer_tokens`."""
    for name, limit in limits.items():
        length = len(encoded[name]) if name in encoded else 0
        more = answer_tokens if name == "input_ids" else 0
        if length + more > limit:
            what = "its question, in the Q-Former," if name.startswith("qformer") else "with its images it"
            answer = f", and an answer up to {more}" if more else ""
            raise UserError(
                f"{what} takes {length} tokens{answer}; the model has {limit} positions: shorten it, leave it out, or show "
                "smaller or fewer images (of training rows, `training.max_length` cuts the last turns)"
            )


def _limit(config: Any) -> int:
    own = getattr(config, "max_position_embeddings", None) or 0
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = rope.values() if rope and all(isinstance(value, Mapping) for value in rope.values()) else [rope]
    reach = [
        int((kind.get("original_max_position_embeddings") or own) * (kind.get("factor") or 1))
        for kind in kinds
        if kind.get("rope_type") in EXTENDED
    ]
    return max([own, *reach]) if own else 0
