"""Small versions of the endurance programs: a Ray run of sixty trials with reruns, a run killed again and again, runs that share a store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent


def passes(program: str, *words: str) -> str:
    """What a program prints; it must miss no bound."""
    done = subprocess.run([sys.executable, BENCH / program, *words], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_ray_run_holds_no_more_after_sixty_trials_than_after_six_and_reruns_change_nothing() -> None:
    printed = passes("long_lives.py", "--trials", "60", "--every", "3", "--reruns", "3")
    for kind in ("driver", "trial actors", "steps actor", "step workers", "temporary folder"):
        assert f"| {kind} | " in printed


@pytest.mark.slow
@pytest.mark.timeout(4800)  # it takes 5 minutes; the program itself waits up to 300 s for a life, 240 s for Ray's end
def test_a_run_killed_eight_times_computes_no_finished_step_again_and_leaves_nothing_behind() -> None:
    printed = passes("many_lives.py", "--lives", "8", "--ray-every", "4", "--merges", "6")
    assert "| lives that were killed | 8 |" in printed


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("store", ["local", "s3"])
def test_runs_on_several_nodes_share_a_store_and_compute_each_step_once_in_a_bounded_number_of_requests(
    store: str,
) -> None:
    if store == "s3":
        pytest.importorskip("moto.server")
        pytest.importorskip("s3fs")
    printed = passes("shared_stores.py", "--runs", "4", "--store", store)
    assert "a step; at most" in printed
