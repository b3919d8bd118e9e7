"""MLflow's own pages, in a browser: the trade-off is where the saved view says.

Pictures are left in the folder that LMMCL_TEST_ARTEFACTS names, for a person to look at.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from synthetic_results import make_sweep

from lmmcl.runner.tracking import Tracker
from lmmcl.runner.tracking_extras import view_address

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the saved view on a server that holds a made-up sweep."""
    folder = tmp_path_factory.mktemp("server")
    uri = f"sqlite:///{folder}/mlflow.db"
    tracker = Tracker(uri, "synthetic", (folder / "artifacts").as_uri())
    for trial in make_sweep(recipes=["sa_proj", "full"], rates=[1e-5, 1e-4], updates=2).trials:
        tracker.log_trial(trial)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["server", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}/{view_address(tracker.experiment_id)}"
    finally:
        server.terminate()
        server.wait(30)


def _wait(url: str) -> None:
    for _ in range(120):
        try:
            urllib.request.urlopen(url, timeout=2)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise TimeoutError(f"{url} does not answer")


def test_the_saved_view_draws_learning_against_forgetting(page: str, tmp_path: Path) -> None:
    artefacts = Path(os.environ.get("LMMCL_TEST_ARTEFACTS", tmp_path))
    artefacts.mkdir(parents=True, exist_ok=True)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={tmp_path}/profile"]
    flags += ["--window-size=1600,1000", "--virtual-time-budget=40000"]
    assert CHROMIUM is not None
    shown = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", page], capture_output=True, text=True, timeout=200, check=True
    )
    picture = f"--screenshot={artefacts / 'mlflow-trade-off.png'}"
    subprocess.run([CHROMIUM, *flags, picture, page], capture_output=True, timeout=200, check=True)
    text = shown.stdout
    assert "learning against forgetting" in text, "the name of the saved view"
    assert "Trade-off" in text and "Error loading" not in text
    assert text.index("Trade-off") < text.index(">score"), "our chart comes first"
    assert "held_out_forgetting" in text and "sa_proj" in text
    assert "scatterlayer" in text and (artefacts / "mlflow-trade-off.png").stat().st_size > 20_000
