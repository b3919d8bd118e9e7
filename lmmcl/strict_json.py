"""JSON that every reader understands: without NaN, which JSON has not."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def dumps(value: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """JSON text of `value`; NaN and infinities, which JSON has not, become null."""
    return json.dumps(finite(value), indent=indent, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False)


def finite(value: Any) -> Any:
    """`value` with None in the place of NaN and infinities, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
