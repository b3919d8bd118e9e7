from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking._tracking_service import utils as mlflow_utils
from synthetic_results import SKILLS, make_sweep, make_trial

from lmmcl.config.search_settings import Stopped
from lmmcl.errors import UserError
from lmmcl.reports.results import StageResult, TrialResult
from lmmcl.tracking.mlflow_names import batches, matrix_table, metric_name
from lmmcl.tracking.mlflow_runs import Runs
from lmmcl.tracking.sqlite_file import find_experiment
from lmmcl.tracking.sweep_identity import SweepIdentity
from lmmcl.tracking.tracker import Tracker

numbers = itertools.count()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="session")
def uri(store: Path) -> str:
    return f"sqlite:///{store}/mlflow.db"


@pytest.fixture
def sweep() -> str:
    return f"sweep {next(numbers)}"


@pytest.fixture
def make(uri: str, sweep: str, store: Path) -> Iterator[Any]:
    """Trackers of one sweep, each as blank as that of a new process."""
    yield lambda: Tracker(uri, sweep, (store / "artifacts" / sweep.replace(" ", "-")).as_uri())


def runs(tracker: Tracker, kind: str) -> list[Any]:
    return list(tracker._client.search_runs([tracker.experiment_id], f"tags.`lmmcl.kind` = '{kind}'"))


def points(tracker: Tracker, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in tracker._client.get_metric_history(run_id, name)]


def everything(tracker: Tracker) -> dict[str, Any]:
    """All runs with all their points: what must not grow when a trial is logged again."""
    found = runs(tracker, "trial")
    return {
        run.info.run_id: (run.data.params, {name: points(tracker, run.info.run_id, name) for name in run.data.metrics})
        for run in found
    }


def test_a_trial_is_one_top_level_run_with_its_grid_point_and_final_scores(make: Any, sweep: str) -> None:
    tracker, trial = make(), make_trial(updates=3)
    run_id = tracker.log_trial(trial)
    (run,) = runs(tracker, "trial")
    assert run.info.run_id == run_id and run.info.run_name == trial.name and run.info.status == "FINISHED"
    assert "mlflow.parentRunId" not in run.data.tags
    assert run.data.tags["lmmcl.trial_key"] == trial.key and run.data.tags["lmmcl.sweep"] == sweep
    assert run.data.params["recipe"] == "sa_proj" and run.data.params["mitigation"] == "none"
    assert float(run.data.params["learning_rate"]) == 1e-5 and run.data.params["log10_learning_rate"] == "-5.0000"
    for name in ("learning", "target_forgetting", "overall", "held_out_forgetting"):
        assert run.data.metrics[name] == trial.measure(name)
    assert run.data.metrics["learning_low"] == trial.interval("learning")[0]


def test_scores_are_logged_at_their_stage(make: Any) -> None:
    tracker, trial = make(), make_trial(updates=0)
    run_id = tracker.log_trial(trial)
    assert points(tracker, run_id, "score/colour") == [(stage.number, stage.scores["colour"]) for stage in trial.stages]


def test_probes_are_logged_at_their_stage(make: Any) -> None:
    tracker, trial = make(), make_trial(stages=1, updates=0)
    probed = replace(trial, stages=[replace(stage, probes={"bias/of numbers": 0.25}) for stage in trial.stages])
    assert points(tracker, tracker.log_trial(probed), "probe/bias/of numbers") == [(0, 0.25), (1, 0.25)]


def test_the_curves_of_all_stages_follow_each_other_in_the_run_of_the_trial(make: Any) -> None:
    tracker, trial = make(), make_trial(updates=3)
    run_id = tracker.log_trial(trial)
    losses = [row["loss"] for stage in trial.stages for row in stage.curve]
    assert points(tracker, run_id, "train/loss") == list(enumerate(losses, start=1))
    assert points(tracker, run_id, "cost/updates_per_second") == [
        (number, pytest.approx(3.2)) for number in range(1, 6)
    ]
    (run,) = tracker._client.search_runs([tracker.experiment_id])
    assert {"train/learning_rate", "train/grad_norm"} <= set(run.data.metrics), (
        "nothing but trials is in the experiment"
    )


