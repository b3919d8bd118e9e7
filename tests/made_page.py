"""A page of a made-up sweep that has everything a page can show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from answered_store import answered_sweep
from synthetic_results import HELD_OUT, make_sweep

from lmmcl.ledger import Ledger
from lmmcl.reports.collect import collect_results
from lmmcl.reports.page.page import write_page
from lmmcl.reports.page.page_extras import page_extras
from lmmcl.reports.results import Cell, StageResult, SweepResults, TrialResult
from lmmcl.search.run_context import RunContext

CELLS = (
    Cell("id", "id", 20.0, 18.0, 22.0, ("birds",)),
    Cell("ood", "id", -3.0, -4.5, -1.5, ("shape", "relation")),
    Cell("id", "ood", 1.0, -0.5, 2.5, ("colour",)),
    Cell("ood", "ood", None, None, None, ()),
)
MOMENTS = ((0, 0.1, 0.0), (10, 0.5, 0.1), (20, 0.8, 0.4), (40, 1.0, 1.0))
"""Updates, and the parts of learning and forgetting that are reached by then."""


def with_everything(trial: TrialResult) -> TrialResult:
    """Cells and probes after each stage, and what was asked inside them."""

    def more(stage: StageResult) -> StageResult:
        if not stage.number:
            return replace(stage, probes={"bias": 0.0})
        lost = stage.measures["held_out_forgetting"]
        inside = [{"update": at, "bias": 0.1 * at / 40 - lost * at / 400} for at in (0, 10, 20, 40)]
        learnt = stage.measures["learning"]
        along = [
            {"update": at, "learning": up * learnt, "held_out_forgetting": down * lost} for at, up, down in MOMENTS
        ]
        ends = {
            at: {name: (row[name] - 1.1 * far, row[name] + 0.9 * far) for name in ("learning", "held_out_forgetting")}
            for (at, *_), row in zip(MOMENTS, along, strict=True)
            for far in [min(1.0, at / 20)]
        }
        scores = {name: (stage.scores[name] - 3.0, stage.scores[name] + 2.5) for name in HELD_OUT}
        stage = replace(stage, score_curve=along, moment_intervals=ends, score_intervals=scores)
        return replace(stage, cells=CELLS, probes={"bias": 0.1 - lost / 10}, probe_curve=inside)

    return replace(trial, stages=[more(stage) for stage in trial.stages])


def made_results() -> SweepResults:
    """Three recipes at two rates, with and without a mitigation."""
    made = make_sweep(recipes=["sa_proj", "gate_up", "full"], rates=[1e-5, 1e-4], mitigations=[None, "wise_ft"])
    return replace(made, trials=[with_everything(trial) for trial in made.trials])


def write_made_page(folder: Path) -> Path:
    """Write the page of `made_results` into `folder`."""
    write_page(made_results(), folder / "page.html")
    return folder / "page.html"


def write_answered_page(folder: Path) -> Path:
    """Write the page of `answered_sweep` at three seeds into `folder`: answers, pictures, pairs, moments and fractional scores."""
    sweep = answered_sweep(folder, seeds=(0, 1, 2), partial=("shape", "birds"), moments="updates: [5, 10, 15]")
    context = RunContext.resolve(sweep, Ledger(str(folder / "store")))
    results = collect_results(context)
    write_page(results, folder / "answers.html", page_extras(context, results))
    return folder / "answers.html"
