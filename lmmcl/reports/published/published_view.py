"""A sweep beside published figures, for a reader: a table for the terminal, Markdown, JSON."""

from __future__ import annotations

import json
from typing import Any

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from lmmcl.errors import UserError, unknown
from lmmcl.measures import ABOVE_0_FORGOT, BELOW_0_FORGOT
from lmmcl.reports import formatting
from lmmcl.reports.formatting import escape_markdown, label
from lmmcl.reports.published.published import Beside, Comparison, Row
from lmmcl.reports.published.published_file import RETENTIONS

FORMATS = ("table", "json", "md")
HEADINGS = ("trial", "what", "after", "ours", "published", "ours − published", "source")


def published_text(comparison: Comparison, format: str) -> str:
    """JSON or Markdown; raises UserError for another format."""
    if format not in FORMATS[1:]:
        raise UserError(unknown("format of --against", format, FORMATS))
    if format == "json":
        return json.dumps(published_dict(comparison), allow_nan=False, ensure_ascii=False, indent=2)
    cells = [HEADINGS, ("---",) * len(HEADINGS), *_cells(comparison)]
    lines = ["| " + " | ".join(escape_markdown(cell) for cell in row) + " |" for row in cells]
    return "\n".join([*lines, "", *(f"- {escape_markdown(line)}" for line in _remarks(comparison))])


def published_dict(comparison: Comparison) -> dict[str, Any]:
    """JSON values; `ours` is null while the stage is not recorded, `low` and `high` where there is no interval."""
    return {
        "sweep": comparison.sweep,
        "trials": [
            {
                "key": compared.trial.key,
                "name": compared.trial.name,
                "axes": dict(compared.trial.axes),
                "state": compared.trial.state,
                "figures": [_row_dict(row) for row in compared.rows],
            }
            for compared in comparison.trials
        ],
        "claims": list(comparison.claims),
        "contradictions": list(comparison.contradictions),
    }


def _row_dict(row: Row) -> dict[str, Any]:
    low, high = row.interval or (None, None)
    return {
        "quantity": row.quantity,
        "stage": row.stage,
        "ours": row.ours,
        "low": low,
        "high": high,
        "published": row.published,
        "approximate": row.approximate,
        "difference": row.difference,
        "source": row.source,
        "second_hand": row.second_hand,
        "note": row.note,
    }


def published_table(comparison: Comparison) -> Group:
    """For the terminal: a line for each published value, and one for each trial without any."""
    table = Table(title=escape(f"{comparison.sweep}: ours beside published"), box=box.SIMPLE_HEAD, title_justify="left")
    for heading in HEADINGS:
        numeric = heading in ("ours", "published", "ours − published")
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for row in _cells(comparison):
        table.add_row(*map(escape, row))
    return Group(table, *(escape(line) for line in _remarks(comparison)))


def _cells(comparison: Comparison) -> list[tuple[str, ...]]:
    numbers = {note: number for number, note in enumerate(_notes(comparison), start=1)}
    rows: list[tuple[str, ...]] = []
    for compared in comparison.trials:
        if not compared.rows:
            rows.append((compared.trial.name, "nothing published", "", "", "", "", ""))
        before = ""
        for row in compared.rows:
            source = f"{row.source} (second hand: {row.second_hand})" if row.second_hand else row.source
            where = f"{source} [{numbers[row.note]}]" if row.note else source
            rows.append(
                ("" if before else compared.trial.name, *_values(compared, row), "" if where == before else where)
            )
            before = where
    return rows


def _values(beside: Beside, row: Row) -> tuple[str, ...]:
    """What, after which stage, ours, published, the difference. Changes have a sign, scores none."""
    signed = not row.quantity.startswith(("score/", "held_out_mean", "mean_score", "h_score", "mf", "maa", *RETENTIONS))
    show = formatting.points if signed else _plain
    skills = beside.trial.skills
    after = "base" if row.stage == 0 else f"{row.stage} {skills[row.stage - 1]}"
    ours = formatting.points_half(row.ours, row.interval) if signed else _plain(row.ours)
    published = f"{'≈ ' if row.approximate else ''}{show(row.published)}"
    return (_named(row.quantity), after, ours, published, formatting.points(row.difference))


def _named(quantity: str) -> str:
    kind, _, rest = quantity.partition("/")
    if kind == "cell":
        image, _, text = rest.partition("/")
        return f"change, {image} image and {text} text"
    return rest if kind == "score" else formatting.label(quantity)


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _notes(comparison: Comparison) -> list[str]:
    return list(dict.fromkeys(row.note for compared in comparison.trials for row in compared.rows if row.note))


def _remarks(comparison: Comparison) -> list[str]:
    notes = [f"[{number}] {note}" for number, note in enumerate(_notes(comparison), start=1)]
    open_rows = sum(row.ours is None for compared in comparison.trials for row in compared.rows)
    waiting = [f"{open_rows} values of ours are not recorded yet"] if open_rows else []
    quantities = {row.quantity for compared in comparison.trials for row in compared.rows}
    signs = [f"forgetting {BELOW_0_FORGOT}"] if quantities & {"held_out_forgetting", "target_forgetting"} else []
    signs += [f"{label(name)}: above 0 means forgot" for name in sorted(quantities & ABOVE_0_FORGOT)]
    claims = [f"claimed without a figure: {claim}" for claim in comparison.claims]
    approximate = any(row.approximate for compared in comparison.trials for row in compared.rows)
    about = ["≈ was read off a picture, or its source calls it approximate"] if approximate else []
    retained = ["retention: mean score in percent, held-out of the pre-trained model's, target of the fine-tune's"]
    return [
        *notes,
        *about,
        *signs,
        *(retained if quantities & set(RETENTIONS) else []),
        *waiting,
        *(f"cannot all be of one trial: {compared}" for compared in comparison.contradictions),
        *claims,
    ]
