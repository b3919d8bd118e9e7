"""Lives of a run: commands started from a process that has its libraries loaded, what they logged, and how they ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

INSIDE = Path(__file__).with_name("inside")
LONGEST_LIFE = 900.0


@dataclass(frozen=True)
class Strike:
    """A deed at the moment when a point is reached for the `number`-th time in a life."""

    point: str
    number: int = 1
    deed: str = "send"
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """How a command ended (a negative code is a signal's number), what it printed, and what its processes logged."""

    code: int
    output: str
    cpu: float
    folder: Path

    @cached_property
    def events(self) -> Sequence[Mapping[str, Any]]:
        """What its processes logged, in order."""
        log = self.folder / "log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def shares(self, before: Collection[str], steps: int) -> Iterator[tuple[Mapping[str, Any], float]]:
        """Each strike, with the share of `steps` steps that were recorded by then; `before` were when the life began."""
        known = set(before)
        for event in self.events:
            if event["point"] == "published":
                known.add(event["key"])
            elif event["point"] == "strike":
                yield event, len(known) / steps

    def share_at_strike(self, before: Collection[str], steps: int) -> float:
        """The share at the last strike; at the beginning of a life that none strikes."""
        shares = [share for _, share in self.shares(before, steps)]
        return shares[-1] if shares else len(before) / steps

    def of(self, *points: str) -> list[Mapping[str, Any]]:
        """The events at these points."""
        return [event for event in self.events if event["point"] in points]


class ForkServer:
    """The process that forks a child for each life."""

    def __init__(self, environment: Mapping[str, str], modules: Sequence[str] = ()) -> None:
        self.lives, self.cpu = 0, 0.0
        self._process = subprocess.Popen(
            [sys.executable, str(INSIDE / "fork_server.py"), *modules],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self._answer()["threads"] == [], "a child of a process with threads is not what a new process would be"

    def start(self, words: Sequence[str], cwd: Path, log: Path, environment: Mapping[str, str]) -> int:
        """Begin `lmmcl` with `words`; returns the process."""
        self.lives += 1
        wish = {"words": list(words), "cwd": str(cwd), "log": str(log), "environment": dict(environment)}
        return int(self._ask(wish)["process"])

    def run(
        self,
        words: Sequence[str],
        cwd: Path,
        log: Path,
        environment: Mapping[str, str],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> tuple[int, float]:
        """Run `lmmcl` to its end, doing `meanwhile` again and again; returns exit code and CPU seconds."""
        process = self.start(words, cwd, log, environment)
        return self.wait(process, log, meanwhile)

    def wait(self, process: int, log: Path, meanwhile: Callable[[], None] = lambda: None) -> tuple[int, float]:
        """Until a process has ended; returns exit code and CPU seconds."""
        end = time.monotonic() + LONGEST_LIFE
        while not (ended := self._ask({"poll": process})):
            meanwhile()
            if time.monotonic() > end:
                os.kill(process, 9)
                raise AssertionError(f"has not ended:\n{log.read_text()}")
            time.sleep(0.02)
        self.cpu += ended["cpu"]
        return ended["code"], ended["cpu"]

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)

    def _ask(self, wish: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(wish) + "\n")
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the server of forks has ended with code {self._process.wait()}"
        answer: dict[str, Any] = json.loads(line)
        return answer


class Room:
    """A folder for the lives of one cell; what a strike asks of the test is done by `wishes`, by name."""

    def __init__(self, folder: Path, server: ForkServer, environment: Mapping[str, str]) -> None:
        self.folder, self._server, self.environment = folder, server, dict(environment)
        self.wishes: dict[str, Callable[[], object]] = {}
        self.lives: list[Ended] = []

    @contextmanager
    def life(self, strikes: Sequence[Strike]) -> Iterator[Path]:
        """A folder for one more life, which processes find by a link."""
        life = self.folder / f"life-{len(list(self.folder.glob('life-*')))}"
        life.mkdir()
        (life / "strikes.json").write_text(json.dumps([vars(strike) for strike in strikes]))
        link = self.folder / "link"
        link.symlink_to(life.name)
        link.rename(self.folder / "life")
        yield life

    def live(
        self, words: Sequence[str], cwd: Path, strikes: Sequence[Strike] = (), *, pause: float = 0.0, **more: str
    ) -> Ended:
        """One life of `lmmcl` with `words`, to its end; `more` are variables of its environment."""
        with self.life(strikes) as life:
            (life / "pause").write_text(str(pause))
            environment = {**self.environment, **more, "LMMCL_FAULTS": str(self.folder)}
            code, cpu = self._server.run(
                words, cwd, life / "output", environment, meanwhile=lambda: self._do_wishes(life)
            )
            ended = Ended(code, (life / "output").read_text(), cpu, life)
        self.lives.append(ended)
        return ended

    def start(self, words: Sequence[str], cwd: Path, log: Path) -> int:
        """Begin one more process of the life that runs now."""
        return self._server.start(words, cwd, log, {**self.environment, "LMMCL_FAULTS": str(self.folder)})

    def wait(self, process: int) -> int:
        """Until that has ended; returns its exit code."""
        return self._server.wait(process, self.folder / "other")[0]

    def beside(self, words: Sequence[str], cwd: Path, expected: int = 0) -> str:
        """Another command, undisturbed, which ends with the expected code; returns what it printed."""
        log = self.folder / f"beside-{len(list(self.folder.glob('beside-*')))}"
        code, _ = self._server.run(words, cwd, log, self.environment)
        output = log.read_text()
        assert code == expected, output
        return output

    def _do_wishes(self, life: Path) -> None:
        for wish in life.glob("wish-*"):
            done = life / wish.name.replace("wish", "done")
            if not done.exists():
                self.wishes[wish.read_text()]()
                done.touch()
