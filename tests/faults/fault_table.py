"""The page of faults, made from what a run of the suite kept: `python tests/faults/fault_table.py RESULTS.jsonl`."""

from __future__ import annotations

import datetime
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fault_cells import MODES, PHASES

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- cells: made by tests/faults/fault_table.py -->\n", "<!-- end of cells -->"
HEAD = ("fault", "phase", "where it strikes", "steps recorded by then", "lives", "updates repeated")

Row = Mapping[str, Any]


def read(file: Path) -> list[Row]:
    """What came of each cell when it was last played."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return list({(row["kind"], row["phase"], row["mode"], row["place"]): row for row in rows}.values())


def made(rows: Sequence[Row], day: datetime.date) -> str:
    """The generated part of the page."""
    kills = sum(row["kills"] for row in rows)
    begun, again = sum(row["steps"] for row in rows), sum(row["updates"] for row in rows)
    text = (
        f"Played on {day}: {len(rows)} cells, {kills} of them with SIGKILL. Each ended with the same score of every question, no "
        f"recorded step begun again and a store that passes `lmmcl ledger check`. {begun} unfinished steps were begun again, and "
        f"{again} updates were made again, at most {max(row['updates'] for row in rows)} in one cell.\n"
    )
    return "\n".join([text, *_matrix(rows), *(line for mode in MODES for line in _cells(rows, mode))]) + "\n"


def _matrix(rows: Sequence[Row]) -> Iterable[str]:
    """Cells by kind and phase, all modes together."""
    counts = Counter((row["kind"], row["phase"]) for row in rows)
    yield f"| fault | {' | '.join(PHASES)} | all |"
    yield f"|---|{'---:|' * (len(PHASES) + 1)}"
    for kind in dict.fromkeys(row["kind"] for row in rows):
        numbers = [counts[kind, phase] for phase in PHASES]
        yield f"| {kind} | {' | '.join(str(number or '') for number in numbers)} | {sum(numbers)} |"
    sums = [sum(row["phase"] == phase for row in rows) for phase in PHASES]
    yield f"| **all** | {' | '.join(map(str, sums))} | {len(rows)} |"


def _cells(rows: Sequence[Row], mode: str) -> Iterable[str]:
    chosen = [row for row in rows if row["mode"] == mode]
    if not chosen:
        return
    yield from ("", f"### {mode[0].upper()}{mode[1:]}", "", f"| {' | '.join(HEAD)} |", "|---|---|---|---:|---:|---:|")
    for row in sorted(chosen, key=lambda row: PHASES.index(row["phase"])):
        share = f"{100 * row['share']:.0f} %"
        yield f"| {row['kind']} | {row['phase']} | {row['place']} | {share} | {row['lives']} | {row['updates'] or ''} |"


def listed() -> list[tuple[str, str, str, str, float]]:
    """The cells of the page: kind, phase, mode, place, and the share of steps that were recorded."""
    cells, mode = [], ""
    for line in PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].splitlines():
        if line.startswith("### "):
            mode = next(name for name in MODES if name.lower() == line.removeprefix("### ").lower())
        elif mode and line.startswith("| ") and not line.startswith(f"| {HEAD[0]} |"):
            kind, phase, place, share, *_ = (part.strip() for part in line.strip("|").split(" | "))
            cells.append((kind, phase, mode, place, float(share.removesuffix(" %")) / 100))
    return cells


if __name__ == "__main__":
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    table = made(read(Path(sys.argv[1])), datetime.datetime.now(datetime.UTC).date())
    PAGE.write_text(before + BEGIN + table + END + rest.split(END)[1], encoding="utf-8")
