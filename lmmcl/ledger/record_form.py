"""The form of a record: fields that readers rely on have the kind of value that a run writes; the others may hold anything."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

DIGEST = 64
CHECKPOINT = re.compile(r"checkpoints/[^/]+/([0-9]{1,9})-.+-[^-/]+")
"""The folder of a checkpoint, with how many stages led to it."""
STAGES_ON = {"pretrained": -1, "finetune": -1, "merge": 1}
"""How many stages more than a step of this kind its parents may have behind them; else none. A router, which a merge has as a
parent, is a fine-tune of another merge of the same stage."""


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and _is_finite([value]))


def _is_count(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63)


def _is_finite(values: list[Any]) -> bool:
    try:
        return math.isfinite(sum(values))  # as quick as a loop can be: a store has millions of scores
    except (TypeError, OverflowError):
        return False


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and _is_finite(value)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_named_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _is_mapping(value: Any) -> bool:
    return value is None or isinstance(value, dict)


def _are_files(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_checksum(checksum) for checksum in value.values())


def _is_checksum(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    size, digest = value.get("bytes"), value.get("sha256")
    return size is not None and _is_count(size) and isinstance(digest, str) and len(digest) == DIGEST


_COUNTS = "depth updates examples trained_parameters trained_tensors trained_bytes total_parameters checkpoint_bytes"
_NUMBERS = "score seconds train_seconds updates_per_second loss dropped"
FORM: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(["key", "kind", "label", "model", "at", "precision"], (_is_text, "a text")),
    **dict.fromkeys([*_COUNTS.split(), "peak_memory_bytes"], (_is_count, "a whole number")),
    **dict.fromkeys(_NUMBERS.split(), (_is_number, "a number")),
    **dict.fromkeys(("parents", "dropped_files", "alike"), (_are_texts, "a list of texts")),
    **dict.fromkeys(("proof", "strategy", "provenance"), (_is_mapping, "a mapping")),
    "sample_scores": (_are_numbers, "a list of numbers"),
    "values": (_are_named_numbers, "a mapping of names to numbers"),
    "files": (_are_files, "a mapping of file names to bytes and sha256"),
}


def find_wrong_field(fields: Mapping[str, Any]) -> str | None:
    """What the first field that readers could not use must be, or None."""
    for name, value in fields.items():
        if (form := FORM.get(name)) is not None and not form[0](value):
            return f"{name} must be {form[1]}"
    return None if _leads_to_a_base(fields) else "parents must be folders of checkpoints, of earlier stages"


def _leads_to_a_base(fields: Mapping[str, Any]) -> bool:
    """Whether all parents are checkpoints and none comes later: whoever follows them gets to an end."""
    folders = [CHECKPOINT.fullmatch(parent) for parent in fields["parents"]]
    depth = fields.get("depth")
    most = math.inf if depth is None else depth + STAGES_ON.get(fields["kind"], 0)
    return all(folder is not None and int(folder[1]) <= most for folder in folders)
