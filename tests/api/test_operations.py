"""Plan and run from Python: what is printed, what is returned, clusters as mappings, and a running event loop."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
import yaml
from made import write_sweep
from pretended import SEARCH, Pretence, pretence  # noqa: F401

import lmmcl
from lmmcl.errors import UserError
from lmmcl.steps import Checkpoint, Finetune

ONE_STAGE = """
name: small
orders: {main: [counting]}
benchmarks: {held_out: [colour]}
training: {examples: 8, max_steps: 2, global_batch_size: 4, precision: fp32}
evaluation: {precision: fp32, limit: 4}
grids: [{model: [tiny-onevision], recipe: [sa_proj]}]
"""


def test_a_plan_prints_what_the_command_prints_and_is_a_table(tmp_path: Path) -> None:
    plan = lmmcl.plan(write_sweep(tmp_path), store=tmp_path / "store")
    assert plan.to_run["finetune"] == 8
    assert "steps" in str(plan) and "sa_proj" in str(plan) and repr(plan) == str(plan)
    assert list(plan.to_frame()["recorded"]) == [0, 0, 0, 0]
    assert not (tmp_path / "store").exists(), "a plan writes nothing"


def test_a_plan_is_plain_text_in_a_terminal_with_colours_and_in_a_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = lmmcl.plan(write_sweep(tmp_path), store=tmp_path / "store")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)  # as in a notebook, where rich would display HTML
    assert "\x1b" not in str(plan) and "finetune" in str(plan)


def test_a_cluster_is_a_file_or_a_mapping(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(f"store: {tmp_path / 'there'}\n", encoding="utf-8")
    sweep = write_sweep(tmp_path)
    settings = {"store": str(tmp_path / "there")}
    assert lmmcl.plan(sweep, cluster=file).to_run == lmmcl.plan(sweep, cluster=settings).to_run
    with pytest.raises(UserError, match=r"cluster: .*unknown key 'stor'; did you mean 'store'"):
        lmmcl.plan(sweep, cluster={"stor": "x"})


def test_a_run_computes_once_and_returns_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = lmmcl.load_sweep(write_sweep(tmp_path, ONE_STAGE))
    results = lmmcl.run(sweep, store=tmp_path / "store", inline=True, mlflow="off", quiet=True)
    assert list(results.trials()["state"]) == ["done"]
    assert capsys.readouterr().out == ""
    again = lmmcl.run(sweep, store=tmp_path / "store", inline=True, mlflow="off")
    assert "0 steps computed" in capsys.readouterr().out
    assert again.scores().equals(results.scores())
    assert "1 done" in repr(again)


def test_a_sweep_without_a_file_is_run_and_reported(tmp_path: Path) -> None:
    sweep = lmmcl.make_sweep(**yaml.safe_load(ONE_STAGE))
    results = lmmcl.run(sweep, store=tmp_path / "store", inline=True, mlflow="off", quiet=True)
    assert len(results.scores()) == 4
    assert (tmp_path / "store" / "reports" / "small" / "index.html").is_file()


def test_a_failed_trial_is_in_the_results_and_the_others_are_done(
    tmp_path: Path,
    pretence: Pretence,  # noqa: F811
) -> None:
    def breaks(step: Checkpoint) -> None:
        if isinstance(step, Finetune) and step.training.learning_rate == 1e-5:
            raise RuntimeError("out of luck")

    pretence.breaks = breaks
    file, store = write_sweep(tmp_path, SEARCH), tmp_path / "store"
    results = lmmcl.run(file, store=store, inline=True, mlflow="off", quiet=True)
    trials = results.trials().set_index("learning_rate")
    assert dict(trials["state"]) == {1e-6: "done", 1e-5: "failed", 1e-4: "done", 1e-3: "done"}
    assert results.failures == {trials["trial"][1e-5]: "RuntimeError: out of luck"}
    assert lmmcl.results(file, store=store).failures == results.failures


def test_a_run_needs_no_event_loop_of_its_own_where_a_notebook_has_one(tmp_path: Path) -> None:
    async def cell() -> list[str]:
        file, store = write_sweep(tmp_path, ONE_STAGE), tmp_path / "store"
        return list(lmmcl.run(file, store=store, inline=True, mlflow="off", quiet=True).trials()["state"])

    assert asyncio.run(cell()) == ["done"]


def test_a_run_leaves_the_variables_of_a_launcher_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str | None] = {}
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setattr(
        "lmmcl.runner.command.run_and_report",
        lambda *_, **__: seen.update(here=os.environ.get("ACCELERATE_MIXED_PRECISION")),
    )
    lmmcl.run(write_sweep(tmp_path, ONE_STAGE), store=tmp_path / "store")
    assert seen == {"here": None}
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"


@pytest.mark.slow
def test_a_sweep_built_in_python_runs_on_ray(tmp_path: Path) -> None:
    settings = yaml.safe_load(ONE_STAGE)
    settings["grids"][0]["learning_rate"] = [1e-3, 1e-4]
    cluster = {"ray": {"cpus": 2}}
    results = lmmcl.run(
        lmmcl.make_sweep(**settings), store=tmp_path / "store", cluster=cluster, mlflow="off", quiet=True
    )
    assert list(results.trials()["state"]) == ["done", "done"]
    assert len(results.scores()) == 2 * 2 * 2
