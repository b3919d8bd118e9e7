"""The trials that a sweep lists, where their drivers find them: in parts, so that a driver reads the part with its trial alone.

Thousands of trials, read by each driver as it starts, would cost more than the work of a small trial.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import ray
from ray import cloudpickle

from lmmcl.steps.trial import Trial

PART = 256
"""Trials in a part, about."""


class ListedTrials:
    """Trials by their keys in Ray's object store. Small to send; made by the process of the command, which owns the parts."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        parts: list[dict[str, bytes]] = [{} for _ in range(1 + len(trials) // PART)]
        for trial in trials:
            parts[_part(trial.key, len(parts))][trial.key] = cloudpickle.dumps(trial)
        self._parts = [ray.put(part) for part in parts]

    def get(self, key: str) -> Trial:
        """A trial; a copy, in whatever process asks."""
        part: dict[str, bytes] = ray.get(self._parts[_part(key, len(self._parts))])
        trial: Trial = cloudpickle.loads(part[key])
        return trial


def _part(key: str, parts: int) -> int:
    return zlib.crc32(key.encode()) % parts
