"""Probes inside stages, from the sweep file to the report: planned, written as training passes, examined, told, and freed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from made import SWEEP, write_sweep
from typer.testing import CliRunner

from lmmcl.cli import app
from lmmcl.config.cluster import Cluster
from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.errors import UserError
from lmmcl.inspection.gc import collect_garbage
from lmmcl.inspection.status import sweep_status
from lmmcl.ledger import Ledger
from lmmcl.planning.plan import make_plan
from lmmcl.reports.collect import collect
from lmmcl.reports.inside import inside_markdown, inside_rows
from lmmcl.runner import execute
from lmmcl.runner.in_flight import ConcurrentScheduler
from lmmcl.steps import CheckpointStep, Finetune, Snapshot

ONE_TRIAL = SWEEP.replace("[sa_proj, gate_up]", "[gate_up]").replace("[1.0e-3, 3.0e-4]", "[1.0e-3]")
INSIDE = "[{number_bias: {examples: 4, updates: [3, 1, 100, 4]}}, {kl_from_base: {examples: 4}}]"
"""Four updates a stage: the last is the stage's own checkpoint, and there is no hundredth."""
LONGER = ONE_TRIAL.replace("examples: 64", "examples: 128")


def probed(folder: Path, probes: str = INSIDE, text: str = LONGER, name: str = "inside.yaml") -> Path:
    return write_sweep(folder, f"{text}probes: {probes}\n", name)


