"""A chain of lives on a Ray head of the test's own: forked commands and submitted jobs in one store, and the verdict."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cluster_cells import Chain, Life
from fault_judge import Verdict, judge, recorded
from fault_lives import INSIDE, Ended, ForkServer, Room
from fault_scenes import NODE, SWEEP, Outcome, World
from made import write_sweep
from ray_head import ROOT, Head, token_head

from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger

RAY = ("ray", "ray.tune", "ray.train", "ray.job_submission", "lmmcl.runner.ray_backend.backend", "lmmcl.runner.ray_backend.tune", "lmmcl.jobs.submit")  # fmt: skip
PLACEMENT = "driver: {resources: {head: 0.001}}\n" + NODE.replace("training: {", "training: {max_failures: 20, ")
NODES = {
    "inline": NODE,
    "Ray": PLACEMENT,
    "worker group": PLACEMENT.replace("training: {", "training: {workers: 1, "),
    "job": f"ray: {{address: auto}}\n{PLACEMENT}",
}
"""Cluster files by mode."""
LONGEST = 900.0


class ClusterWorld:
    """A head for all chains of a session, and a server of forks that has Ray's libraries too."""

    def __init__(self, head: Head, room: Room, folder: Path, world: World) -> None:
        self.head, self.room, self.folder, self.world = head, room, folder, world

    @classmethod
    @contextmanager
    def served(cls, folder: Path, temporary: Path, world: World) -> Iterator[ClusterWorld]:
        """For the time of the `with`; `temporary` is Ray's own folder, whose path must be short."""
        place = folder / "room"
        place.mkdir()
        paths = os.pathsep.join([str(INSIDE), str(ROOT)])
        shared = {
            **world.environment,
            "PYTHONPATH": paths,
            "LMMCL_FAULTS": str(place),
            "RAY_JOB_STOP_WAIT_TIME_S": "60",
            "RAY_worker_niceness": "0",
        }
        with token_head(temporary, **shared) as head:
            environment = {**head.environment, "RAY_ADDRESS": head.gcs, "PYTHONPATH": str(ROOT)}
            environment.pop("LMMCL_FAULTS")
            server = ForkServer(environment, RAY)
            try:
                yield cls(head, Room(place, server, environment), folder, world)
            finally:
                server.close()

    def play(self, chain: Chain) -> list[Outcome]:
        """Play all lives of a chain, and judge what came of them."""
        folder = self.folder / chain.name.replace(" ", "-") / "project"  # what goes with a job; the store does not
        folder.mkdir(parents=True)
        trials = "[sa_proj, gate_up]" if chain.trials == 2 else "[sa_proj]"
        sweep = load_sweep(write_sweep(folder, SWEEP.replace("[sa_proj, gate_up]", trials), "faults.yaml"))
        for mode, text in NODES.items():
            (folder / f"{mode.replace(' ', '-')}.yaml").write_text(text)
        ledger, lives, before = Ledger(str(folder.parent / "store")), list[Ended](), list[set[str]]()
        last = chain.lives[-1]
        for life in [*chain.lives, *([Life(last.mode)] if 0 not in last.codes else [])]:
            before.append(recorded(sweep, ledger))
            ended = self._live(life, folder, chain.pause)
            lives.append(ended)
            assert ended.code in life.codes, (life, ended.code, ended.output)
            strikes = sum(len(cell.strikes) for cell in life.cells)
            assert len(ended.of("strike")) == strikes, ([cell.name for cell in life.cells], ended.of("strike"))
        expected = self.world.expected.only(sweep)
        if not chain.is_exact:
            expected = replace(expected, weights={})
        lives = [replace(life) for life in lives]  # what processes of a killed command still did is in the logs by now
        verdict = judge(sweep, Ledger(ledger.store), lives, before, expected, interval=chain.interval)
        return list(_outcomes(chain, lives, before, len(sweep.steps), verdict))

    def _live(self, life: Life, folder: Path, pause: float) -> Ended:
        strikes = [strike for cell in life.cells for strike in cell.strikes]
        file = f"{life.mode.replace(' ', '-')}.yaml"
        words = ["faults.yaml", "--store", str(folder.parent / "store"), "--cluster", file, "--mlflow", "off"]
        if life.mode == "job":
            words = ["submit", *words, "--address", self.head.address]
        else:
            words = ["run", *words, *(["--inline"] if life.mode == "inline" else [])]
        return self.room.live(words, folder, strikes, pause=pause)


def _outcomes(
    chain: Chain, lives: Sequence[Ended], before: Sequence[set[str]], steps: int, verdict: Verdict
) -> Iterator[Outcome]:
    """An outcome for each cell; what was made again, in all of the chain, is with the first one."""
    cpu = sum(life.cpu for life in lives)
    for number, life in enumerate(chain.lives):
        by_strike = {(strike.point, strike.number): cell for cell in life.cells for strike in cell.strikes}
        for event, share in lives[number].shares(before[number], steps):
            yield Outcome(by_strike[event["of"], event["number"]], share, len(lives), cpu, verdict)
            verdict, cpu = Verdict(), 0.0
