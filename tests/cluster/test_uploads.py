"""Weights on their way to an object store hold no accelerator: the next stage trains meanwhile, and a record still means done."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made import write_sweep
from s3 import s3_server

from lmmcl.config.sweep import load_sweep
from lmmcl.inspection.audit import check_store
from lmmcl.ledger import Ledger
from lmmcl.ledger.record import Record
from lmmcl.steps import Finetune

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

UPLOAD_SECONDS = 30.0
TWO_TRIALS = """
name: small
orders:
  main: [counting]
benchmarks: {held_out: []}
training: {max_steps: 2, examples: 16, global_batch_size: 8, precision: fp32}
evaluation: {precision: fp32, limit: 4}
grids:
  - {model: [tiny-onevision], recipe: [sa_proj], learning_rate: [1.0e-3, 3.0e-4]}
"""
ONE_ACCELERATOR = """
ray: {{cpus: 2, resources: {{accel: 1}}}}
training: {{workers: {workers}, cpus_per_worker: 0.5, resources_per_worker: {{accel: 1}}}}
evaluation: {{cpus: 0.5}}
"""


@pytest.fixture
def slow_uploads(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, tuple[float, float]]]]:
    """A bucket to which weights take their time, and from when to when each was on its way."""
    uploads: dict[str, tuple[float, float]] = {}
    module = pytest.importorskip("moto.moto_server.threaded_moto_server")
    make = module.make_server

    def slow(application: Any) -> Any:
        def serve(environment: dict[str, Any], start: Any) -> Any:
            path = environment["PATH_INFO"]
            if environment["REQUEST_METHOD"] != "PUT" or not path.endswith("delta.safetensors"):
                return application(environment, start)
            begun = time.time()
            time.sleep(UPLOAD_SECONDS)
            answer = application(environment, start)
            uploads[path] = (begun, time.time())
            return answer

        return serve

    def make_slow(host: str, port: int, app: Any, *more: Any, **named: Any) -> Any:
        return make(host, port, slow(app), *more, **named)

    monkeypatch.setattr(module, "make_server", make_slow)
    patience = {
        "config_kwargs": {"read_timeout": 10 * UPLOAD_SECONDS}
    }  # of the client, which tries again after 15 seconds
    monkeypatch.setenv("FSSPEC_S3", json.dumps(patience))
    with s3_server() as uri:
        yield uri, uploads


@pytest.mark.parametrize("workers", [0, 1], ids=["in the task", "in a worker group"])
def test_a_stage_trains_while_the_weights_of_another_are_uploaded(
    workers: int, slow_uploads: Any, tmp_path: Path
) -> None:
    bucket, uploads = slow_uploads
    sweep, ledger = write_sweep(tmp_path, TWO_TRIALS), Ledger(f"{bucket}/{tmp_path.name}")
    (tmp_path / "one.yaml").write_text(ONE_ACCELERATOR.format(workers=workers))
    command = [sys.executable, "-m", "lmmcl", "run", "small.yaml", "--store", ledger.store, "--cluster", "one.yaml"]
    run = subprocess.run([*command, "--mlflow", "off"], cwd=tmp_path, capture_output=True, text=True, timeout=800)
    assert run.returncode == 0, run.stdout + run.stderr
    assert len(uploads) == 2, "each delta went over the network once"
    stages = [step for step in load_sweep(sweep).steps.values() if isinstance(step, Finetune)]
    for step in stages:
        (begun,) = (begun for path, (begun, _) in uploads.items() if step.key in path)
        assert _times(ledger.find(step))[1] <= begun, "who trained it, and held the accelerator, had ended"
    _, second = sorted(_times(ledger.find(step)) for step in stages)
    begun, ended = min(uploads.values())
    print(f"\nupload {ended - begun:.1f} s; the next stage began {ended - second[0]:+.1f} s before its end")
    assert second[0] < ended, "the next stage waited for the network"
    assert check_store(ledger).damages == []


def _times(record: Record | None) -> tuple[float, float]:
    assert record is not None
    return record["provenance"]["started"], record["provenance"]["finished"]
