"""Pictures of a sweep for a README or a talk: the trade-off, the top of the page, and the view that MLflow opens."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lmmcl.atomic_files import replacing
from lmmcl.errors import UserError
from lmmcl.reports.page.page import write_page
from lmmcl.reports.page.page_extras import PageExtras
from lmmcl.reports.plots import write_scatter
from lmmcl.reports.results import SweepResults
from lmmcl.tracking.first_screen import trials_address
from lmmcl.tracking.sweep_identity import SweepIdentity
from lmmcl.tracking.tracker import Tracker

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
PAGE_SIZE, MLFLOW_SIZE = (1200, 1480), (1500, 1000)
PAGE_MILLISECONDS, MLFLOW_MILLISECONDS = 5_000, 40_000
"""Time (of the browser's clock, which runs ahead where nothing is to do) that a page is given to draw itself."""
COLOURS = 128
SECONDS = 300


def write_pictures(
    results: SweepResults, folder: Path, extras: PageExtras | None = None
) -> tuple[list[Path], list[str]]:
    """(files written, what could not be and why): `tradeoff.png`; with a browser on the path `page.png` and `mlflow.png`.

    MLflow's picture is of a server of its own, filled from `results` and ended again. Raises UserError when the browser or
    that server does not answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "tradeoff.png"]
    write_scatter(results, files[0], dots_per_inch=110)
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return files, [f"page.png and mlflow.png need a browser on the path: one of {', '.join(BROWSERS)}"]
    with tempfile.TemporaryDirectory() as work:
        write_page(results, Path(work, "page.html"), extras)
        files.append(
            _photograph(browser, Path(work, "page.html").as_uri(), folder / "page.png", PAGE_SIZE, PAGE_MILLISECONDS)
        )
        with mlflow_server(results, Path(work)) as address:
            files.append(_photograph(browser, address, folder / "mlflow.png", MLFLOW_SIZE, MLFLOW_MILLISECONDS))
    return files, []


def _photograph(browser: str, address: str, file: Path, size: tuple[int, int], milliseconds: int) -> Path:
    """What the browser shows at `address`, as a PNG of few colours: a chart needs no more, and a README loads faster."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as profile:
        taken = Path(profile, "taken.png")
        flags = [*FLAGS, "--hide-scrollbars", f"--user-data-dir={profile}", f"--virtual-time-budget={milliseconds}"]
        command = [browser, *flags, f"--window-size={size[0]},{size[1]}", f"--screenshot={taken}", address]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise UserError(f"{browser} produced no screenshot of {address} within {SECONDS} s") from None
        if not taken.is_file():
            raise UserError(f"{browser} produced no screenshot of {address}: {done.stderr[-500:].strip()}")
        with Image.open(taken) as picture, replacing(file) as partial:
            picture.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
                partial, optimize=True
            )
    return file


@contextmanager
def mlflow_server(results: SweepResults, folder: Path) -> Iterator[str]:
    """The address of the trade-off on an MLflow server that holds `results` below `folder`, and ends with the context."""
    uri = f"sqlite:///{folder}/mlflow.db"
    names = {trial.key: trial.name for trial in results.trials}
    tracker = Tracker(uri, SweepIdentity(results.name, "", names), (folder / "artifacts").as_uri())
    for trial in results.trials:
        tracker.log_trial(trial, running=False)
    port = _free_port()
    command = ["server", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "server.log").open("w+", encoding="utf-8") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command],
            stdout=log,
            stderr=log,
            env={
                **os.environ,
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            },  # a dozen processes that no picture needs
            start_new_session=True,
        )
        try:
            _wait(server, f"http://127.0.0.1:{port}/health", folder / "server.log")
            yield f"http://127.0.0.1:{port}/{trials_address(tracker.experiment_id, view=True, chart=True)}"
        finally:
            os.killpg(server.pid, signal.SIGTERM)  # the server is a child of the command, and outlives it
            server.wait(30)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise UserError(f"MLflow's server does not answer: {log.read_text(encoding='utf-8')[-500:].strip()}")
