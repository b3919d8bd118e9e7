"""Jobs on a head with token authentication: stopped by `ray job stop`, left alone by Ctrl-C, sent again, finished."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
from pathlib import Path

import pytest
from made import SWEEP, write_sweep
from ray_head import BIN, ROOT, Begun, Head, token_head

from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger
from lmmcl.steps import Step
from lmmcl.steps.trial import Trial

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]

NODE = "ray: {address: auto}\ndriver: {resources: {head: 0.001}}\n"


def recorded(ledger: Ledger) -> dict[str, str]:
    """The record of each finished step, by its folder; of one that is computed again the seconds are others."""
    folders = [folder for kind in ("checkpoints", "scores") for folder in ledger.paths(kind)]
    return {folder: json.dumps(record.fields) for folder in folders if (record := ledger.read(folder))}


def stopped_midway(head: Head, job: Begun, store: Path, named: str) -> dict[str, str]:
    """Stop a job by `ray job stop` after its third checkpoint; returns what was recorded by then."""
    job.wait_until(lambda: len(Ledger(str(store)).paths()) >= 3, 900)
    [name] = re.findall(named, job.output)
    stopped = head.job("stop", name)
    assert stopped.code(0) == 0, stopped.output
    job.code(180)
    assert "finished work is kept; run the same command to resume" in job.output, job.output
    return recorded(Ledger(str(store)))


def all_done(steps: dict[str, Step], store: Path, before: dict[str, str]) -> bool:
    """Whether every step is recorded, the ones of `before` untouched, and `before` was not all of them."""
    now = recorded(Ledger(str(store)))
    assert {folder: now[folder] for folder in before} == before, "a finished step is not computed again"
    assert len(before) < len(steps), "it was stopped midway"
    return len(now) == len(steps) and all(Ledger(str(store)).find(step) for step in steps.values())


def test_a_job_is_stopped_and_sent_again_and_ctrl_c_leaves_it_alone(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sweep = write_sweep(tmp_path, SWEEP.replace("examples: 64", "examples: 640").replace("1.0e-3, 3.0e-4", "1.0e-3"))
    (tmp_path / "node.yaml").write_text(NODE)
    store = tmp_path / "store"
    with token_head(tmp_path_factory.mktemp("ray")) as head:
        words = [BIN / "lmmcl", "submit", "small.yaml", "--address", head.address, "--cluster", "node.yaml"]
        words += ["--store", store, "--mlflow", "off"]
        for wrong, told in (
            ({"RAY_AUTH_MODE": "disabled"}, "Authentication required"),
            ({"RAY_AUTH_TOKEN": "0" * 64}, "Authentication failed"),
        ):
            refused = head.begin(*words, cwd=tmp_path, **wrong)
            assert refused.code(120) == 2 and told in refused.output, refused.output

        first = head.begin(*words, cwd=tmp_path)
        before = stopped_midway(head, first, store, r"(?m)^job (\S+): lmmcl run")
        assert first.code(0) == 130 and "was stopped; submit it again to resume" in first.output, first.output

        second = head.begin(*words, cwd=tmp_path)
        second.wait_until(lambda: "Results are printed" in second.output, 600)  # it follows the log of the job
        second.process.send_signal(signal.SIGINT)
        assert second.code(60) == 130
        [again] = re.findall(r"The job keeps running. Its log: (ray job logs .*)", second.output)
        log = head.begin(*shlex.split(again), cwd=tmp_path)
        assert log.code(600) == 0 and "2 trials (2 done)" in log.output, log.output
    assert all_done(load_sweep(sweep).steps, store, before)


def project(folder: Path, store: Path) -> Path:
    """The project's folder as somebody has it, with the marked lines of the cluster file edited for a head without GPUs."""
    for name in ("lmmcl", "sweeps", "cluster"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    (folder / "cluster" / "autoscaling.yaml").write_text(f"{NODE}store: {store}\n")
    return folder


def line_of_docs(begin: str, head: Head) -> list[str]:
    """The line of docs/cluster.md that begins so, at this head."""
    [line] = re.findall(rf"(?m)^{begin} .*$", (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8"))
    return shlex.split(line.replace("http://HOST:8265", head.address))


def is_midway(trial: Trial, store: Path) -> bool:
    """Whether some of a trial's stages are taught, and others not."""
    taught = [Ledger(str(store)).find(stage.checkpoint) is not None for stage in trial.stages[1:]]
    return any(taught) and not all(taught)


def scores(trial: Trial, store: Path) -> list[float | None]:
    """The score of each question set of a trial, in the trial's order; None where the store has none."""
    found = [Ledger(str(store)).find(step) for stage in trial.stages for step in stage.evaluations]
    return [record["score"] if record else None for record in found]


def test_the_quickstart_is_sent_as_the_docs_say_stopped_and_finished(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store, folder = tmp_path / "store", project(tmp_path / "project", tmp_path / "store")
    sweep = load_sweep(folder / "sweeps" / "quickstart.yaml")
    with token_head(tmp_path_factory.mktemp("ray"), RAY_JOB_STOP_WAIT_TIME_S="60") as head:  # as cluster/Containerfile
        first = head.begin(*line_of_docs("ray job submit", head), cwd=folder)
        before = stopped_midway(head, first, store, r"Job '(\S+)' submitted")
        interrupted = next(trial for trial in sweep.trials if is_midway(trial, store))
        second = head.begin(*line_of_docs("lmmcl submit", head), cwd=folder)
        assert second.code(2000) == 0, second.output
        assert "quickstart: 6 trials (6 done); 228 of 228 steps recorded" in second.output, second.output

        axes = [f"grids[0].{axis}=[{interrupted.axes[axis]}]" for axis in ("recipe", "learning_rate")]
        words = ["--set", axes[0], "--set", axes[1], "--store", tmp_path / "alone", "--mlflow", "off", "--inline"]
        undisturbed = head.begin(BIN / "lmmcl", "run", "sweeps/quickstart.yaml", *words, cwd=folder)
        assert undisturbed.code(1800) == 0, undisturbed.output
    assert len(sweep.steps) == 228 and all_done(sweep.steps, store, before)
    alone = scores(interrupted, tmp_path / "alone")
    assert len(alone) == 44 and None not in alone and alone == scores(interrupted, store)
