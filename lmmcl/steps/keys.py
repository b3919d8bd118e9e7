"""A step's name, computed from what it computes: a hash of canonical JSON that refuses what it cannot name."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, Protocol

KEY_VERSION = 1
"""Part of every key. Raise it when the meaning of a step changes for all steps at once: nothing recorded is found then."""

KEY_LENGTH = 16
"""Hex digits of a key: 64 bits, so a million steps collide with a chance of about 3e-8."""

MOST_SHARED = 4096
"""Things whose texts are kept."""


def canonical_json(value: Any) -> str:
    """The one text of `value`: sorted keys, no spaces, shortest floats.

    Raises TypeError for anything but None, bool, int, str, finite float, list, tuple and string-keyed mappings: what has
    no canonical text (a set, an object, NaN) must not slip into a name.
    """
    return _ENCODER.encode(_plain(value))


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
"""What `json.dumps` would make for each value."""


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


def key_with(fields: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    """`key_of` an identity of these fields and of others whose canonical texts are at hand."""
    places = {name: f"{_MARK} {name}" for name in texts}
    text = canonical_json({"key_version": KEY_VERSION, **fields, **places})
    for name, place in places.items():
        before, after = _around(text, place)
        text = f"{before}{texts[name]}{after}"
    return _hash(text)


class Settled(Protocol):
    """What never changes, and says what of it enters a key."""

    def identity(self) -> dict[str, Any]: ...


class IdentityTexts:
    """The canonical texts of the identities of settings that many steps share, each made once."""

    def __init__(self) -> None:
        self._texts: dict[int, tuple[Settled, str]] = {}

    def text_of(self, thing: Settled) -> str:
        """The text of the identity of `thing`."""
        if known := self._texts.get(id(thing)):
            return known[1]
        text = canonical_json(thing.identity())
        if len(self._texts) >= MOST_SHARED:
            self._texts.clear()
        self._texts[id(thing)] = thing, text  # with the thing, so that its id stays its own
        return text


class ChildKeys:
    """The keys of steps that differ in their only parent alone: the text that they share is made once."""

    def __init__(self, kind: str, fields: Mapping[str, Any]) -> None:
        text = canonical_json({"key_version": KEY_VERSION, "kind": kind, **fields, "parents": [_MARK]})
        self._before, self._after = _around(text, _MARK)

    def of(self, parent: str) -> str:
        """The key of the child of the step with the key `parent`."""
        return _hash(f'{self._before}"{parent}"{self._after}')


_MARK = "\ue000"


def _around(text: str, mark: str) -> tuple[str, str]:
    """What is before and behind the one value `mark` of a canonical text."""
    parts = text.split(f'"{mark}"')
    if len(parts) != 2:
        raise ValueError(f"{mark!r} stands for a part of the identity, and a field has it too")
    return parts[0], parts[1]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]
