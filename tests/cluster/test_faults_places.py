"""The places of a sweep are taken away: worker nodes, the head, and the servers that it writes to."""

from __future__ import annotations

import http.server
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from chaos import EVERY, Table, Victim, chance
from processes import Command
from s3 import s3_server

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(1800)]

ON_NODES = f"driver: {{resources: {{head: 0.001}}}}\ntraining: {{save_every: {EVERY}, max_failures: 0}}\n"


@contextmanager
def two_nodes(patch: pytest.MonkeyPatch) -> Iterator[tuple[Any, list[Any]]]:
    """A head that computes nothing and two nodes that do; RAY_ADDRESS is its address."""
    from ray.cluster_utils import Cluster

    patch.setenv("RAY_AUTH_MODE", "disabled")
    patch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")  # how long nodes look for a head that is gone
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "resources": {"head": 10}})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        patch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster, nodes
    finally:
        cluster.shutdown()


def midway(victim: Victim, command: Command) -> int:
    """A process that trains, past a checkpoint; waited for."""
    end = time.monotonic() + 400
    while time.monotonic() < end:
        assert command.process.poll() is None, command.output
        for process in {int(attempt.split("-")[0]) for _, attempt, update in victim.diary() if update >= EVERY}:
            if victim.is_midway(process, EVERY) and Path(f"/proc/{process}").exists():
                return process
        time.sleep(0.1)
    raise AssertionError(command.output)


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])


def test_nodes_may_leave_a_cluster(
    tmp_path: Path, undisturbed: dict[str, list[float]], table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = chance("nodes")
    with two_nodes(monkeypatch) as (cluster, nodes):
        victim = Victim(tmp_path, cluster=ON_NODES)
        command = victim.start()
        for _ in range(2):
            raylet = parent_of(midway(victim, command))
            node = next(node for node in nodes if node.all_processes["raylet"][0].process.pid == raylet)
            nodes.remove(node)
            cluster.remove_node(node, allow_graceful=False)
            nodes.append(cluster.add_node(num_cpus=1))
            time.sleep(draw.uniform(3, 8))
        outcome = victim.ends_well(command, undisturbed)
    assert len(victim.made_again()) >= 2, "each lost a stage in training"
    table.add("worker node", "removed mid-stage (its raylet and processes killed), another added", 2, outcome)


def test_a_head_may_be_lost_and_the_job_sent_to_another(
    tmp_path: Path, undisturbed: dict[str, list[float]], table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    with two_nodes(monkeypatch) as (cluster, _):
        victim = Victim(tmp_path, cluster=ON_NODES)
        command = victim.start()
        midway(victim, command)
        time.sleep(chance("head").uniform(0, 1))
        assert not victim.is_done()
        cluster.remove_node(cluster.head_node, allow_graceful=False)
        command.process.kill()  # it ran there
        command.wait()
        with two_nodes(monkeypatch):  # while nodes of the one before may still train
            outcome = victim.ends_well(victim.start(), undisturbed)
    table.add("head of a cluster", "its processes killed; the same command to a new cluster", 1, outcome)


class Line:
    """The way to a server, which can be cut: nothing is answered then, and connections are closed."""

    def __init__(self) -> None:
        self.is_cut = False
        self.refused = 0

    def through(self, application: Any) -> Any:
        def serve(environment: dict[str, Any], start: Any) -> Any:
            if not self.is_cut:
                return application(environment, start)
            self.refused += 1
            with suppress(OSError):
                environment["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError("cut")

        return serve

    def cut_for(self, seconds: float) -> None:
        """So long from the moment on when somebody wants something."""
        before, end = self.refused, time.monotonic() + 200
        self.is_cut = True
        while self.refused == before:
            assert time.monotonic() < end, "nobody wanted anything"
            time.sleep(0.05)
        time.sleep(seconds)
        self.is_cut = False


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Line]]:
    """An S3 server and the line to it."""
    module = pytest.importorskip("moto.moto_server.threaded_moto_server")
    make, line = module.make_server, Line()
    monkeypatch.setattr(
        module,
        "make_server",
        lambda host, port, app, *more, **named: make(host, port, line.through(app), *more, **named),
    )
    with s3_server() as uri:
        yield uri, line


def test_a_store_that_is_out_of_reach_for_a_while_is_waited_for(
    tmp_path: Path, undisturbed: dict[str, list[float]], table: Table, bucket: tuple[str, Line]
) -> None:
    draw = chance("store")
    uri, line = bucket
    victim = Victim(tmp_path, store=f"{uri}/{draw.randrange(10**9)}-{os.getpid()}")
    try:
        command, struck = victim.start(), 0
        for part in ("worker", "evaluation", "worker"):
            struck += victim.strike(
                command, part, lambda _: line.cut_for(draw.uniform(5, 20)), delay=draw.uniform(0, 3)
            )
            time.sleep(draw.uniform(0, 5))
        assert struck >= 2, command.output
        outcome = victim.ends_well(command, undisturbed, interval=0)
    finally:
        shutil.rmtree(victim.ledger.node.folder, ignore_errors=True)
    begun = [key for key, _, update in victim.diary() if not update]
    assert sorted(begun) == sorted(victim.sweep.steps), "nothing was begun twice"
    table.add("store (S3)", "answers nothing for 5 to 20 seconds", struck, f"{outcome}; no step begun again")


def test_an_mlflow_server_that_goes_away_ends_no_sweep(
    tmp_path: Path, undisturbed: dict[str, list[float]], table: Table
) -> None:
    class Healthy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 503)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Healthy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    victim = Victim(tmp_path)
    command = victim.start(mlflow=f"http://127.0.0.1:{server.server_port}")

    def unplug(_: int) -> None:
        server.shutdown()
        server.server_close()

    assert victim.strike(command, "worker", unplug, delay=1)
    outcome = victim.ends_well(command, undisturbed)
    assert "no result is lost" in command.output, command.output
    table.add(
        "MLflow server", "refuses, then is gone", 1, f"{outcome}; told at the end, with the command that fills it"
    )
