"""A sweep with probes, run for real in one process: one task a checkpoint, nothing computed twice, all of it reported."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path

import pytest
from made import SWEEP, made_trial, write_sweep
from typer.testing import CliRunner

from lmmcl.cli import app
from lmmcl.config.cluster import Cluster
from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger
from lmmcl.reports.collect import collect, trial_result
from lmmcl.runner import execute
from lmmcl.runner.in_flight import ConcurrentScheduler
from lmmcl.steps import Checkpoint, CheckpointStep, ScoringStep
from lmmcl.tasks.probes import get_probe

PROBES = "[{number_bias: {examples: 4}}, {kl_from_base: {examples: 4}}, {layer_contribution: {examples: 4}}, {constrained: {examples: 4}}]"
ONE_TRIAL = SWEEP.replace("[sa_proj, gate_up]", "[gate_up]").replace("[1.0e-3, 3.0e-4]", "[1.0e-3]")


def run(sweep: Path, store: Path) -> str:
    result = CliRunner().invoke(app, ["run", str(sweep), "--store", str(store), "--inline", "--mlflow", "off"])
    assert result.exit_code == 0, result.output
    return result.output


class Recorder:
    """Records what it is asked to compute, in tasks."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.tasks = ledger, []

    async def __call__(self, steps: list[Checkpoint] | list[ScoringStep]) -> None:
        if not isinstance(steps[0], CheckpointStep):
            self.tasks.append([step.label for step in steps])
        for step in steps:
            self._record(step)

    def _record(self, step) -> None:
        assert all(self.ledger.find(parent) for parent in step.parents), "a parent is missing"
        with self.ledger.writing(step) as draft:
            draft.commit({})


def walk(recorder: Recorder, trial) -> list[list[str]]:
    recorder.tasks = []

    async def all_stages() -> None:
        scheduler = ConcurrentScheduler(recorder.ledger, Cluster(), recorder)
        for stage in trial.stages:
            await scheduler.records(stage.asked)

    asyncio.run(all_stages())
    return recorder.tasks


def test_probes_fly_with_the_benchmarks_of_their_checkpoint_and_alone_when_added_later(tmp_path: Path) -> None:
    recorder = Recorder(Ledger(str(tmp_path)))
    first = dataclasses.replace(made_trial(), probes=(get_probe("kl_from_base"),))
    asked = ["first", "second", "kept"]
    assert walk(recorder, first) == [asked, [*asked, "kl_from_base"], [*asked, "kl_from_base"]]
    more = dataclasses.replace(first, probes=(*first.probes, get_probe("number_bias")))
    assert walk(recorder, more) == [["number_bias"]] * 3


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(sweep, store) of a sweep without probes."""
    folder = tmp_path_factory.mktemp("probes")
    run(write_sweep(folder, ONE_TRIAL), folder / "store")
    return folder, folder / "store"


def test_probes_added_to_a_finished_sweep_run_alone_load_each_model_once_and_are_reported(
    finished: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, store = finished
    sweep = write_sweep(folder, f"{ONE_TRIAL}probes: {PROBES}\n", "probed.yaml")
    loads = []
    loader = execute._loader

    def counting(*given):
        load = loader(*given)
        return lambda checkpoint: loads.append(checkpoint.label) or load(checkpoint)

    monkeypatch.setattr(execute, "_loader", counting)
    assert "10 steps computed" in run(sweep, store)  # 2 at the base, 4 after each of two skills
    labels = [stage.checkpoint.label for stage in load_sweep(sweep).trials[0].stages]
    assert loads == [labels[0], labels[1], "0-base", labels[2], "0-base"]
    assert "0 steps computed" in run(sweep, store)
    stages = collect(load_sweep(sweep), Ledger(str(store))).trials[0].stages
    assert {name.split("/")[0] for name in stages[0].probes} == {"number_bias", "constrained"}
    for stage in stages[1:]:
        assert stage.probes["kl_from_base/mean"] > 0
        assert stage.probes["layer_contribution/mlp/0"] > 0
    assert stages[2].probes["number_bias/sum"] != stages[0].probes["number_bias/sum"]
    result = CliRunner().invoke(app, ["report", str(sweep), "--store", str(store), "--format", "json"])
    told = json.loads(result.stdout)["trials"][0]["stages"][1]["probes"]
    assert told == pytest.approx(dict(stages[1].probes))


def test_a_probe_that_failed_fails_its_trial_and_one_that_was_not_asked_yet_does_not(
    finished: tuple[Path, Path],
) -> None:
    folder, store = finished
    sweep = write_sweep(folder, f"{ONE_TRIAL}probes: [{{number_bias: {{examples: 3}}}}]\n", "asked.yaml")
    (trial,) = load_sweep(sweep).trials
    assert trial_result(trial, Ledger(str(store))).state == "done"
    failed = trial_result(trial, Ledger(str(store)), error="no such token")
    assert (failed.state, failed.error, len(failed.stages)) == ("failed", "no such token", 3)


def test_a_sweep_that_lists_no_probes_reports_none(finished: tuple[Path, Path]) -> None:
    folder, store = finished
    stages = collect(load_sweep(folder / "small.yaml"), Ledger(str(store))).trials[0].stages
    assert all(stage.probes == {} for stage in stages)
