from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from PIL import Image
from synthetic_results import make_sweep, make_trial

from lmmcl.reports import plot_style
from lmmcl.reports.plots import scatter, write_paper_figure, write_scatter
from lmmcl.reports.results import SweepResults


def test_the_picture_has_a_point_with_error_bars_for_each_trial_and_a_front(tmp_path: Path) -> None:
    results = make_sweep(recipes=["sa_proj", "full"], rates=[1e-5, 3e-5], mitigations=[None, "wise_ft"])
    (axes,) = scatter(results).axes
    assert len(axes.containers) == len(results.trials)
    assert all(container.has_xerr and container.has_yerr for container in axes.containers)
    trial = results.trials[0]
    line = axes.containers[0].lines[0]
    assert (line.get_xdata()[0], line.get_ydata()[0]) == (
        trial.measure("learning"),
        trial.measure("held_out_forgetting"),
    )
    write_scatter(results, tmp_path / "new" / "scatter.png")
    with Image.open(tmp_path / "new" / "scatter.png") as picture:
        assert picture.size == (1280, 800) and len(picture.convert("RGB").getcolors(1_000_000)) > 50


def test_names_that_look_like_mathematics_are_drawn_as_they_are(tmp_path: Path) -> None:
    trial = make_trial()
    trials = [trial, replace(trial, key="b", axes={**trial.axes, "recipe": "$\\frac{$"})]
    write_scatter(SweepResults("costs $5_000$ ^{", trials), tmp_path / "scatter.png")
    assert (tmp_path / "scatter.png").stat().st_size > 1000


def test_a_sweep_without_scores_and_a_trial_without_intervals_are_drawn(tmp_path: Path) -> None:
    trial = make_trial()
    bare = replace(trial, stages=[replace(stage, intervals={}) for stage in trial.stages])
    for name, trials in {"empty": [], "bare": [bare], "unstarted": [replace(trial, stages=[])]}.items():
        write_scatter(SweepResults(name, trials), tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").exists()


def test_an_interval_that_misses_its_value_does_not_stop_the_picture() -> None:
    trial = make_trial()
    odd = replace(trial.stages[-1], intervals={"learning": (90.0, 95.0), "held_out_forgetting": (-99.0, -98.0)})
    assert scatter(SweepResults("odd", [replace(trial, stages=[*trial.stages[:-1], odd])])).axes


def test_learning_rates_are_colours_along_a_scale_and_recipes_are_markers() -> None:
    results = make_sweep(recipes=["sa_proj", "full"])
    assert (plot_style.colour_axis(results), plot_style.marker_axis(results)) == ("learning_rate", "recipe")
    colours = plot_style.colours(results.values("learning_rate"))
    assert len(set(colours.values())) == 4 and next(iter(colours.values())) == "#440154"


def test_with_one_learning_rate_the_colour_tells_mitigations_apart() -> None:
    results = make_sweep(recipes=["sa_proj", "full"], rates=[1e-5], mitigations=[None, "lwf"])
    assert (plot_style.colour_axis(results), plot_style.marker_axis(results)) == ("mitigation", "recipe")


def test_the_reports_load_neither_plotly_nor_matplotlib_until_they_draw() -> None:
    code = "import sys, lmmcl.reports.page.page, lmmcl.reports.plots, lmmcl.reports.tables.export, lmmcl.reports.tables.table; "
    code += (
        "print([name for name in ('plotly', 'matplotlib', 'pyarrow', 'torch', 'mlflow', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_seeds_of_a_grid_point_are_drawn_as_one() -> None:
    one = scatter(make_sweep(recipes=["sa_proj", "full"], rates=[1e-5], updates=2))
    three = scatter(make_sweep(recipes=["sa_proj", "full"], rates=[1e-5], seeds=3, updates=2))
    assert len(three.axes[0].containers) == len(one.axes[0].containers) == 2


def test_a_figure_for_a_paper_has_its_width_no_title_and_text_that_stays_text(tmp_path: Path) -> None:
    results = make_sweep(recipes=["sa_proj", "full"], rates=[1e-5, 3e-5])
    write_paper_figure(results, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert 'width="241.2pt"' in text, "3.35 inches"
    assert ">sa_proj</text>" in text and f">{results.name}</text>" not in text
    write_paper_figure(results, tmp_path / "a.pdf", width=6.9)
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
