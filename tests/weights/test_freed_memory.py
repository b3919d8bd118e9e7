"""Memory that a process frees stays with it, so that an update does not map the same pages again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lmmcl.weights import freed_memory

FAULTS = """
import resource, torch
from lmmcl.weights.freed_memory import keep_freed_memory
assert keep_freed_memory() is {kept}

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(30):
        rows = [torch.ones(400_000) for _ in range(8)]
        del rows
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the GNU C library")
def test_pages_are_mapped_once_and_a_persons_own_settings_win() -> None:
    counts = []
    for kept, own in ((True, {}), (False, {"MALLOC_TRIM_THRESHOLD_": "131072"})):
        run = subprocess.run(
            [sys.executable, "-c", FAULTS.format(kept=kept)],
            env={**os.environ, **own},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        counts.append(int(run.stdout))
    assert counts[0] * 20 < counts[1], counts


def test_settings_of_the_environment_are_seen() -> None:
    assert freed_memory._is_set({"MALLOC_MMAP_THRESHOLD_": "1"})
    assert freed_memory._is_set({"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=4096"})
    assert not freed_memory._is_set({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "PATH": "/bin"})
