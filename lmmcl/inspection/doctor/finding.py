"""What one look of `lmmcl doctor` found, and all of them as one screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.console import Group
from rich.table import Table

State = Literal["ok", "warning", "problem"]
COLOURS: dict[State, str] = {"ok": "green", "warning": "yellow", "problem": "red"}


@dataclass(frozen=True)
class Finding:
    """A `problem` keeps sweeps from running, a `warning` may; `remedy` says what to do about it."""

    subject: str
    state: State
    what: str
    remedy: str = ""


@dataclass(frozen=True)
class Examination:
    """All findings, in the order in which they were looked for."""

    findings: Sequence[Finding]

    @property
    def problems(self) -> list[Finding]:
        """What keeps sweeps from running."""
        return [finding for finding in self.findings if finding.state == "problem"]

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"ok": not self.problems, "findings": [asdict(finding) for finding in self.findings]}

    def table(self) -> Group:
        """For the terminal: a line each, and what to do below those that need it."""
        table = Table.grid(padding=(0, 2))
        for finding in self.findings:
            colour = COLOURS[finding.state]
            table.add_row(finding.subject, f"[{colour}]{finding.state}[/]", _plain(finding.what))
            if finding.remedy:
                table.add_row("", "", f"→ {_plain(finding.remedy)}")
        warnings = sum(finding.state == "warning" for finding in self.findings)
        return Group(table, "", f"{_count(len(self.problems), 'problem')}, {_count(warnings, 'warning')}")


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
