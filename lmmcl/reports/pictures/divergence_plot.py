"""How far a model moved from the base on what it was newly taught, against what it forgot, beside the number bias: two panels.

RL's Razor (arXiv 2509.04259) finds that forgetting follows KL(base ‖ tuned) on the new task, whatever the method of training. A
point is a stage of a trial, its colour the mitigation; R² is the share of the variance that a parabola in the value explains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmmcl.atomic_files import replacing
from lmmcl.measures import BELOW_0_FORGOT
from lmmcl.reports import formatting, plot_style
from lmmcl.reports.results import SweepResults, finite, identity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE = "divergence.png"
KL, BIAS = "kl_from_base/benchmark/", "number_bias/max"
FEWEST = 4
"""Points below which a parabola says nothing: three always lie on one."""


@dataclass(frozen=True)
class Point:
    """One stage: the mitigation of its trial, KL from the base on its skill, number bias, and what was forgotten, in points."""

    mitigation: Any
    kl: float
    bias: float | None
    forgetting: float


def points(results: SweepResults) -> list[Point]:
    """Every checkpoint for which KL on the skill taught last was measured; one that trials share counts once."""
    by_checkpoint: dict[str, Point] = {}
    for trial in results.trials:
        for stage in trial.stages:
            kl = finite(stage.probes.get(f"{KL}{stage.skill}"))
            lost = finite(stage.measures.get("held_out_forgetting"))
            if stage.number and kl is not None and lost is not None:
                bias = finite(stage.probes.get(BIAS))
                by_checkpoint[stage.checkpoint_key] = Point(trial.axes.get("mitigation"), kl, bias, lost)
    return list(by_checkpoint.values())


def explained(values: Sequence[float], losses: Sequence[float]) -> float | None:
    """R² of losses by a least-squares parabola in `values`; None for too few points, or values or losses that are all alike."""
    if len(values) < FEWEST or len(set(values)) < FEWEST - 1 or len(set(losses)) < 2:
        return None
    fitted = np.polyval(np.polyfit(values, losses, 2), values)
    around = np.asarray(losses) - np.mean(losses)
    return float(1 - np.square(np.asarray(losses) - fitted).sum() / np.square(around).sum())


def write_divergence(results: SweepResults, path: Path) -> Path | None:
    """Write the picture as PNG; None where no probe measured KL from the base on what was taught (`questions` with the skill)."""
    shown = points(results)
    if not shown:
        return None
    with replacing(path) as partial:
        divergence(results, shown).savefig(partial, dpi=160)
    return path


def divergence(results: SweepResults, shown: Sequence[Point]) -> Figure:
    """Both panels; the second only where number bias was measured too."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [("KL from the base on the new skill (nats a token)", [point.kl for point in shown])]
    if all(point.bias is not None for point in shown):
        panels.append(("number bias (largest probability)", [point.bias or 0.0 for point in shown]))
    figure = Figure(figsize=(4.6 * len(panels) + 1.8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    methods = results.values("mitigation")
    colours = plot_style.colours(methods)
    for number, (label, values) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), number + 1)
        for method in methods:
            own = [at for at, point in enumerate(shown) if identity(point.mitigation) == identity(method)]
            axes.scatter(
                [values[at] for at in own],
                [shown[at].forgetting for at in own],
                s=18,
                color=colours[identity(method)],
                label=formatting.axis_value("mitigation", method),
            )
        share = explained(values, [point.forgetting for point in shown])
        axes.set_title("" if share is None else f"parabola: R² {share:.2f}", fontsize=9, loc="left")
        axes.set_xlabel(label)
        axes.set_ylabel(f"held-out forgetting (points, {BELOW_0_FORGOT})" if not number else "")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#eceff3", linewidth=0.6, zorder=0)
    figure.axes[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    return figure