def test_what_was_seen_inside_a_stage_lies_on_the_same_axis_also_when_it_was_asked_later(make: Any) -> None:
    plain = make_trial(updates=3)
    probes = [{"update": 0, "number_bias/sum": 0.1}, {"update": 2, "number_bias/sum": 0.4}]
    scores = [{"update": 2, "learning": 5.0, "score/colour": 40.0}]
    seen = {"probe_curve": probes, "score_curve": scores}
    stages = [replace(stage, **seen) if stage.number == 2 else stage for stage in plain.stages]
    probed = replace(plain, stages=stages)
    tracker = make()
    for trial in (plain, probed, probed):
        run_id = tracker.log_trial(trial)
    assert points(tracker, run_id, "inside/probe/number_bias/sum") == [(3, 0.1), (5, 0.4)]
    assert points(tracker, run_id, "inside/learning") == [(5, 5.0)]
    assert points(tracker, run_id, "inside/score/colour") == [(5, 40.0)]
    assert [step for step, _ in points(tracker, run_id, "learning")] == [1, 2, 3, 4, 5], "one name, one axis"
    assert len(points(tracker, run_id, "train/loss")) == 15


def test_runs_that_an_earlier_version_nested_go_to_the_trash_and_their_curves_into_the_trial(make: Any) -> None:
    trial, tracker = make_trial(updates=3), make()
    client, run_id = tracker._client, tracker.log_trial(replace(trial, stages=trial.stages[:1], state="partial"))
    old = {"lmmcl.kind": "stage", "mlflow.parentRunId": run_id}
    nested = client.create_run(tracker.experiment_id, tags=old).info.run_id
    report = client.create_run(tracker.experiment_id, tags={"lmmcl.kind": "report"}).info.run_id
    client.delete_tag(run_id, "lmmcl.curves_logged")
    again = make()
    assert again.log_trial(trial) == run_id
    again.log_report([])
    assert {client.get_run(each).info.lifecycle_stage for each in (nested, report)} == {"deleted"}
    assert len(points(again, run_id, "train/loss")) == 15
    assert [run.info.run_id for run in client.search_runs([tracker.experiment_id])] == [run_id]


def test_logging_twice_adds_nothing_even_from_another_process(make: Any) -> None:
    trial = make_trial(updates=3)
    first = make()
    first.log_trial(trial)
    before = everything(first)
    first.log_trial(trial)
    second = make()
    second.log_trial(trial)
    assert len(before) == 1
    assert everything(second) == before


def test_two_runs_that_log_the_same_trial_stage_by_stage_log_each_stage_once(make: Any) -> None:
    trial = make_trial(updates=3)
    trackers = [make(), make()]
    for last in range(1, len(trial.stages) + 1):
        for tracker in trackers:
            tracker.log_trial(replace(trial, state="partial", stages=trial.stages[:last]))
    once = make_trial(updates=3, seed=1)
    trackers[0].log_trial(once)
    lengths = {len(points(trackers[0], run.info.run_id, "train/loss")) for run in runs(trackers[0], "trial")}
    assert lengths == {15}, "no point is there twice"


