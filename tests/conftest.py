"""What all tests share: no network, one thread, helpers of this folder importable, a cache of their own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell starts `pytest &` with Ctrl-C ignored; what tests start would ignore it too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, str(Path(__file__).parent))

WORKERS_AT_MOST = 4  # each holds torch and transformers: about 1.5 GB
DEFAULT_MARKERS = "not slow and not gpu and not bench"


@pytest.hookimpl(optionalhook=True)  # pytest-xdist may not be there
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """The fast suite runs on all cores; what is timed, watched or small runs in one process, as `-n 0` would ask for."""
    whole_folders = all(Path(str(argument).split("::")[0]).is_dir() for argument in config.args)
    fast = config.getoption("markexpr") == DEFAULT_MARKERS and config.getoption("capture") != "no"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, WORKERS_AT_MOST) if fast and whole_folders and cores > 1 else 0


@pytest.fixture(autouse=True)
def _no_store_of_the_person_who_runs_the_tests(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.delenv("LMMCL_STORE", raising=False)
    monkeypatch.delenv("LMMCL_MLFLOW", raising=False)
    monkeypatch.setenv("LMMCL_QUESTION_CACHE_MB", "0")  # tests give several benchmarks one name
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def packed_runs() -> Iterator[None]:
    """Runs of small sweeps pack their records, too."""
    from lmmcl.runner.reporting import pack_finished

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pack_finished, "MANY", 1)
        yield
