"""A step's name, computed from what it computes: a hash of canonical JSON that refuses what it cannot name."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

KEY_VERSION = 1
"""Part of every key. Raise it when the meaning of a step changes for all steps at once: nothing recorded is found then."""

KEY_LENGTH = 16
"""Hex digits of a key: 64 bits, so a million steps collide with a chance of about 3e-8."""


def canonical_json(value: Any) -> str:
    """The one text of `value`: sorted keys, no spaces, shortest floats.

    Raises TypeError for anything but None, bool, int, str, finite float, list, tuple and string-keyed mappings: what has
    no canonical text (a set, an object, NaN) must not slip into a name.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if type(value) in _PLAIN or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item) for key, item in value.items()}
    raise TypeError(f"{value!r} of type {type(value).__name__} has no canonical JSON")


_PLAIN = frozenset({str, int, bool, type(None)})


def key_of(identity: Mapping[str, Any]) -> str:
    """The key of what has this identity."""
    return _hash(canonical_json({"key_version": KEY_VERSION, **identity}))


class ChildKeys:
    """The keys of steps that differ in their only parent alone: the text that they share is made once."""

    def __init__(self, kind: str, fields: Mapping[str, Any]) -> None:
        text = canonical_json({"key_version": KEY_VERSION, "kind": kind, **fields, "parents": [_MARK]})
        place = canonical_json(_MARK)
        if text.count(place) != 1:
            raise ValueError(f"{_MARK!r} stands for a parent's key, and a field has it too")
        self._before, _, self._after = text.partition(place)

    def of(self, parent: str) -> str:
        """The key of the child of the step with the key `parent`."""
        return _hash(f'{self._before}"{parent}"{self._after}')


_MARK = "\ue000parent"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]
