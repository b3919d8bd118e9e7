"""A sweep on a cluster that starts with no worker: it grows for the grid, loses a node, finishes, and shrinks to nothing."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos import EVERY, Table, Victim

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(1800)]

RAY = str(Path(sys.executable).with_name("ray"))
HEAD = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
CLUSTER = f"""
driver: {{resources: {{head: 0.001}}}}
training: {{cpus_per_worker: 1, resources_per_worker: {{accel: 1}}, save_every: {EVERY}, max_failures: 0}}
evaluation: {{cpus: 1}}
"""
NODE_ID = "RAY_OVERRIDE_NODE_ID_FOR_TESTING="


def config(gcs: str) -> dict:
    """What `ray up` would be given, of a provider whose nodes are processes of this machine."""
    return {
        "cluster_name": "made",
        "max_workers": 2,
        "upscaling_speed": 10,
        "idle_timeout_minutes": 0.25,
        "provider": {
            "type": "external",
            "module": PROVIDER,
            "launch_multiple": True,
            "head_node_id": HEAD,
            "gcs_address": gcs,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0, "head": 1}, "node_config": {}, "max_workers": 0},
            "gpu_spot": {
                "resources": {"CPU": 2, "accel": 1},
                "node_config": {},
                "min_workers": 0,
                "max_workers": 2,
            },
        },
        "head_node_type": "ray.head.default",
        "auth": {"ssh_user": "nobody"},
        "docker": {},
        **{name: [] for name in ("initialization_commands", "setup_commands", "head_setup_commands")},
        **{name: [] for name in ("worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands")},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
    }


def processes(mark: str) -> Iterator[tuple[int, str, str]]:
    """Process id, fake node id and title of all that carry `mark` in their environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
            if any(mark in line for line in environment):
                node = next((line.removeprefix(NODE_ID) for line in environment if line.startswith(NODE_ID)), "")
                yield int(folder.name), node, (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A head with Ray's autoscaler over made-up nodes; yields the mark of its processes. RAY_ADDRESS is its address."""
    from ray.util import get_node_ip_address

    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    gcs = f"{get_node_ip_address()}:{port}"
    (tmp_path / "autoscaler.yaml").write_text(json.dumps(config(gcs)))
    mark = secrets.token_hex(16)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    environment = {
        **os.environ,
        "LMMCL_TEST_HEAD": mark,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    words = ["--head", f"--port={port}", "--num-cpus=0", '--resources={"head": 1}', "--dashboard-port=0"]
    words += ["--include-dashboard=true", f"--autoscaling-config={tmp_path / 'autoscaler.yaml'}"]
    subprocess.run([RAY, "start", *words], env=environment, check=True, capture_output=True, timeout=240)
    monkeypatch.setenv("RAY_ADDRESS", gcs)
    yield mark
    for process, _, _ in processes(mark):  # `ray stop` would also stop clusters that are not ours
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def workers(mark: str) -> set[str]:
    """Ids of the worker nodes whose raylet runs."""
    return {node for _, node, title in processes(mark) if node and node != HEAD and "/raylet/raylet " in title}


def test_a_cluster_grows_for_a_grid_loses_a_node_and_shrinks_to_nothing(
    head: str, tmp_path: Path, undisturbed: dict[str, list[float]], table: Table
) -> None:
    assert not workers(head), "it starts with no worker"
    victim = Victim(tmp_path, cluster=CLUSTER)
    command = victim.start()
    most, lost, seen, end = 0, "", set[str](), time.monotonic() + 900
    while command.process.poll() is None:
        assert time.monotonic() < end, command.output
        now = workers(head)
        most, seen = max(most, len(now)), seen | now
        if not lost and len(now) == 2 and victim.training_saved():
            key = next((victim.store / "runs").glob("*/checkpoint-*/trainer_state.json")).parents[1].name
            [place] = (victim.store / ".partial").glob(f"{key}-*")
            trainer = int(place.name.rsplit("-", 2)[1])
            lost = next(node for process, node, _ in processes(head) if process == trainer)
            for process, node, _ in processes(head):
                if node == lost:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
        time.sleep(0.2)
    assert most == 2, f"at most {most} workers"
    assert lost, "no node was lost mid-stage"
    assert len(seen) >= 3, f"none in the place of {lost}: {seen}"
    outcome = victim.ends_well(command, undisturbed)
    assert victim.made_again(), "the stage that trained there continued elsewhere"
    table.add(
        "node of an autoscaling cluster",
        "its processes killed mid-stage; another comes; at last none is left",
        1,
        outcome,
    )
    end = time.monotonic() + 180
    while left := workers(head):
        assert time.monotonic() < end, f"still there: {left}"
        time.sleep(1)
