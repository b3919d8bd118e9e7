"""What probes saw inside stages: their values after some of the updates, as a table; one row a skill, mean over trials."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.table import Table

from lmmcl.reports.correlation import summarises
from lmmcl.reports.results import SweepResults, finite

TITLE = "Probes inside stages"
NOTE = (
    "Mean over the trials that have the value; `end` is after the last update. Each trial's: `--format json`, MLflow."
)
START, END = "start", "end"


def inside_rows(results: SweepResults) -> tuple[list[str], list[tuple[str, str, dict[str, float]]]]:
    """(columns, rows): the columns `start`, updates and `end`; a row is skill, probe value, and its mean by column.

    A trial counts once for each time that it is taught the skill; a fine-tune that trials share, or merge in several ways,
    counts once.
    """
    by_name: dict[tuple[str, str], dict[str, list[float]]] = {}
    updates: set[int] = set()
    seen: set[tuple[str, str, str]] = set()
    for stage in (stage for trial in results.trials for stage in trial.stages):
        if not stage.probe_curve or stage.skill is None:
            continue
        trained = stage.trained_key or stage.checkpoint_key
        last = max((int(row["update"]) for row in stage.curve), default=None)
        for row in stage.probe_curve:
            column = _column(int(row["update"]), last)
            updates |= {int(column)} if column.isdigit() else set()
            for name, value in _summaries(row).items():
                if (trained, column, name) in seen:  # value by value: a merge's end is not the end of its fine-tune
                    continue
                seen.add((trained, column, name))
                by_name.setdefault((stage.skill, name), {}).setdefault(column, []).append(value)
    means = [
        (skill, name, {column: sum(values) / len(values) for column, values in columns.items()})
        for (skill, name), columns in by_name.items()
    ]
    used = {column for _, _, columns in means for column in columns}
    return [column for column in (START, *map(str, sorted(updates)), END) if column in used], means


def _column(update: int, last: int | None) -> str:
    return START if update == 0 else END if update == last else str(update)


def _summaries(row: Mapping[str, float]) -> dict[str, float]:
    values = {name: finite(value) for name, value in row.items() if name != "update" and summarises(name)}
    return {name: value for name, value in values.items() if value is not None}


def _cells(columns: list[str], values: Mapping[str, float]) -> list[str]:
    return [f"{values[column]:.3g}" if column in values else "" for column in columns]


def inside_table(results: SweepResults) -> Table | None:
    """For the terminal; None where no probe looked inside a stage."""
    columns, rows = inside_rows(results)
    if not rows:
        return None
    table = Table(title=TITLE, caption=NOTE, title_justify="left")
    table.box, table.caption_justify = box.SIMPLE_HEAD, "left"
    table.add_column("while taught")
    table.add_column("probe")
    for column in columns:
        table.add_column(column, justify="right")
    for skill, name, values in rows:
        table.add_row(skill, name, *_cells(columns, values))
    return table


def inside_markdown(results: SweepResults) -> str:
    """The same as Markdown; empty where no probe looked inside a stage."""
    columns, rows = inside_rows(results)
    if not rows:
        return ""
    lines = [
        f"### {TITLE}",
        "",
        f"| while taught | probe | {' | '.join(columns)} |",
        f"|---|---|{'---:|' * len(columns)}",
    ]
    lines += [f"| {skill} | `{name}` | {' | '.join(_cells(columns, values))} |" for skill, name, values in rows]
    return "\n".join([*lines, "", NOTE, ""])
