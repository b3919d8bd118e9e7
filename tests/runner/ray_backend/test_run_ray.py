"""The same sweep on Ray: interrupted, resumed, killed — and always the scores that one process gets."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
from pathlib import Path

import pytest
from made import SWEEP, write_sweep
from processes import Command

from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger
from lmmcl.ledger.record import KINDS

ONE_CORE_EACH = "ray: {cpus: 2}\n"


def command(folder: Path, store: str, *more: str) -> Command:
    (folder / "two.yaml").write_text(ONE_CORE_EACH)
    return Command("run", "small.yaml", "--store", store, "--cluster", "two.yaml", *more, cwd=folder)


def scores(folder: Path, store: str) -> dict[str, list[float]]:
    """Every question's score of every evaluation of the sweep, by step."""
    ledger = Ledger(str(folder / store))
    steps = load_sweep(folder / "small.yaml").steps
    return {
        path: found["sample_scores"]
        for path in ledger.paths("scores")
        if (found := ledger.read(path)) and found["key"] in steps
    }


def recorded(folder: Path, store: str) -> dict[str, str]:
    """The record of each finished step, by its folder; of one that is computed again the seconds are others."""
    ledger = Ledger(str(folder / store))
    folders = [path for kind in KINDS for path in ledger.paths(kind)]
    return {path: json.dumps(record.fields) for path in folders if (record := ledger.read(path))}


def test_an_interrupted_sweep_leaves_no_process_and_goes_on_to_the_scores_of_one_process(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    alone = command(tmp_path, "alone", "--inline", "--mlflow", "off")
    assert alone.wait() == 0, alone.output

    interrupted = command(tmp_path, "store")
    interrupted.wait_for("stage 1")
    interrupted.process.send_signal(signal.SIGINT)
    assert interrupted.wait(60) == 130, interrupted.output
    assert "to resume" in interrupted.output
    assert interrupted.gone_within(30), interrupted.left_behind()
    finished = recorded(tmp_path, "store")
    assert finished

    resumed = command(tmp_path, "store")
    assert resumed.wait() == 0, resumed.output
    assert resumed.gone_within(30), resumed.left_behind()
    after = recorded(tmp_path, "store")
    assert {path: after[path] for path in finished} == finished, "a finished step was computed again"
    counts = f"{len(after) - len(finished)} steps computed, {len(finished)} recorded before"
    assert counts in resumed.output, "what tasks on Ray record is this run's"
    assert scores(tmp_path, "store") == scores(tmp_path, "alone")
    _mlflow_shows_every_trial_once(tmp_path)


def _mlflow_shows_every_trial_once(folder: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'store' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("small")
    runs = client.search_runs([experiment.experiment_id], "tags.`lmmcl.kind` = 'trial'")
    trials = load_sweep(folder / "small.yaml").trials
    assert sorted(run.data.tags["lmmcl.trial_key"] for run in runs) == sorted(trial.key for trial in trials)
    for run in runs:
        assert "mlflow.parentRunId" not in run.data.tags
        assert {"learning", "held_out_forgetting"} <= set(run.data.metrics)
        assert run.info.status == "FINISHED"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_five_random_moments_it_finishes_with_the_same_scores(tmp_path: Path) -> None:
    write_sweep(tmp_path, SWEEP.replace("examples: 64", "examples: 512"))
    alone = command(tmp_path, "alone", "--inline", "--mlflow", "off")
    assert alone.wait() == 0, alone.output
    moments = random.Random(2402)
    finished: dict[str, int] = {}
    for _ in range(5):
        killed = command(tmp_path, "store")
        with contextlib.suppress(subprocess.TimeoutExpired):
            killed.wait(moments.uniform(5, 30))
        killed.process.kill()
        killed.wait()  # what it started dies within a minute or two; the next run does not wait for that
        now = recorded(tmp_path, "store")
        assert {path: now[path] for path in finished} == finished, "a finished step was computed again"
        finished = now
    last = command(tmp_path, "store")
    assert last.wait(600) == 0, last.output
    assert scores(tmp_path, "store") == scores(tmp_path, "alone")
