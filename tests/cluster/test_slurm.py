"""The Slurm script, run as it is: what Slurm would do on two nodes is done by a program of two lines on this one."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from made import SWEEP, write_sweep
from ray_head import ROOT, Begun, ended, environment, free_ports

from lmmcl.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

SRUN = """#!/usr/bin/env bash
while [[ "$1" == --* ]]; do shift; done
exec "$@"
"""


@contextlib.contextmanager
def job(tmp_path: Path, temporary: Path, *words: str | Path) -> Iterator[Begun]:
    """The script as a job with two nodes of one core each; afterwards its nodes are cleaned, as Slurm does."""
    mark = secrets.token_hex(16)
    of_job = {"SLURMD_NODENAME": "here", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "1"}
    made = environment(mark, **of_job, RAY_PORT=str(free_ports(1)[0]), RAY_TMPDIR=str(temporary))
    variables = {**made, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{made['PATH']}"}
    with ended(mark):
        yield Begun(["bash", ROOT / "cluster" / "slurm.sh", *words], tmp_path, variables, tmp_path / f"{mark}.txt")


def test_a_job_is_ended_at_its_limit_and_submitted_again(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (tmp_path / "bin").mkdir()
    (program := tmp_path / "bin" / "srun").write_text(SRUN)
    program.chmod(0o755)
    write_sweep(tmp_path, SWEEP.replace("examples: 64", "examples: 640").replace("1.0e-3, 3.0e-4", "1.0e-3"))
    (tmp_path / "node.yaml").write_text("ray: {address: auto}\ndriver: {resources: {head: 0.001}}\n")
    words = ["small.yaml", "--cluster", "node.yaml", "--mlflow", "off", "--store", str(tmp_path / "store")]
    ledger = Ledger(str(tmp_path / "store"))

    with job(tmp_path, tmp_path_factory.mktemp("r"), *words) as first:
        first.wait_until(lambda: len(ledger.paths()) >= 3, 900)
        first.process.send_signal(signal.SIGTERM)  # what --signal=B:TERM@120 sends: to the script alone
        assert first.code(120) == 130, first.output
        assert "run the same command to resume" in first.output, first.output
    done = len(ledger.paths())

    with job(tmp_path, tmp_path_factory.mktemp("r"), *words) as second:
        assert second.code(1200) == 0, second.output
        [before] = re.findall(r"(\d+) recorded before", second.output)
        assert "2 trials (2 done)" in second.output and int(before) >= done, second.output
