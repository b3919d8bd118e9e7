"""A real MLflow server is killed while a sweep logs to it, and comes back: the sweep never waits, nothing is lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from synthetic_results import make_trial

from lmmcl.back_off import BackOff
from lmmcl.tracking.background import BackgroundTracker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def start(uri: str, port: int) -> subprocess.Popen[bytes]:
    command = ["server", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        start_new_session=True,
    )
    wait(lambda: answers(port))
    return server


def kill(server: subprocess.Popen[bytes]) -> None:
    """The command and the server, which is a child of it."""
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


def wait(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)


def test_a_server_that_is_killed_and_comes_back_has_everything_in_the_end(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    server = start(uri, port)
    tracker = BackgroundTracker(
        f"http://127.0.0.1:{port}", "mortal", (tmp_path / "artifacts").as_uri(), pauses=BackOff(0.2)
    )
    client = MlflowClient(uri)

    def stages(key: str) -> int:
        found = client.get_experiment_by_name("mortal")
        runs = client.search_runs([found.experiment_id], f"tags.`lmmcl.trial_key` = '{key}'") if found else []
        top = [run for run in runs if run.data.tags["lmmcl.kind"] == "trial" and "score/birds" in run.data.metrics]
        return len(client.get_metric_history(top[0].info.run_id, "score/birds")) if top else 0

    try:
        tracker.put(make_trial(key="a", stages=1, updates=2, state="partial"))
        wait(lambda: stages("a") == 2)
        kill(server)
        assert not answers(port)
        before = time.monotonic()
        for key in ("a", "b", "c"):
            tracker.put(make_trial(key=key, stages=3, updates=2))
        assert time.monotonic() - before < 1, "the sweep does not wait for a server that is gone"
        assert stages("a") == 2, "nothing but freshness is lost"
        server = start(uri, port)
        wait(lambda: [stages(key) for key in ("a", "b", "c")] == [4, 4, 4])
        end = tracker.close(120)
    finally:
        kill(server)
    assert (end.trials, end.undelivered) == (3, 0)