def test_two_that_look_for_a_run_at_the_same_moment_make_one(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    search, trial, trackers = Runs._search, make_trial(updates=3), [make(), make()]

    def slow(self: Runs, query: str, most: int) -> list[Any]:
        found = search(self, query, most)
        time.sleep(0.3)
        return found

    monkeypatch.setattr(Runs, "_search", slow)
    with ThreadPoolExecutor(2) as pool:
        ids = list(pool.map(lambda tracker: tracker.log_trial(trial), trackers))
    assert ids[0] == ids[1] and len(runs(trackers[0], "trial")) == 1


def test_what_is_logged_already_costs_no_write(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = make_trial(updates=3)
    make().log_trial(trial)
    tracker = make()
    for name in ("create_run", "log_batch", "log_text", "set_terminated", "update_run"):
        monkeypatch.setattr(tracker._client, name, lambda *_, name=name, **__: pytest.fail(f"{name} was called"))
    tracker.log_trial(trial)


def test_what_is_remembered_of_many_runs_is_in_memory_once(make: Any) -> None:
    tracker = make()
    for seed in range(2):
        tracker.log_trial(make_trial(seed=seed, updates=0, state="partial"))
    one, other = tracker._runs._known.values()
    for texts, same in ((one.params, other.params), (one.tags, other.tags)):
        assert {id(name) for name in texts} == {id(name) for name in same}
    assert one.params["recipe"] is other.params["recipe"]


def test_of_a_trial_that_has_ended_nothing_large_is_remembered(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = make()
    trials = [make_trial(seed=seed, updates=0) for seed in range(3)]
    trials[1] = replace(trials[1], stages=trials[1].stages[:2], state="failed", error="no room")
    ids = [tracker.log_trial(trial) for trial in trials]
    assert not tracker._runs._known and not {*ids} & {*mlflow_utils._artifact_repos_cache}
    with monkeypatch.context() as patch:
        for name in ("search_runs", "create_run", "log_batch", "log_text", "set_terminated", "update_run"):
            patch.setattr(tracker._client, name, lambda *_, name=name, **__: pytest.fail(f"{name} was called"))
        assert [tracker.log_trial(trial) for trial in trials] == ids, "they are shown as they are"
    wider = replace(trials[1], stages=make_trial(seed=1, updates=0).stages, state="done", error=None)
    assert tracker.log_trial(wider) == ids[1], "what has come since is added to the same run"
    assert runs(tracker, "trial")[1].info.status == "FINISHED" and len(runs(tracker, "trial")) == 3
    assert [step for step, _ in points(tracker, ids[1], "overall")] == [0, 1, 2, 3, 4, 5]


def test_a_trial_logged_stage_by_stage_over_a_restart_ends_like_one_logged_at_once(make: Any) -> None:
    trial = make_trial(updates=3)
    tracker = make()
    for reached in range(1, len(trial.stages) + 1):
        if reached == 4:
            tracker = make()
        tracker.log_trial(replace(trial, stages=trial.stages[:reached], state="partial"))
        assert runs(tracker, "trial")[0].info.status == "RUNNING"
    run_id = tracker.log_trial(trial)
    assert len(runs(tracker, "trial")) == 1
    assert [step for step, _ in points(tracker, run_id, "train/loss")] == list(range(1, 16))
    assert [step for step, _ in points(tracker, run_id, "overall")] == [0, 1, 2, 3, 4, 5]
    assert runs(tracker, "trial")[0].info.status == "FINISHED"


def test_a_crash_in_the_middle_leaves_no_double_points(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = make_trial(updates=3)
    tracker = make()

    def crash(*_: object) -> None:
        raise OSError("the server is gone")

    monkeypatch.setattr(tracker._client, "log_text", crash)  # all points are written by then, their tag is not
    with pytest.raises(OSError, match="gone"):
        tracker.log_trial(trial)
    again = make()
    run_id = again.log_trial(trial)
    assert len(points(again, run_id, "learning")) == len(SKILLS)
    assert len(runs(again, "trial")) == 1 and len(points(again, run_id, "train/loss")) == 15


def test_a_benchmark_added_later_adds_its_points_alone(make: Any) -> None:
    trial = make_trial(updates=0)
    make().log_trial(trial)
    wider = replace(trial, stages=[replace(stage, scores={**stage.scores, "ocr": 50.0}) for stage in trial.stages])
    tracker = make()
    run_id = tracker.log_trial(wider)
    assert points(tracker, run_id, "score/ocr") == [(number, 50.0) for number in range(6)]
    assert len(points(tracker, run_id, "score/colour")) == 6


def test_a_score_that_changed_is_the_one_shown(make: Any) -> None:
    trial = make_trial(updates=0)
    make().log_trial(trial)
    last = trial.stages[-1]
    lower = replace(last, scores={**last.scores, "colour": 1.25})
    tracker = make()
    tracker.log_trial(replace(trial, stages=[*trial.stages[:-1], lower]))
    assert runs(tracker, "trial")[0].data.metrics["score/colour"] == 1.25


def test_a_failed_trial_says_why_until_it_succeeds(make: Any) -> None:
    trial = make_trial(stages=1, updates=0, state="failed", error="out of memory")
    tracker = make()
    tracker.log_trial(trial)
    (run,) = runs(tracker, "trial")
    assert run.info.status == "FAILED" and run.data.tags["lmmcl.error"] == "out of memory"
    tracker = make()
    tracker.log_trial(replace(make_trial(updates=0), key=trial.key))
    (run,) = runs(tracker, "trial")
    assert run.info.status == "FINISHED" and run.data.tags["lmmcl.error"] == ""


def test_a_trial_that_its_budget_ended_is_finished_and_says_why_until_it_goes_on(make: Any) -> None:
    trial = make_trial(updates=0)
    why = Stopped(1, "held_out_forgetting", -14.1, -10.0)
    tracker = make()
    run_id = tracker.log_trial(replace(trial, stages=trial.stages[:2], state="stopped", stopped=why))
    run = tracker._client.get_run(run_id)
    assert run.info.status == "FINISHED" and run.data.tags["lmmcl.state"] == "stopped"
    assert json.loads(run.data.tags["lmmcl.stopped"]) == why.to_dict()
    assert tracker.log_trial(trial) == run_id
    run = tracker._client.get_run(run_id)
    assert run.data.tags["lmmcl.state"] == "done" and not run.data.tags["lmmcl.stopped"]


def test_a_budget_that_is_set_afterwards_leaves_no_point_beyond_the_stage_that_broke_it(make: Any) -> None:
    trial = make_trial(updates=3)
    why = Stopped(2, "held_out_forgetting", -14.1, -10.0)
    stopped = replace(trial, stages=trial.stages[:3], state="stopped", stopped=why)
    before = make().log_trial(trial)
    tracker = make()
    run_id = tracker.log_trial(stopped)
    (run,) = runs(tracker, "trial")
    assert run.info.run_id == run_id != before and run.data.tags["lmmcl.replaces"] == before
    assert run.data.metrics["learning"] == pytest.approx(trial.stages[2].measures["learning"])
    assert max(step for step, _ in points(tracker, run_id, "learning")) == 2
    assert max(step for step, _ in points(tracker, run_id, "train/loss")) == 6
    assert json.loads(run.data.tags["lmmcl.stopped"]) == why.to_dict()
    assert tracker._client.get_run(before).info.lifecycle_stage == "deleted", "in the trash: it can be restored"
    seen = everything(tracker)
    assert make().log_trial(stopped) == run_id and everything(make()) == seen
    assert make().log_trial(trial) == run_id, "without the budget it continues"
    assert max(step for step, _ in points(tracker, run_id, "learning")) == len(SKILLS)


def test_a_trial_that_was_stopped_is_not_shown_as_running(make: Any) -> None:
    tracker = make()
    tracker.log_trial(make_trial(stages=1, updates=0, state="partial"), running=False)
    assert runs(tracker, "trial")[0].info.status == "KILLED"


def test_a_parameter_is_never_logged_again_with_another_value(make: Any) -> None:
    trial = make_trial(updates=0)
    make().log_trial(trial)
    tracker = make()
    tracker.log_trial(replace(trial, axes={**trial.axes, "recipe": "renamed", "rank": 8}))
    (run,) = runs(tracker, "trial")
    assert run.data.params["recipe"] == "sa_proj" and run.data.params["rank"] == "8"


def test_the_matrix_is_a_table_that_mlflow_reads(make: Any, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # load_table asks the default store, whatever the client's
    tracker, trial = make(), make_trial(updates=0)
    run_id = tracker.log_trial(trial)
    table = tracker._client.load_table(tracker.experiment_id, "matrix.json", run_ids=[run_id])
    assert list(table["stage"]) == [0, 1, 2, 3, 4, 5]
    assert list(table["birds"]) == [stage.scores["birds"] for stage in trial.stages]


def test_the_report_has_a_run_of_its_own_apart_from_the_trials(make: Any, sweep: str, tmp_path: Path) -> None:
    tracker = make()
    (tmp_path / "page.html").write_text("one")
    assert tracker.log_report([tmp_path / "page.html"], "a note") == make().log_report(
        [tmp_path / "page.html"], "a note"
    )
    assert runs(tracker, "report") == [], "a report is in no table of trials"
    experiment = tracker._client.get_experiment_by_name("lmmcl reports")
    (run,) = tracker._client.search_runs([experiment.experiment_id], f"attributes.run_name = '{sweep}'")
    assert run.data.tags["mlflow.note.content"] == "a note"
    assert "page.html" in {each.path for each in tracker._client.list_artifacts(run.info.run_id)}


def test_numbers_that_are_not_finite_are_left_out(make: Any) -> None:
    stage = StageResult(
        0, None, "base", scores={"colour": float("nan"), "shape": 3.0}, measures={"overall": float("inf")}
    )
    tracker = make()
    tracker.log_trial(TrialResult("0a", "t", {"recipe": "full"}, ["birds"], ["colour"], [stage], "partial"))
    assert runs(tracker, "trial")[0].data.metrics == {"score/shape": 3.0}
    assert "NaN" not in matrix_table(make_trial())


def test_a_deleted_experiment_is_answered_with_the_remedy(make: Any) -> None:
    tracker = make()
    tracker._client.delete_experiment(tracker.experiment_id)
    with pytest.raises(UserError, match="mlflow experiments restore"):
        make()


def test_a_run_that_the_user_deleted_is_made_again(make: Any) -> None:
    trial = make_trial(updates=0)
    tracker = make()
    tracker._client.delete_run(tracker.log_trial(trial))
    again = make()
    run_id = again.log_trial(trial)
    assert [run.info.run_id for run in runs(again, "trial")] == [run_id]


def test_a_long_curve_is_logged_whole_within_the_limits(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = make_trial(stages=1, updates=600)
    tracker, sizes = make(), []
    log_batch = tracker._client.log_batch

    def watched(run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> Any:
        sizes.append(len(metrics) + len(params) + len(tags))
        return log_batch(run_id, metrics=metrics, params=params, tags=tags)

    monkeypatch.setattr(tracker._client, "log_batch", watched)
    tracker.log_trial(trial)
    assert max(sizes) <= 1000
    assert len(points(tracker, runs(tracker, "trial")[0].info.run_id, "train/loss")) == 600


def test_a_new_trial_takes_few_calls(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker, calls = make(), []
    for name in ("search_runs", "create_run", "log_batch", "log_text", "set_terminated", "get_metric_history"):
        method = getattr(tracker._client, name)
        watched = lambda *args, name=name, method=method, **more: (calls.append(name), method(*args, **more))[1]  # noqa: E731
        monkeypatch.setattr(tracker._client, name, watched)
    tracker.log_trial(make_trial(updates=300))
    assert calls.count("search_runs") == 1 and len(calls) <= 22


def test_batches_hold_everything_once_and_respect_every_limit() -> None:
    metrics, params, tags = list(range(2500)), list(range(230)), list(range(120))
    found = list(batches(metrics, params, tags))
    for kind, items in enumerate((metrics, params, tags)):
        assert [item for batch in found for item in batch[kind]] == items
    assert not any(t for m, _, t in found[:2]), "tags say that the metrics are there, so they come last"
    assert all(len(m) + len(p) + len(t) <= 1000 and len(p) <= 100 and len(t) <= 100 for m, p, t in found)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("score/a&b", "score/a_b"),
        ("score/../x", "score/__/x"),
        ("score//x", "score/_/x"),
        ("naïve", "na_ve"),
        ("a b:c-d.e", "a b:c-d.e"),
    ],
)
def test_names_that_mlflow_would_refuse_are_replaced(name: str, allowed: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    assert metric_name(name) == allowed
    _validate_metric_name(metric_name(name))


def test_nothing_is_printed(make: Any, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    make().log_trial(make_trial(updates=1))
    assert capfd.readouterr() == ("", "")


def test_equal_tags_are_not_written_again(make: Any) -> None:
    trial = make_trial(updates=0)
    run_id = make().log_trial(trial)
    tags = make()._client.get_run(run_id).data.tags
    assert sorted(json.loads(tags["lmmcl.stages_logged"])) == ["0", "1", "2", "3", "4", "5"]


def test_further_tags_and_tables_are_logged_with_a_trial(make: Any) -> None:
    tracker = make()
    tracker._extras = lambda trial: (
        {"lmmcl.export": "lmmcl export x"},
        {"samples.json": '{"columns": [], "data": []}'},
    )
    run_id = tracker.log_trial(make_trial(updates=2))
    tags = tracker._client.get_run(run_id).data.tags
    assert tags["lmmcl.export"] == "lmmcl export x"
    tables = {each["path"] for each in json.loads(tags["mlflow.loggedArtifacts"])}
    assert tables == {"matrix.json", "samples.json"}
    assert tables <= {each.path for each in tracker._client.list_artifacts(run_id)}


def test_a_folder_of_tables_comes_with_the_report(make: Any, tmp_path: Path) -> None:
    (tmp_path / "answers" / "images").mkdir(parents=True)
    (tmp_path / "answers" / "birds.json").write_text("{}")
    tracker = make()
    run_id = tracker.log_report([tmp_path / "answers"])
    assert {each.path for each in tracker._client.list_artifacts(run_id, "answers")} >= {"answers/birds.json"}
    tag = tracker._client.get_run(run_id).data.tags["mlflow.loggedArtifacts"]
    assert json.loads(tag) == [{"path": "answers/birds.json", "type": "table"}]


def test_the_experiment_has_a_view_of_the_trade_off_also_where_it_was_there_before(make: Any) -> None:
    tracker = make()
    tracker._client.set_experiment_tag(tracker.experiment_id, "mlflow.sharedViewState.lmmcl", "old")
    tags = make()._client.get_experiment(tracker.experiment_id).tags
    assert "held_out_forgetting" in tags["mlflow.sharedViewState.lmmcl"]


@pytest.mark.slow
def test_processes_that_make_one_database_at_once_all_get_it(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
import mlflow, alembic
from lmmcl.tracking.sqlite_file import find_experiment
from lmmcl.tracking.sweep_identity import SweepIdentity
from lmmcl.tracking.tracker import Tracker
folder = Path(sys.argv[1])
Path(folder, sys.argv[2]).touch()
while len(list(folder.glob("ready-*"))) < 3:
    time.sleep(0.005)
Tracker(f"sqlite:///{folder}/mlflow.db", "together")
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    made = [subprocess.Popen([*command, f"ready-{number}"], stderr=subprocess.PIPE, text=True) for number in range(3)]
    told = [process.communicate(timeout=200)[1] for process in made]
    assert [process.returncode for process in made] == [0, 0, 0], "\n".join(told)[-2000:]


def test_runs_are_called_by_what_sets_them_apart_and_no_two_have_one_colour(uri: str, sweep: str) -> None:
    results = make_sweep(recipes=["sa_proj", "full", "mlp"], rates=[1e-5, 1e-4], seeds=2, stages=0, updates=0)
    names = {trial.key: f"{trial.name} · tiny-onevision" for trial in results.trials}
    tracker = Tracker(uri, SweepIdentity(sweep, "a.yaml", names))
    for trial in results.trials:
        tracker.log_trial(replace(trial, name=names[trial.key]))
    found = runs(tracker, "trial")
    assert {run.info.run_name for run in found} == {trial.name for trial in results.trials}
    assert len({run.data.tags["mlflow.runColor"] for run in found}) == len(found) == 12
    assert {run.data.tags["lmmcl.trial"] for run in found} == set(names.values())


def test_name_and_colour_that_a_person_chose_stay_and_ours_follow_the_sweep(uri: str, sweep: str) -> None:
    ours, theirs = make_trial(stages=0), make_trial("full", stages=0)
    names = {each.key: f"{each.name} · tiny-onevision" for each in (ours, theirs)}
    trials = [replace(each, name=names[each.key]) for each in (ours, theirs)]
    tracker = Tracker(uri, SweepIdentity(sweep, "a.yaml", names))
    ids = [tracker.log_trial(trial) for trial in trials]
    tracker._client.update_run(ids[1], name="my favourite")
    tracker._client.set_tag(ids[1], "mlflow.runColor", "#123456")
    wider = {"first": "mlp · lr 1e-05 · s0 · tiny-next", **names}
    again = Tracker(uri, SweepIdentity(sweep, "a.yaml", wider))
    assert [again.log_trial(trial) for trial in trials] == ids
    mine, chosen = (again._client.get_run(each) for each in ids)
    assert mine.info.run_name == "sa_proj · tiny-onevision" and chosen.info.run_name == "my favourite"
    assert chosen.data.tags["mlflow.runColor"] == "#123456"
    assert mine.data.tags["mlflow.runColor"] == mine.data.tags["lmmcl.colour"]


def test_another_sweep_of_the_name_gets_an_experiment_of_its_own(uri: str, sweep: str) -> None:
    def log(origin: str, *rates: float) -> Tracker:
        trials = [make_trial(rate=rate, stages=0) for rate in rates]
        tracker = Tracker(uri, SweepIdentity(sweep, origin, {trial.key: trial.name for trial in trials}))
        for trial in trials:
            tracker.log_trial(trial)
        return tracker

    first = log("/a/sweep.yaml", 1e-5)
    assert first.experiment == sweep
    assert log("/a/sweep.yaml", 3e-5).experiment == sweep, "edited through and through"
    assert log("/moved/sweep.yaml", 3e-5, 1e-4).experiment == sweep, "moved and extended"
    other = log("/b/sweep.yaml", 5e-6)
    assert other.experiment == f"{sweep}-2" and len(runs(other, "trial")) == 1
    assert log("/b/sweep.yaml", 5e-6).experiment_id == other.experiment_id
    found_again = find_experiment(Path(uri.removeprefix("sqlite:///")), SweepIdentity(sweep, "/b/sweep.yaml"))
    assert found_again == (other.experiment_id, other.experiment)
    assert log("/c/sweep.yaml", 7e-6).experiment == f"{sweep}-3"
    assert log("", 8e-6).experiment == sweep, "of an unknown file the name decides"
    assert first.log_report([]) != other.log_report([])


def test_a_note_that_a_person_wrote_stays_and_ours_comes_to_link_the_comparison_and_the_report(make: Any) -> None:
    tracker = make()
    for recipe in ("sa_proj", "full"):
        tracker.log_trial(make_trial(recipe, stages=0))
    report = tracker.log_report([])
    note = make()._client.get_experiment(tracker.experiment_id).tags["mlflow.note.content"]
    assert f"/runs/{report}/artifacts" in note and len(note) < 5000
    assert all(run.info.run_id in note.partition("compare-runs")[2] for run in runs(tracker, "trial"))
    tracker._client.set_experiment_tag(tracker.experiment_id, "mlflow.note.content", "mine")
    make().log_report([])
    assert make()._client.get_experiment(tracker.experiment_id).tags["mlflow.note.content"] == "mine"


def test_a_server_whose_pages_nobody_looked_at_gets_no_view_and_a_link_without_it(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmmcl.tracking.tracker.are_views_supported", lambda uri: False)
    tracker = make()
    tags = tracker._client.get_experiment(tracker.experiment_id).tags
    assert "mlflow.sharedViewState.lmmcl" not in tags and "viewStateShareKey" not in tags["mlflow.note.content"]
    assert "orderByKey=metrics.%60held_out_forgetting%60" in tracker.address
