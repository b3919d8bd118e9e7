"""A Ray head of our own with token authentication, and what a person types at it."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


class Begun:
    """A command that runs beside the test, and its output so far."""

    def __init__(self, words: Sequence[str | Path], cwd: Path, environment: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("w") as output:
            given = [str(word) for word in words]
            self.process = subprocess.Popen(given, cwd=cwd, env=environment, stdout=output, stderr=output)

    @property
    def output(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def wait_until(self, seen: Callable[[], bool], seconds: float) -> None:
        """Until `seen`; fails, with what was said, where the command ends before."""
        end = time.monotonic() + seconds
        while not seen():
            assert self.process.poll() is None and time.monotonic() < end, self.output
            time.sleep(0.5)

    def code(self, seconds: float) -> int:
        """Its exit code, waited for."""
        return self.process.wait(seconds)


@dataclass(frozen=True)
class Head:
    """The address of a head's dashboard, the environment of those who may talk to it, a folder for what they say.

    `gcs` is the address of its control store, which drivers outside a job join.
    """

    address: str
    environment: dict[str, str]
    folder: Path
    gcs: str

    def begin(self, *words: str | Path, cwd: Path, **variables: str) -> Begun:
        """A command of somebody who may talk to this head; `variables` change their environment."""
        log = self.folder / f"said-{secrets.token_hex(4)}.txt"
        return Begun(words, cwd, {**self.environment, **variables}, log)

    def job(self, *words: str) -> Begun:
        """`ray job …` at this head, to its end."""
        done = self.begin(BIN / "ray", "job", words[0], "--address", self.address, *words[1:], cwd=self.folder)
        done.code(600)
        return done


def environment(mark: str, **variables: str) -> dict[str, str]:
    """Of a head and of those who talk to it: our programs, a token, a mark to find its processes by."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {
        **plain,
        "LMMCL_TEST_MARK": mark,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        **variables,
    }


@contextlib.contextmanager
def token_head(folder: Path, **variables: str) -> Iterator[Head]:
    """A head with two CPUs that wants a token; `variables` are more of its environment."""
    port, dashboard, agent = free_ports(3)
    mark = secrets.token_hex(16)
    head = Head(f"http://127.0.0.1:{dashboard}", environment(mark, **variables), folder, f"127.0.0.1:{port}")
    words = ["--head", f"--port={port}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    words += ["--num-cpus=2", '--resources={"head": 1}', f"--temp-dir={folder}", "--include-dashboard=true", "--block"]
    with ended(mark), (folder / "head.log").open("w") as log:
        started = subprocess.Popen(
            [BIN / "ray", "start", *words], env=head.environment, stdout=log, stderr=log, start_new_session=True
        )
        end = time.monotonic() + 180
        while head.job("list").code(0):
            assert started.poll() is None and time.monotonic() < end, (folder / "head.log").read_text()
            time.sleep(1)
        yield head
        started.send_signal(signal.SIGTERM)  # `ray stop` would also stop clusters that are not ours
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(20)


@contextlib.contextmanager
def ended(mark: str) -> Iterator[None]:
    """Afterwards, no process with this mark in its environment is left: those that we started, and theirs."""
    try:
        yield
    finally:
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark.encode() in (folder / "environ").read_bytes():
                    os.kill(int(folder.name), signal.SIGKILL)


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens at now."""
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