def invoke(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.output
    return result.output


def snapshots(sweep: Sweep) -> list[Snapshot]:
    return [step for step in sweep.steps.values() if isinstance(step, Snapshot)]


def test_probes_inside_stages_are_steps_of_their_own_and_change_no_other_key(tmp_path: Path) -> None:
    sweep, plain = load_sweep(probed(tmp_path)), load_sweep(write_sweep(tmp_path, LONGER))
    assert set(plain.steps) < set(sweep.steps)
    assert sweep.trials[0].key == plain.trials[0].key
    at_ends = load_sweep(probed(tmp_path, INSIDE.replace("[3, 1, 100, 4]", "[]"), name="ends.yaml"))
    assert set(at_ends.steps) < set(sweep.steps), "the same probe at the end of a stage has the same key"
    assert [step.update for step in snapshots(sweep)] == [1, 3] * 2
    moments = [[moment.update for moment in stage.moments] for stage in sweep.trials[0].stages]
    assert moments == [[], [1, 3, 4], [1, 3, 4]]
    last = sweep.trials[0].stages[1].moments[-1]
    assert isinstance(last.checkpoint, Finetune) and last.probes == sweep.trials[0].stages[1].probes[:1]
    tuned = [step for step in sweep.steps.values() if isinstance(step, Finetune)]
    assert [step.snapshots for step in tuned] == [(1, 3)] * 2


def test_a_plan_counts_snapshots_and_says_what_is_left_out(tmp_path: Path) -> None:
    plan = make_plan(load_sweep(probed(tmp_path)), Ledger(str(tmp_path / "store")))
    assert (plan.wanted["snapshot"], plan.wanted["finetune"]) == (4, 2)
    assert plan.wanted["examine"] == 3 + 4 + 2, "number_bias at three ends and four moments, kl_from_base at two ends"
    assert plan.bytes_to_write == 6 * plan.trials[0].bytes_per_stage
    assert plan.notes == (
        "number_bias is skipped after 100 updates of counting: its stage has 4",
        "number_bias is skipped after 100 updates of clock: its stage has 4",
    )


@pytest.mark.parametrize(
    ("probes", "said"),
    [
        (
            "[kl_from_base, {number_bias: {updates: [5, 100]}}]",
            "probes[1]: number_bias.updates: no stage has 5 updates",
        ),
        ("[{number_bias: {updates: [0]}}]", "number_bias.updates.0: must be greater than 0"),
        ("[{number_bias: {updates: 3}}]", "number_bias.updates"),
        ("[{number_bias: {update: [3]}}]", "number_bias: unknown setting 'update'; did you mean 'updates'"),
    ],
)
def test_updates_that_no_stage_has_are_refused_at_the_door(tmp_path: Path, probes: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load_sweep(probed(tmp_path, probes))
    assert said in str(caught.value)


def test_updates_that_no_drawn_trial_can_have_are_refused_at_the_door(tmp_path: Path) -> None:
    axes = "epochs: {uniform: [1, 2]}, global_batch_size: {int_uniform: [32, 64]}"
    text = (
        LONGER.replace("learning_rate: [1.0e-3]", axes) + "search: {optuna: {trials: 3, objectives: {learning: max}}}\n"
    )
    assert axes in text
    with pytest.raises(UserError, match=r"probes\[0\]: number_bias\.updates: no stage has 9 updates; allowed: 1 to 8"):
        load_sweep(probed(tmp_path, "[{number_bias: {updates: [9]}}]", text))
    assert load_sweep(probed(tmp_path, "[{number_bias: {updates: [8]}}]", text)).spaces, "2 epochs of 4 updates each"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """(sweep, store, kinds of checkpoints in the order in which they were computed)."""
    folder = tmp_path_factory.mktemp("inside")
    computed: list[str] = []
    real = execute.compute

    def noting(steps, **more):
        if isinstance(steps[0], CheckpointStep):
            computed.append(steps[0].kind)
        real(steps, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lmmcl.runner.inline.compute", noting)
        invoke("run", str(probed(folder)), "--store", str(folder / "store"), "--inline", "--mlflow", "off")
    return folder / "inside.yaml", folder / "store", computed


def test_a_stage_writes_its_snapshots_in_the_one_pass_and_all_is_recorded(
    finished: tuple[Path, Path, list[str]],
) -> None:
    path, store, computed = finished
    assert computed == ["pretrained", "finetune", "finetune"]
    sweep, ledger = load_sweep(path), Ledger(str(store))
    assert make_plan(sweep, ledger).is_done
    status = sweep_status(sweep, ledger)
    assert (status.recorded, status.trials[0].next) == (len(sweep.steps), None)


def test_where_the_data_are_not_at_hand_no_moment_beyond_a_recorded_end_is_wanted(
    finished: tuple[Path, Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, store, _ = finished
    monkeypatch.setattr("lmmcl.tasks.skills.Skill.missing", lambda self: "its data are elsewhere")
    sweep, ledger = load_sweep(path), Ledger(str(store))
    assert {step.update for step in snapshots(sweep)} == {1, 3, 4, 100}, (
        "the file alone does not tell how long a stage is"
    )
    assert make_plan(sweep, ledger).is_done
    status = sweep_status(sweep, ledger)
    assert (status.recorded, status.trials[0].next) == (status.wanted, None)
    results = collect(sweep, ledger)
    assert (results.recorded, results.trials[0].state) == (results.wanted, "done")
    unmade = sweep_status(sweep, Ledger(str(store.parent / "empty")))
    assert unmade.wanted == len(sweep.steps), "nothing is recorded, so any update may come"


def test_the_report_tells_each_probe_from_the_start_of_a_stage_to_its_end(
    finished: tuple[Path, Path, list[str]],
) -> None:
    path, store, _ = finished
    results = collect(load_sweep(path), Ledger(str(store)))
    first, second = results.trials[0].stages[1:]
    assert [row["update"] for row in first.probe_curve] == [0, 1, 3, 4]
    assert first.probe_curve[-1]["number_bias/sum"] == first.probes["number_bias/sum"]
    assert first.probe_curve[0]["number_bias/sum"] == results.trials[0].stages[0].probes["number_bias/sum"]
    assert second.probe_curve[0]["number_bias/sum"] == first.probes["number_bias/sum"]
    assert len({row["number_bias/sum"] for row in first.probe_curve}) == 3, "the first update of a warm-up has no rate"
    assert not any("kl_from_base/mean" in row for row in first.probe_curve)
    columns, rows = inside_rows(results)
    assert columns == ["start", "1", "3", "end"]
    told = {(skill, name): values for skill, name, values in rows}
    assert told["counting", "number_bias/sum"]["3"] == first.probe_curve[2]["number_bias/sum"]
    assert "| counting | `number_bias/sum` |" in inside_markdown(results)
    told = json.loads(invoke("report", str(path), "--store", str(store), "--format", "json"))
    assert [row["update"] for row in told["trials"][0]["stages"][1]["probe_curve"]] == [0, 1, 3, 4]
    assert "Probes inside stages" in invoke("report", str(path), "--store", str(store))


def test_a_snapshot_is_shown_and_its_weights_are_freed_when_its_probes_are_done(
    finished: tuple[Path, Path, list[str]],
) -> None:
    path, store, _ = finished
    sweep, ledger = load_sweep(path), Ledger(str(store))
    snapshot = snapshots(sweep)[0]
    assert "snapshot" in invoke("show", snapshot.key, "--store", str(store))
    freed = collect_garbage([sweep], ledger, dry_run=True)
    assert {step.path for step in snapshots(sweep)} <= set(freed.weights)
    more = load_sweep(
        probed(path.parent, INSIDE.replace("examples: 4, updates", "examples: 5, updates"), name="more.yaml")
    )
    assert not set(collect_garbage([sweep, more], ledger, dry_run=True).weights) & {
        each.path for each in snapshots(sweep)
    }


class Recorder:
    """Records what it is asked to compute, in order."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.computed = ledger, []

    async def __call__(self, steps) -> None:
        for step in steps:
            self._record(step)

    def _record(self, step) -> None:
        self.computed.append(step)
        with self.ledger.writing(step) as draft:
            draft.commit({})


def test_a_snapshot_that_is_missing_is_made_without_its_stage_where_that_is_recorded(tmp_path: Path) -> None:
    sweep, plain = load_sweep(probed(tmp_path)), load_sweep(write_sweep(tmp_path, LONGER))
    recorder = Recorder(Ledger(str(tmp_path / "store")))

    def walk(trial) -> list[str]:
        recorder.computed = []

        async def all_stages() -> None:
            scheduler = ConcurrentScheduler(recorder.ledger, Cluster(), recorder)
            for stage in trial.stages:
                await scheduler.records(stage.asked)
                for moment in stage.moments:
                    await scheduler.records(moment.probes)

        asyncio.run(all_stages())
        return [step.kind for step in recorder.computed if step.kind != "evaluate"]

    assert walk(plain.trials[0]) == ["pretrained", "finetune", "finetune"]
    again = walk(sweep.trials[0])
    assert (again.count("snapshot"), again.count("finetune")) == (4, 0)
