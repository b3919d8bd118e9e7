"""The page of faults, made from what a run of the suite kept: `python tests/faults/fault_table.py RESULTS.jsonl`."""

from __future__ import annotations

import datetime
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fault_cells import MODES, PHASES, Cell

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- cells: made by tests/faults/fault_table.py -->\n", "<!-- end of cells -->"
NOT_PLAYED = "### Not played yet"
HEAD = ("fault", "phase", "where it strikes", "steps recorded by then", "lives", "updates repeated")

Row = Mapping[str, Any]


def read(file: Path) -> list[Row]:
    """What came of each cell when it was last played."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return list({_identity(row): row for row in rows}.values())


def made(rows: Sequence[Row], cells: Sequence[Cell], day: datetime.date) -> str:
    """The generated part of the page; what came of cells that the suite has no longer is left out."""
    identities = [cell.identity for cell in cells]
    rows = [row for row in rows if _identity(row) in identities]
    missing = [cell for cell in cells if cell.identity not in {_identity(row) for row in rows}]
    kills = sum(row["kills"] for row in rows)
    begun, again = sum(row["steps"] for row in rows), sum(row["updates"] for row in rows)
    text = (
        f"Played on {day}: {len(rows)} cells, {kills} of them with SIGKILL. Each ended with the same score of every question, no "
        f"recorded step begun again and a store that passes `lmmcl ledger check`. {begun} unfinished steps were begun again, and "
        f"{again} updates were made again, at most {max(row['updates'] for row in rows)} in one store. A cell in one process has a store of its "
        "own; others share one, and the sum of its updates stands beside the first of them that struck.\n"
    )
    left = ["", NOT_PLAYED, "", *(f"- {cell.name}" for cell in missing)] if missing else []
    tables = [*_matrix(rows), *(line for mode in MODES for line in _cells(rows, mode))]
    return "\n".join([text, *tables, *left]) + "\n"


def _identity(row: Row) -> tuple[str, str, str, str]:
    return row["kind"], row["phase"], row["mode"], row["place"]


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


def every_cell() -> list[Cell]:
    """All cells of the suite."""
    import cluster_cells
    import inline_cells
    import store_cells

    chained = [cell for chain in cluster_cells.chains() for cell in chain.cells]
    return [*inline_cells.cells(), *store_cells.cells(), *chained]


def not_played() -> list[str]:
    """The names of the cells that the page says were not played yet."""
    part = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].partition(NOT_PLAYED)[2]
    return [line.removeprefix("- ") for line in part.splitlines() if line.startswith("- ")]


def listed() -> list[tuple[str, str, str, str, float]]:
    """The cells of the page: kind, phase, mode, place, and the share of steps that were recorded."""
    cells, mode = [], ""
    for line in PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].splitlines():
        if line == NOT_PLAYED:
            break
        if line.startswith("### "):
            mode = next(name for name in MODES if name.lower() == line.removeprefix("### ").lower())
        elif mode and line.startswith("| ") and not line.startswith(f"| {HEAD[0]} |"):
            kind, phase, place, share, *_ = (part.strip() for part in line.strip("|").split(" | "))
            cells.append((kind, phase, mode, place, float(share.removesuffix(" %")) / 100))
    return cells


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1]))
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    table = made(read(Path(sys.argv[1])), every_cell(), datetime.datetime.now(datetime.UTC).date())
    PAGE.write_text(before + BEGIN + table + END + rest.split(END)[1], encoding="utf-8")
