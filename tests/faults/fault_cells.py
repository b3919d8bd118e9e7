"""What a cell of the table of faults is: a kind of fault, the phase and place in which it strikes, the mode of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fault_lives import Strike

PHASES = (
    "start-up",
    "first record",
    "mid-stage",
    "between record and claim",
    "evaluation",
    "upload",
    "report",
    "after the end",
)
MODES = ("inline", "Ray", "worker group", "job", "mixed")
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
DAY = 24 * 3600.0

Deed = Callable[[Any], object]
"""Done by the test to a `Scene` (see `fault_scenes`)."""


@dataclass(frozen=True)
class Cell:
    """A fault that a run must survive. `place` says where exactly it strikes; no two cells may have all four words alike.

    `store` is a folder, a small `disk` or a bucket (`s3`); `mlflow` is off, in the store (`store`) or a `server`. The first life is struck by `strikes` and may end with `codes`; `then` is done
    to what it left, and a further life (none where the first one ends well) must end well. `beside` is what strikes ask of the test.
    """

    kind: str
    phase: str
    mode: str
    place: str
    strikes: tuple[Strike, ...] = ()
    codes: tuple[int, ...] = (0,)
    store: str = "folder"
    mlflow: str = "off"
    first: Deed | None = None
    beside: Mapping[str, Deed] = field(default_factory=dict)
    then: Deed | None = None
    intervals: int = 1
    says: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.phase in PHASES and self.mode in MODES, self

    @property
    def name(self) -> str:
        """What a report of the tests calls it."""
        return f"{self.mode}: {self.kind}, {self.phase}, {self.place}"

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What no two cells share."""
        return self.kind, self.phase, self.mode, self.place

    @property
    def kills(self) -> bool:
        """Whether a process is ended at once."""
        return any(strike.deed == "send" and strike.more.get("name") == "SIGKILL" for strike in self.strikes)


def signal_at(name: str, point: str, number: int = 1, to: str = "") -> Strike:
    """A signal to the process that reaches a point, or to others."""
    return Strike(point, number, "send", {"name": name, "to": to})
