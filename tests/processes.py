"""A command of ours as a process of its own, and what is left of it afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

LMMCL = [sys.executable, "-c", "from lmmcl.cli import main; main()"]


class Command:
    """A running `lmmcl …`; all its descendants carry a mark in their environment."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self.mark = f"LMMCL_TEST_MARK={uuid.uuid4().hex}"
        name, value = self.mark.split("=")
        self.log = cwd / f"{value}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*LMMCL, *arguments],
                cwd=cwd,
                env={**os.environ, name: value},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait_for(self, text: str, seconds: float = 200) -> None:
        end = time.monotonic() + seconds
        while text not in self.output:
            assert self.process.poll() is None, f"ended before {text!r}:\n{self.output}"
            assert time.monotonic() < end, f"{text!r} did not come:\n{self.output}"
            time.sleep(0.1)

    def wait(self, seconds: float = 200) -> int:
        return self.process.wait(seconds)

    def left_behind(self) -> list[str]:
        """Command lines of processes that this command started and that still run."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes():
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except (OSError, ProcessLookupError):  # ended while we looked, or not ours to read
                continue
        return [line for line in found if line]

    def gone_within(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self.left_behind() and time.monotonic() < end:
            time.sleep(0.2)
        return not self.left_behind()
