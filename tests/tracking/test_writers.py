"""Trackers beside MLflow: one axis of updates, written whole again, nothing twice, and errors that reach the user."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from lmmcl.errors import UserError
from lmmcl.reports.results import StageResult, TrialResult
from lmmcl.tracking.background import BackgroundTracker, BackgroundTrackers
from lmmcl.tracking.destinations import WriterProcess
from lmmcl.tracking.run_documents import run_document

BASE = StageResult(0, None, "k0", scores={"colour": 80.0})


def curve(*losses: float) -> list[dict[str, float]]:
    return [{"update": n, "loss": loss, "updates_per_second": 9.0} for n, loss in enumerate(losses, start=1)]


FIRST = StageResult(
    1, "birds", "k1", scores={"colour": 60.0}, measures={"held_out_forgetting": -20.0}, curve=curve(2.0, 1.0)
)
SECOND = StageResult(2, "clock", "k2", scores={"colour": 50.0}, curve=curve(3.0, float("nan")))


def trial(*stages: StageResult, state: str = "done") -> TrialResult:
    axes = {"model": "tiny", "learning_rate": 1e-3}
    return TrialResult("abcdef0123456789", "sa_proj · lr 1e-3", axes, ["birds", "clock"], ["colour"], stages, state)  # type: ignore[arg-type]


def test_curves_and_stages_lie_on_one_axis_of_updates_that_only_grows() -> None:
    document = run_document(trial(BASE, FIRST, SECOND), "s")
    rows = dict(document["rows"])
    assert [update for update, _ in document["rows"]] == [0, 1, 2, 3, 4]
    assert rows[0] == {"score/colour": 80.0, "stage": 0.0}
    assert rows[2] == {"train/loss": 1.0, "score/colour": 60.0, "held_out_forgetting": -20.0, "stage": 1.0}
    assert rows[3] == {"train/loss": 3.0}
    assert rows[4] == {"score/colour": 50.0, "stage": 2.0}, "no NaN"
    assert document["config"]["learning_rate"] == "0.001" and document["summary"] == {"score/colour": 50.0}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard's own reader finds in a trial's folder."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@pytest.fixture
def tensorboard(tmp_path: Path) -> WriterProcess:
    pytest.importorskip("tensorboardX")
    return WriterProcess("tensorboard", "s", tmp_path / "logs")


def test_tensorboard_gets_a_trial_whole_and_nothing_twice(tensorboard: WriterProcess, tmp_path: Path) -> None:
    tensorboard.log_trial(trial(BASE, FIRST, state="partial"))
    tensorboard.log_trial(trial(BASE, FIRST, SECOND))
    tensorboard.close()
    (folder,) = (tmp_path / "logs").iterdir()
    assert folder.name == "sa_proj_lr_1e-3-abcdef01"
    assert len(list(folder.glob("events*"))) == 1
    assert list(folder.glob("settings/events*")), "the row of the HPARAMS page"
    found = scalars(folder)
    assert found["score/colour"] == [(0, 80.0), (2, 60.0), (4, 50.0)]
    assert found["train/loss"] == [(1, 2.0), (2, 1.0), (3, 3.0)]


def test_what_a_library_refuses_is_told_in_its_words_and_the_next_trial_goes_through(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    (tmp_path / "logs").write_text("a file")
    writer = WriterProcess("tensorboard", "s", tmp_path / "logs")
    with pytest.raises(UserError, match=r"tensorboard: (FileExistsError|NotADirectoryError)"):
        writer.log_trial(trial(BASE))
    (tmp_path / "logs").unlink()
    assert writer.log_trial(trial(BASE)) == "abcdef0123456789"
    writer.close()


def test_a_process_that_has_ended_is_told() -> None:
    writer = WriterProcess("no such writer", "s", Path("nowhere"))
    writer._process.kill()
    writer._process.wait()
    with pytest.raises(UserError, match="ended with exit code"):
        writer.log_trial(trial(BASE))


def test_what_does_not_arrive_is_told_with_the_command_that_fills_it(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    (tmp_path / "logs").write_text("a file")
    started: list[WriterProcess] = []

    def connect(uri: str, sweep: str, artifacts: str | None) -> WriterProcess:
        started.append(WriterProcess("tensorboard", sweep, tmp_path / "logs"))
        return started[-1]

    beside = BackgroundTracker("tensorboard", "s", connect=connect, tracker="tensorboard")
    trackers = BackgroundTrackers([beside])
    assert not trackers.with_mlflow
    trackers.put(trial(BASE))
    (delivery,) = trackers.close(report=[])
    assert started and all(writer._process.poll() == 0 for writer in started), "no process is left"
    told = delivery.message("s.yaml --store st") or ""
    assert told.startswith("tensorboard did not accept 1 of 1 trial (tensorboard: ")
    assert told.endswith("to fill tensorboard later: lmmcl report s.yaml --store st --tracking tensorboard")


def test_trackio_gets_a_trial_whole_and_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    writer = WriterProcess("trackio", "s", tmp_path)
    writer.log_trial(trial(BASE, FIRST, state="partial"))
    writer.log_trial(trial(BASE, FIRST, SECOND))
    writer.close()
    (database,) = (tmp_path / "trackio").glob("s*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("select distinct run_name, step from metrics order by step").fetchall()
        (count,) = connection.execute("select count(*) from metrics").fetchone()
    assert rows == [("sa_proj · lr 1e-3", step) for step in range(5)] and count == 5


def test_wandb_keeps_an_offline_run_for_each_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    writer = WriterProcess("wandb", "s", tmp_path / "wb")
    writer.log_trial(trial(BASE, FIRST, SECOND))
    writer.close()
    (run,) = (tmp_path / "wb" / "wandb").glob("offline-run-*-abcdef0123456789")
    assert list(run.glob("*.wandb"))
