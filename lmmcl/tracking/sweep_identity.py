"""Which sweep somebody's page or experiment belongs to: a name alone may be that of two. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path

from lmmcl.config.sweep import Sweep
from lmmcl.config.trial_names import SEPARATOR, shared_parts

ORIGIN_TAG = "lmmcl.origin"
"""The tag of an experiment that keeps the origin of its sweep."""
_JOB_PACKAGE = re.compile(r"^.*/_ray_pkg_[0-9a-f]+/")


@dataclass(frozen=True)
class SweepIdentity:
    """`name` is what page and experiment are called, `origin` the sweep's file, `trials` the names of its trials by key.

    A sweep that was edited is still the same one, and so is one whose file was moved or that is run from another machine: it
    comes from the same file, or has a trial in common. Where the file is not known (a sweep built in Python, a page of an
    earlier version) the name decides alone.
    """

    name: str
    origin: str = ""
    trials: Mapping[str, str] = field(default_factory=dict)

    def is_from(self, origin: str | None) -> bool:
        """Whether `origin` says that it is this sweep, or does not tell."""
        return not origin or not self.origin or origin == self.origin

    def shares_a_trial(self, keys: Collection[str]) -> bool:
        """Whether a trial of this sweep is among `keys`."""
        return not self.trials.keys().isdisjoint(keys)

    def run_name(self, name: str) -> str:
        """The trial's name without the parts that all trials share; whole where nothing else is left."""
        return SEPARATOR.join(part for part in name.split(SEPARATOR) if part not in self._shared) or name

    @cached_property
    def _shared(self) -> frozenset[str]:
        return frozenset(shared_parts(list(self.trials.values())))


def origin_of(sweep: Sweep) -> str:
    """The absolute path of the sweep's file; of one that was sent with a job, whose folder is another each time, the path in it."""
    return _JOB_PACKAGE.sub("", str(Path(sweep.file).resolve())) if sweep.file else ""


def numbered(name: str) -> Iterator[str]:
    """`name`, `name-2`, `name-3`, …"""
    yield name
    yield from (f"{name}-{number}" for number in count(2))
