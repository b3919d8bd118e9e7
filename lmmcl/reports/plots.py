"""The trade-off as a picture: learning against held-out forgetting, for MLflow and for a README."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.atomic_files import replacing
from lmmcl.measures import BELOW_0_FORGOT
from lmmcl.reports import formatting, plot_style
from lmmcl.reports.pareto import fronts, place
from lmmcl.reports.results import SweepResults, TrialResult, identity
from lmmcl.reports.seeds import averaged, has_seeds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREY = "#6b7280"
MOST_SHADES = 9
"""Numbers that the legend names."""


PAPER: Any = {"font.size": 7, "axes.labelsize": 7, "pdf.fonttype": 42, "svg.fonttype": "none"}
"""Type of a paper's figures; text stays text, as publishers ask."""
SINGLE_COLUMN = 3.35
"""Inches; two columns are 6.9."""


def write_scatter(results: SweepResults, path: Path, *, title: str | None = None, dots_per_inch: int = 160) -> None:
    """Write the scatter as PNG (or SVG, PDF, by the ending of `path`)."""
    with replacing(path) as partial:
        scatter(results, title=title).savefig(partial, dpi=dots_per_inch)


def write_paper_figure(results: SweepResults, path: Path, width: float = SINGLE_COLUMN) -> None:
    """Write the scatter as PDF or SVG, `width` inches wide, without a title: a paper has captions."""
    from matplotlib import rc_context

    with replacing(path) as partial, rc_context(PAPER):
        figure = scatter(results, title="", legend_size=6)
        figure.set_size_inches(width, 0.72 * width)
        figure.savefig(partial, metadata={"CreationDate": None} if path.suffix == ".pdf" else {"Date": None})


def scatter(results: SweepResults, *, title: str | None = None, legend_size: float = 8) -> Figure:
    """Learning × held-out forgetting with intervals and the Pareto front; hollow is mitigated, pale is unfinished.

    Seeds of a grid point are one point, their mean. The figure draws without a display and leaves matplotlib's own state
    alone.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    results = averaged(results) if has_seeds(results) else results
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _frame(axes, results.name if title is None else title)
    by_colour, by_marker = plot_style.colour_axis(results), plot_style.marker_axis(results)
    colours, markers = plot_style.colours(results.values(by_colour)), plot_style.markers(results.values(by_marker))
    shown = [trial for trial in results.trials if place(trial) is not None]
    for trial in shown:
        colour = colours[identity(trial.axes.get(by_colour))]
        hollow = trial.axes.get("mitigation") is not None and "mitigation" not in (by_colour, by_marker)
        _point(axes, trial, colour, markers[identity(trial.axes.get(by_marker))][1], hollow)
    _front_lines(axes, results)
    if shown:
        _legend(axes, results, by_colour, by_marker, legend_size)
    else:
        axes.text(0.5, 0.5, "no trial has a score yet", ha="center", va="center", transform=axes.transAxes, color=GREY)
    return figure


def _frame(axes: Axes, title: str) -> None:
    if title:
        axes.set_title(_literal(title), loc="left", fontsize=11)
    axes.set_xlabel("learning (points on the taught skills)  → better")
    axes.set_ylabel(f"held-out forgetting (points, {BELOW_0_FORGOT})  → better")
    axes.axhline(0, color="#b6bcc6", linewidth=0.8, zorder=0)
    axes.axvline(0, color="#b6bcc6", linewidth=0.8, zorder=0)
    axes.grid(color="#eceff3", linewidth=0.6, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(0.08)


def _point(axes: Axes, trial: TrialResult, colour: str, marker: str, hollow: bool) -> None:
    spot = place(trial)
    if spot is None:
        return
    axes.errorbar(
        *spot,
        xerr=_arms(trial, "learning", spot[0]),
        yerr=_arms(trial, "held_out_forgetting", spot[1]),
        marker=marker,
        markersize=7,
        color=colour,
        markerfacecolor="white" if hollow else colour,
        elinewidth=0.7,
        capsize=0,
        alpha=1.0 if trial.state == "done" else 0.5,
        zorder=3,
    )


def _arms(trial: TrialResult, name: str, value: float) -> list[list[float]] | None:
    """Lengths of both arms of an error bar; an interval that misses its value has an arm of length 0."""
    interval = trial.interval(name)
    return None if interval is None else [[max(0.0, value - interval[0])], [max(0.0, interval[1] - value)]]


def _front_lines(axes: Axes, results: SweepResults) -> None:
    for front in fronts(results):
        points = [spot for trial in front if (spot := place(trial)) is not None]
        x, y = zip(*points, strict=True) if points else ((), ())
        # What lies left of and below the steps is beaten by a trial of the front.
        axes.step(x, y, where="pre", color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=2)


def _legend(axes: Axes, results: SweepResults, by_colour: str, by_marker: str, size: float) -> None:
    from matplotlib.lines import Line2D

    def entry(text: str, **look: Any) -> Line2D:
        return Line2D([], [], linestyle="", label=_literal(text), markersize=7, **look)

    rows = []
    if len(results.values(by_marker)) > 1:
        shapes = plot_style.markers(results.values(by_marker))
        rows += [entry(f"{formatting.label(by_marker)}:", marker="")]
        for value in results.values(by_marker):
            rows.append(entry(formatting.axis_value(by_marker, value), marker=shapes[identity(value)][1], color=GREY))
    if len(results.values(by_colour)) > 1:
        shades = plot_style.colours(results.values(by_colour))
        rows += [entry(f"{formatting.label(by_colour)}:", marker="")]
        for value in _some(results.values(by_colour)):
            rows.append(entry(formatting.axis_value(by_colour, value), marker="o", color=shades[identity(value)]))
    if any(trial.axes.get("mitigation") for trial in results.trials) and "mitigation" not in (by_colour, by_marker):
        rows.append(entry("hollow: mitigated", marker="o", color=GREY, markerfacecolor="white"))
    rows.append(Line2D([], [], color=GREY, linewidth=1, linestyle=(0, (4, 3)), label="Pareto front"))
    axes.legend(handles=rows, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=size)


def _some(values: Sequence[Any]) -> Sequence[Any]:
    """Values to name in the legend: a search draws more learning rates than a legend has room for, and shades lie between."""
    if len(values) <= MOST_SHADES or any(isinstance(value, str) for value in values):
        return values
    return [values[round(place * (len(values) - 1) / (MOST_SHADES - 1))] for place in range(MOST_SHADES)]


def _literal(text: str) -> str:
    """Text whose dollars matplotlib does not take for mathematics."""
    return text.replace("$", r"\$")
