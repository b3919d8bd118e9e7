"""What drivers report passes Tune as one text: Tune keeps a history of each number, and the last result of each trial."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made import made_trial
from ray import cloudpickle, tune
from ray.tune.trainable import wrap_function

from lmmcl.runner.ray_backend import listed_trials
from lmmcl.runner.ray_backend import tune as module
from lmmcl.runner.ray_backend.listed_trials import ListedTrials
from lmmcl.runner.ray_backend.searcher import REPORT, AshaOnTune
from lmmcl.runner.ray_backend.tune import ReporterCallback

TRIAL = made_trial()
REPORTED = {"stage": 1, "learning": 12.5, "stopped": {"stage": 1}}


class Heard:
    """A watcher that keeps what it gets."""

    def __init__(self) -> None:
        self.stages: list[dict[str, Any]] = []
        self.failures: list[tuple[str, str]] = []

    def stage_done(self, trial: Any, report: dict[str, Any]) -> None:
        self.stages.append(report)

    def trial_failed(self, trial: Any, why: str, details: str) -> None:
        self.failures.append((why, details))


def callback(heard: Heard) -> ReporterCallback:
    watcher: Any = heard
    return ReporterCallback({TRIAL.key: TRIAL}, None, watcher, None)


def tunes(**more: Any) -> SimpleNamespace:
    return SimpleNamespace(config={"trial": TRIAL.key}, **more)


def test_a_report_reaches_the_watcher_whole_and_tune_keeps_nothing_of_it() -> None:
    heard, by_tune = Heard(), {"time_total_s": 1.5, "done": False, "node_ip": "10.0.0.1", "pid": 7}
    result = {REPORT: json.dumps(REPORTED), **by_tune}
    callback(heard).on_trial_result(1, [], tunes(), result)
    assert heard.stages == [REPORTED]
    assert result == {REPORT: ""}


def test_what_ended_a_trial_reaches_the_watcher(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no room")

    listed: Any = SimpleNamespace(get=fail)
    monkeypatch.setattr(module.tune, "report", sent.append)
    module._drive({"trial": TRIAL.key}, listed, [], None, True)
    assert not any(isinstance(value, (int, float)) for value in sent[0].values())
    heard = Heard()
    callback(heard).on_trial_result(1, [], tunes(), sent[0])
    ((why, details),) = heard.failures
    assert "no room" in why and "Traceback" in details


def test_a_driver_reads_one_part_of_the_listed_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [made_trial(seed=seed) for seed in range(12)]
    monkeypatch.setattr(listed_trials, "PART", 4)
    parts: list[Any] = []
    read: list[int] = []

    def put(part: Any) -> int:
        parts.append(part)
        return len(parts) - 1

    def get(reference: int) -> Any:
        read.append(reference)
        return parts[reference]

    monkeypatch.setattr(listed_trials, "ray", SimpleNamespace(put=put, get=get))
    listed = ListedTrials(trials)
    assert len(parts) == 4 and sum(map(len, parts)) == 12
    walked: list[Any] = []
    monkeypatch.setattr(module, "run_trial", lambda trial, *_, **__: walked.append(trial))
    for trial in trials:
        module._drive({"trial": trial.key}, listed, [], None, True)
    assert [trial.key for trial in walked] == [trial.key for trial in trials]
    assert len(read) == 12, "one part for each"


def test_the_scheduler_reads_the_same_report() -> None:
    seen: list[Any] = []
    halving: Any = SimpleNamespace(decide=lambda trial, report: seen.append(report))
    scheduler = AshaOnTune(halving, {TRIAL.key: TRIAL})
    for result in ({REPORT: json.dumps(REPORTED)}, {REPORT: json.dumps({"failed": "no"})}, {"done": True}):
        assert scheduler.on_trial_result(None, tunes(), result) == "CONTINUE"
    assert seen == [REPORTED]


def test_all_trials_share_one_request_for_resources() -> None:
    registered = wrap_function(
        tune.with_resources(lambda config: None, module._request_for({"CPU": 0.0, "place": 2.0}))
    )
    copies = [cloudpickle.loads(cloudpickle.dumps(registered)) for _ in range(2)]  # as Tune reads it for each trial
    one, other = (copy.default_resource_request({"trial": "a"}) for copy in copies)
    assert one is other and one == tune.PlacementGroupFactory([{"CPU": 0.0, "place": 2.0}])


def test_tune_keeps_no_answer_of_an_actor_for_an_ended_trial(tmp_path: Path) -> None:
    trial = tunes(local_path=str(tmp_path / "never"), _default_result_or_future=object())
    callback(Heard()).on_trial_complete(1, [], trial)
    assert trial._default_result_or_future is None


def test_the_folder_of_an_ended_trial_goes(tmp_path: Path) -> None:
    empty, used = tmp_path / "empty", tmp_path / "used"
    for folder in (empty, used):
        folder.mkdir()
    (used / "result.json").touch()
    for folder in (empty, used, tmp_path / "never"):
        callback(Heard()).on_trial_complete(1, [], tunes(local_path=str(folder)))
    assert list(tmp_path.iterdir()) == [used]
