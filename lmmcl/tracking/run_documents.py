"""A trial as the trackers beside MLflow take it: one JSON document with its settings and every number on one axis. Pure."""

from __future__ import annotations

from typing import Any

from lmmcl.reports.results import StageResult, TrialResult, finite
from lmmcl.tracking.mlflow_names import curve_values, stage_metrics, trial_params


def run_document(trial: TrialResult, sweep: str) -> dict[str, Any]:
    """`trial` with `rows` of [update, {name: value}], `summary` (the last stage's numbers) and `config` (the grid point).

    The axis is the number of updates since the first stage began, so that curves of training (`train/loss`, …), what is asked
    after a stage (`held_out_forgetting`, `score/colour`, …) and `stage` lie on one axis that only grows.
    """
    rows: dict[int, dict[str, float]] = {}
    before = 0
    for stage in trial.stages:
        for update, values in curve_values(stage):
            rows.setdefault(before + update, {}).update(values)
        before += stage_updates(stage)
        rows.setdefault(before, {}).update({**stage_metrics(stage), "stage": float(stage.number)})
    config = {**trial_params(trial), "sweep": sweep, "trial_key": trial.key, "state": trial.state}
    config["skills"] = ", ".join(trial.skills)
    return {
        "key": trial.key,
        "name": trial.name,
        "project": sweep,
        "config": config,
        "rows": [[update, rows[update]] for update in sorted(rows)],
        "summary": stage_metrics(trial.last) if trial.last else {},
    }


def stage_updates(stage: StageResult) -> int:
    """How many updates a stage made: its last logged one; 1 for a stage whose curve is not known; 0 for the pre-trained model."""
    if stage.number == 0:
        return 0
    updates = [int(update) for row in stage.curve if (update := finite(row.get("update"))) is not None]
    return max(updates, default=1)
