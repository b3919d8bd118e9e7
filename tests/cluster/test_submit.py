"""A sweep as a job: what is sent, what is refused before it is sent, and a job that is stopped and sent again."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from made import SWEEP, write_sweep

from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.runner.submit import Submission, make_submission
from lmmcl.runner.tune import ray_address
from lmmcl.spec.cluster import Cluster, load_cluster
from lmmcl.spec.sweep import load_sweep

LMMCL = [sys.executable, "-c", "from lmmcl.cli import main; main()"]
RAY = str(Path(sys.executable).with_name("ray"))


def made(folder: Path, **more: object) -> Submission:
    sweep = load_sweep(write_sweep(folder))
    given = {"working_dir": folder, "cluster_file": None, "store": "s3://bucket/lmmcl", **more}
    return make_submission(sweep, Cluster(), **given)  # type: ignore[arg-type]


def test_a_job_is_the_command_that_a_person_would_type(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text("ray: {address: auto}\n")
    job = made(tmp_path, cluster_file=tmp_path / "node.yaml", set_=["training.epochs=2"], environment=["A=b c"])
    assert job.entrypoint == (
        "lmmcl run small.yaml --cluster node.yaml --store s3://bucket/lmmcl --set training.epochs=2"
    )
    assert job.runtime_env["working_dir"] == str(tmp_path)
    assert job.runtime_env["env_vars"] == {"A": "b c"}
    assert "lmmcl-store" in job.runtime_env["excludes"]
    assert job.metadata["lmmcl.sweep"] == "small"


def test_more_of_the_runtime_environment_comes_from_a_file(tmp_path: Path) -> None:
    more = tmp_path / "env.yaml"
    more.write_text(yaml.safe_dump({"pip": ["mine"], "env_vars": {"A": "file", "B": "file"}}))
    env = made(tmp_path, runtime_env=more, environment=["A=line"]).runtime_env
    assert env["pip"] == ["mine"]
    assert env["env_vars"] == {"A": "line", "B": "file"}


def test_what_would_not_reach_the_cluster_or_last_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the folder that is sent"):
        made(tmp_path, working_dir=tmp_path / "elsewhere")
    for store in (None, "lmmcl-store"):
        with pytest.raises(UserError, match="a store that all nodes can write"):
            made(tmp_path, store=store)
    with pytest.raises(UserError, match="NAME=VALUE"):
        made(tmp_path, environment=["NAME"])


def test_inside_a_job_the_running_cluster_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert ray_address(load_cluster(None)) == "local"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert ray_address(load_cluster(None)) == "10.0.0.1:6379"
    assert ray_address(Cluster.model_validate({"ray": {"address": "auto"}})) == "auto"


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """A head of our own with token authentication: its address, and the environment that may talk to it."""
    port, dashboard, agent = free_ports(3)
    folder = tmp_path_factory.mktemp("ray")
    mark = secrets.token_hex(16)
    environment = {
        **os.environ,
        "LMMCL_TEST_MARK": mark,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_JOB_STOP_WAIT_TIME_S": "30",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    words = ["--head", f"--port={port}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    words += ["--num-cpus=2", '--resources={"head": 1}', f"--temp-dir={folder}", "--include-dashboard=true", "--block"]
    with (folder / "head.log").open("w") as log:
        started = subprocess.Popen(
            [RAY, "start", *words], env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    address = f"http://127.0.0.1:{dashboard}"
    end = time.monotonic() + 120
    while subprocess.run([RAY, "job", "list", "--address", address], env=environment, capture_output=True).returncode:
        assert started.poll() is None and time.monotonic() < end, (folder / "head.log").read_text()
        time.sleep(1)
    yield address, environment
    started.send_signal(signal.SIGTERM)  # `ray stop` would also stop clusters that are not ours
    with contextlib.suppress(subprocess.TimeoutExpired):
        started.wait(20)
    for process in marked(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def marked(mark: str) -> list[int]:
    """Processes with a mark in their environment: those that we started, and theirs."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_that_is_stopped_and_sent_again_finishes(head: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    address, environment = head
    write_sweep(
        tmp_path,
        SWEEP.replace("learning_rate: [1.0e-3, 3.0e-4]", "learning_rate: [1.0e-3]").replace(
            "examples: 64", "examples: 640"
        ),
    )
    (tmp_path / "node.yaml").write_text("driver: {resources: {head: 0.001}}\n")
    store = tmp_path / "store"
    words = [
        "submit",
        "small.yaml",
        "--address",
        address,
        "--cluster",
        "node.yaml",
        "--store",
        str(store),
        "--mlflow",
        "off",
    ]

    def submit(*more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*LMMCL, *words, *more],
            cwd=tmp_path,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    wrong = subprocess.run(
        [*LMMCL, *words], cwd=tmp_path, env={**environment, "RAY_AUTH_TOKEN": "0" * 64}, text=True, capture_output=True
    )
    assert wrong.returncode == 2 and "RAY_AUTH_TOKEN" in wrong.stderr, wrong.stderr

    first = submit()
    ledger, end = Ledger(str(store)), time.monotonic() + 240
    while len(ledger.paths()) < 2:
        assert first.poll() is None and time.monotonic() < end, first.communicate()[0]
        time.sleep(0.5)
    assert first.stdout is not None
    job = next(found[1] for line in first.stdout if (found := re.match(r"job (\S+):", line)))
    subprocess.run([RAY, "job", "stop", "--address", address, job], env=environment, check=True, capture_output=True)
    output = first.communicate(timeout=120)[0]
    assert first.returncode == 130, output
    assert "goes on from there" in output, "it ended by itself, at the signal"
    finished = {path: (store / path / "record.json").stat().st_mtime_ns for path in ledger.paths()}
    assert any(ledger.find(step) is None for step in load_sweep(tmp_path / "small.yaml").steps.values())

    second = submit()
    output = second.communicate(timeout=300)[0]
    assert second.returncode == 0, output
    assert all(ledger.find(step) for step in load_sweep(tmp_path / "small.yaml").steps.values())
    assert {path: (store / path / "record.json").stat().st_mtime_ns for path in finished} == finished
