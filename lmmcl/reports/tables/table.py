"""A sweep as one table: a row for each trial, in the terminal (rich) and in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.console import JustifyMethod
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lmmcl.measures import BELOW_0_FORGOT
from lmmcl.reports import formatting
from lmmcl.reports.correlation import correlation_markdown
from lmmcl.reports.inside import inside_markdown
from lmmcl.reports.pareto import has_learned, on_front
from lmmcl.reports.recommend import BUDGET, recommendation_markdown
from lmmcl.reports.results import MEASURES, STATES, Interval, SweepResults, TrialResult
from lmmcl.reports.seeds import averaged, has_seeds, spread
from lmmcl.reports.tables.bound_table import bounds_markdown
from lmmcl.reports.tables.generation_budget import generation_markdown
from lmmcl.reports.tables.moments import moments_markdown
from lmmcl.reports.tables.order_spread import orders_markdown
from lmmcl.reports.tables.pairs import pairs_markdown
from lmmcl.reports.tables.text_table import TextTable
from lmmcl.reports.tables.wording_spread import wordings_markdown

STAR = "★"
HALF = (
    "± is half the width of the 95 % interval (bootstrap with Agresti and Min's pseudo-questions; both ends, where it lies "
    "unevenly: --format md)"
)
COSTS = ("size on disk", "trained", "seed spread", "time")
"""Columns that a narrow terminal goes without, in this order."""
NAME_WIDTH, LEAST_NAME = 14, 6
"""Characters to which names are folded before `±` goes below its value, and that they are never folded below."""
BETWEEN = 2
"""Characters between two columns; half of it stands at each end of the table."""
Show = Callable[[float | None, Interval | None], str]


@dataclass(frozen=True)
class Column:
    """A heading and how a trial fills the cell below it. Measures are never folded into the caption."""

    heading: str
    cell: Callable[[TrialResult], str]
    numeric: bool = False
    folds: bool = False
    measure: bool = False


@dataclass(frozen=True)
class Row:
    """The cells of one trial, with what decides how they are drawn."""

    cells: list[str]
    state: str
    on_front: bool


@dataclass(frozen=True)
class Sheet:
    """A table before it is drawn. What is the same in all rows stands in the caption, once."""

    title: str
    caption: list[str]
    columns: list[Column]
    rows: list[Row]
    halves_below: bool = False
    """Whether `±` stands below its value: a narrow terminal has no room for it beside."""


def terminal_table(results: SweepResults, width: int | None = None) -> Table:
    """The sweep for a terminal: rows of the Pareto front bold and starred, unfinished ones dim, failed ones red.

    Seeds of one grid point are one row (see `lmmcl.reports.seeds`). With `width` (in characters) costs are left out until
    the table fits, and the caption names them; then names are folded, and `±` goes below its value. Measures always stay.
    """
    sheet = _fit(make_sheet(results, formatting.points_half, HALF), width)
    caption = escape("\n".join(sheet.caption))
    table = TextTable(title=escape(sheet.title), caption=caption, title_justify="left", caption_justify="left")
    table.box, table.padding, table.pad_edge = box.SIMPLE_HEAD, (0, 1, 0, 0), False
    for place, (column, room) in enumerate(zip(sheet.columns, _widths(sheet, width), strict=True)):
        justify: JustifyMethod = "right" if column.numeric else "left"
        heading = Text(column.heading.replace(" ", "\n"))
        table.add_column(
            heading,
            justify=justify,
            no_wrap=column.numeric,
            overflow="fold",
            vertical="top",
            width=room if place else None,
        )
    for row in sheet.rows:
        style = {"failed": "red", "partial": "dim", "stopped": "dim"}.get(row.state, "bold" if row.on_front else "")
        table.add_row(*map(Text, _drawn(sheet, row)), style=style)
    return table


def markdown_table(results: SweepResults, budget: float = BUDGET) -> str:
    """The sweep as Markdown, with both ends of every interval, what to take, and what its probes go with."""
    sheet = make_sheet(
        results,
        formatting.points_range,
        "brackets hold the 95 % interval (bootstrap with Agresti and Min's pseudo-questions)",
    )
    lines = [
        f"## {formatting.escape_markdown(sheet.title)}",
        "",
        _markdown_row(column.heading for column in sheet.columns),
    ]
    lines.append("|" + "|".join("---:" if column.numeric else "---" for column in sheet.columns) + "|")
    lines += [_markdown_row(row.cells) for row in sheet.rows]
    table = "\n".join([*lines, "", *(f"{formatting.escape_markdown(line)}  " for line in sheet.caption), ""])
    points = averaged(results) if has_seeds(results) else results
    parts = [table, recommendation_markdown(points, budget), correlation_markdown(results), inside_markdown(results)]
    parts += [moments_markdown(results, budget), wordings_markdown(results), pairs_markdown(results)]
    parts += [orders_markdown(results), bounds_markdown(results), generation_markdown(results)]
    return "\n".join(part for part in parts if part)


def make_sheet(results: SweepResults, show: Show, note: str) -> Sheet:
    """The rows and columns of the table; `show` writes a value with its interval, `note` says how to read that."""
    title = _title(results)
    if has_seeds(results):
        results, note = averaged(results), f"{note}, over questions and seeds"
    front = on_front(results)
    trials = ranked(results.trials)
    columns, folded = _fold(_columns(results, front, show), trials)
    rows = [Row([column.cell(trial) for column in columns], trial.state, trial.key in front) for trial in trials]
    caption = [", ".join(f"{column.heading} {column.cell(trials[0])}" for column in folded)] if folded else []
    caption.append(
        f"Percentage points against the model before the first stage; forgetting {BELOW_0_FORGOT}"
        + (f"; {note}." if _any_interval(trials) else ".")
    )
    if front:
        caption.append(f"{STAR} no trial learns more and forgets less of the held-out benchmarks.")
    if any(trial.state == "done" and not has_learned(trial) for trial in trials):
        caption.append(f"No {STAR} for trials that have learned nothing (the interval of their learning reaches 0).")
    caption += [f"{trial.name}: {formatting.first_line(trial.error)}" for trial in trials if trial.error]
    if any(trial.error for trial in trials):
        caption.append("`lmmcl show NAME` (or its key) shows the log and traceback of a failed trial.")
    caption += [f"{trial.name}: {trial.stopped}" for trial in trials if trial.stopped]
    caption += [f"search: {search}" for search in results.searches]
    return Sheet(title, caption, columns, rows)


def ranked(trials: Sequence[TrialResult]) -> list[TrialResult]:
    """Finished trials first and failed ones last; within each, those that learn most first."""

    def rank(trial: TrialResult) -> tuple[int, float, float, str]:
        learning, held_out = trial.measure("learning"), trial.measure("held_out_forgetting")
        lost = float("inf")
        return (
            STATES.index(trial.state),
            lost if learning is None else -learning,
            lost if held_out is None else -held_out,
            trial.name,
        )

    return sorted(trials, key=rank)


def state_of(trial: TrialResult) -> str:
    """`done`, or how far the trial came: `failed 2/5` failed after the second of five stages."""
    if trial.state == "done":
        return "done"
    reached = trial.last.number if trial.last else 0
    return f"{trial.state} {reached}/{len(trial.skills)}"


def _columns(results: SweepResults, front: set[str], show: Show) -> list[Column]:
    columns = [Column("", lambda trial: STAR if trial.key in front else "")]
    for axis in results.axes():
        if results.values(axis) != [None]:
            columns.append(_axis_column(axis))
    columns += [_measure_column(name, show) for name in MEASURES]
    if any(trial.seeds for trial in results.trials):
        columns.append(Column("seed spread", lambda trial: formatting.spread(spread(trial, "learning")), numeric=True))
    columns += [
        Column("trained", lambda trial: formatting.count(trial.cost("trained_parameters")), numeric=True, folds=True),
        Column("size on disk", lambda trial: formatting.size(trial.cost("checkpoint_bytes")), numeric=True, folds=True),
        Column("time", lambda trial: formatting.duration(trial.cost("seconds")), numeric=True),
    ]
    if any(trial.state != "done" for trial in results.trials):
        columns.append(Column("state", state_of))
    return columns


def _axis_column(axis: str) -> Column:
    numeric = axis in ("learning_rate", "seed", "seeds")
    return Column(
        formatting.label(axis), lambda trial: formatting.axis_value(axis, trial.axes.get(axis)), numeric, folds=True
    )


def _measure_column(name: str, show: Show) -> Column:
    cell = lambda trial: show(trial.measure(name), trial.interval(name))  # noqa: E731
    return Column(formatting.label(name), cell, numeric=True, measure=True)


def _fold(columns: list[Column], trials: Sequence[TrialResult]) -> tuple[list[Column], list[Column]]:
    """(columns to draw, columns that say the same of every trial); one trial alone keeps all of its columns."""
    if len(trials) < 2:
        return columns, []
    same = [column for column in columns if column.folds and len({column.cell(trial) for trial in trials}) == 1]
    return [column for column in columns if column not in same], same


def _fit(sheet: Sheet, width: int | None) -> Sheet:
    """The sheet as `width` characters have room for it: without costs, and where that is not enough with `±` below its value."""
    columns, dropped = list(sheet.columns), []
    for heading in COSTS:
        if width is None or _total(sheet, columns) <= width:
            break
        dropped += [column.heading for column in columns if column.heading == heading]
        columns = [column for column in columns if column.heading != heading]
    if dropped:
        kept = [sheet.columns.index(column) for column in columns]
        rows = [replace(row, cells=[row.cells[place] for place in kept]) for row in sheet.rows]
        caption = [*sheet.caption, f"Left out for width: {', '.join(dropped)}."]
        sheet = Sheet(sheet.title, caption, columns, rows)
    below = width is not None and _total(sheet, columns, NAME_WIDTH) > width
    return replace(sheet, halves_below=below)


def _widths(sheet: Sheet, width: int | None) -> list[int | None]:
    """The characters of each column: numbers whole, and of what is left as much for each name as it needs, or an equal share."""
    needs = [_needs(sheet, place) for place in range(len(sheet.columns))]
    if width is None or _total(sheet, sheet.columns) <= width:
        return [None] * len(needs)
    names = [place for place, column in enumerate(sheet.columns) if place and not column.numeric]
    left = width - BETWEEN * len(needs) - sum(need for place, need in enumerate(needs) if place not in names)
    widths: list[int | None] = [*needs]
    for number, place in enumerate(
        sorted(names, key=lambda place: needs[place])
    ):  # short names first: what they leave is shared
        widths[place] = max(LEAST_NAME, min(needs[place], left // (len(names) - number)))
        left -= widths[place] or 0
    return widths


def _total(sheet: Sheet, columns: Sequence[Column], most_name: int | None = None) -> int:
    """Characters of the whole table; with `most_name`, names are folded to that many."""
    total = 0
    for column in columns:
        need = _needs(sheet, sheet.columns.index(column))
        total += BETWEEN + (need if most_name is None or column.numeric else min(need, most_name))
    return total


def _needs(sheet: Sheet, place: int) -> int:
    """Characters that a column takes; a heading may break at its spaces."""
    heading = max(map(len, sheet.columns[place].heading.split()), default=0)
    cells = [line for row in sheet.rows for line in _drawn(sheet, row)[place].split("\n")]
    return max([heading, *map(len, cells)])


def _drawn(sheet: Sheet, row: Row) -> list[str]:
    """The cells of a row as they are drawn."""
    if not sheet.halves_below:
        return row.cells
    return [
        cell.replace(" ±", "\n±") if column.measure else cell
        for column, cell in zip(sheet.columns, row.cells, strict=True)
    ]


def _any_interval(trials: Sequence[TrialResult]) -> bool:
    return any(trial.interval(name) for trial in trials for name in MEASURES)


def _title(results: SweepResults) -> str:
    states = [trial.state for trial in results.trials]
    counts = [f"{states.count(state)} {state}" for state in STATES if state in states]
    steps = f"; {results.recorded} of {results.wanted} steps recorded" if results.wanted is not None else ""
    return f"{results.name}: {formatting.plural(len(states), 'trial')} ({', '.join(counts) or 'none'}){steps}"


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(formatting.escape_markdown, cells)) + " |"
