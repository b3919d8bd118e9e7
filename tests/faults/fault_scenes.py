"""A cell played: a small sweep, its disturbed lives in a store of their own, what is done between them, and the verdict."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fault_cells import Cell
from fault_judge import Expected, Verdict, judge, recorded
from fault_lives import Ended, ForkServer, Room, Strike
from made import write_sweep
from wrong_servers import Bucket, Mlflow

from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.ledger import Ledger

UPDATES, EVERY, QUESTIONS = 9, 3, 10
"""Updates of a stage, updates between two checkpoints inside it, questions of a benchmark."""
SWEEP = f"""
name: faults
orders: {{main: [counting, clock]}}
benchmarks: {{held_out: [colour]}}
training: {{max_steps: {UPDATES}, examples: 36, global_batch_size: 4, precision: fp32}}
evaluation: {{precision: fp32, limit: {QUESTIONS}}}
grids:
  - {{model: [tiny-onevision], recipe: [sa_proj, gate_up], learning_rate: [1.0e-2]}}
"""
NODE = f"training: {{save_every: {EVERY}}}\nclaims: {{expiry_s: 3, poll_s: 0.05}}\npack: true\n"
DISK_MB = 96


class World:
    """What all cells of a session share: the sweep, an undisturbed run of it, a server of forks, a bucket, an MLflow server."""

    def __init__(self, folder: Path, *, sweep: str = SWEEP) -> None:
        self.folder = folder
        self.file = write_sweep(folder, sweep, "faults.yaml")
        (folder / "node.yaml").write_text(NODE)
        (folder / "temporary").mkdir()
        self.sweep: Sweep = load_sweep(self.file)
        self.environment = {
            "TMPDIR": str(folder / "temporary"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH")])),
        }
        self._open = ExitStack()

    @cached_property
    def server(self) -> ForkServer:
        server = ForkServer(self.environment)
        self._open.callback(server.close)
        return server

    @cached_property
    def expected(self) -> Expected:
        """What the sweep gives when nothing happens to it."""
        words = ["run", str(self.file), "--store", str(self.folder / "quiet"), *INLINE, "--cluster", "node.yaml"]
        log = self.folder / "quiet.log"
        code, _ = self.server.run(words, self.folder, log, {})
        assert code == 0, log.read_text()
        return Expected.of(self.sweep, Ledger(str(self.folder / "quiet")))

    @cached_property
    def bucket(self) -> Bucket:
        return self._open.enter_context(Bucket.served())

    @cached_property
    def mlflow(self) -> Mlflow:
        return self._open.enter_context(Mlflow.served(self.folder / "mlflow-server"))

    def close(self) -> None:
        self._open.close()


INLINE = ("--inline", "--mlflow", "off")


@dataclass
class Scene:
    """One cell being played; deeds of the test are done to it."""

    cell: Cell
    world: World
    folder: Path
    room: Room
    store: str
    disk: Path | None
    lives: list[Ended] = field(default_factory=list)
    before: list[set[str]] = field(default_factory=list)
    damaged: set[str] = field(default_factory=set)
    """Keys of the steps whose files were changed."""
    other: tuple[int, Path] | None = None
    """Another run of the same sweep beside this one: its process, and its output."""

    @property
    def ledger(self) -> Ledger:
        """The store as a new process sees it."""
        return Ledger(self.store)

    @property
    def sweep(self) -> Sweep:
        return self.world.sweep

    @property
    def words(self) -> list[str]:
        """The run as a person types it."""
        words = ["run", str(self.world.file), "--store", self.store, "--cluster", str(self.world.folder / "node.yaml")]
        uri = self.world.mlflow.uri if self.cell.mlflow == "server" else "off"
        return [*words, "--inline", *([] if self.cell.mlflow == "store" else ["--mlflow", uri])]

    def run(self, strikes: Sequence[Strike] = ()) -> Ended:
        """One life of the run."""
        self.before.append(recorded(self.sweep, self.ledger))
        self.lives.append(self.room.live(self.words, self.folder, strikes, **self.cell.variables))
        assert "Traceback" not in self.lives[-1].output, self.lives[-1].output
        return self.lives[-1]

    def start_other(self) -> None:
        """Begin another run of the same sweep, which belongs to the same life."""
        log = self.room.folder / "other"
        self.other = self.room.start(self.words, self.folder, log), log

    def wait_for_other(self) -> None:
        """Until it has ended, well or by what strikes the life."""
        assert self.other is not None
        process, log = self.other
        assert self.room.wait(process) in (0, *self.cell.codes), log.read_text()
        self.lives[-1] = replace(self.lives[-1])  # which reads the log again

    @property
    def node(self) -> Path:
        """The folder of this node for a store that is elsewhere, as the runs have it."""
        here = self.ledger.node.folder
        return self.world.folder / "temporary" / here.parent.name / here.name

    def command(self, *words: str, code: int = 0) -> str:
        """Another command at this store, undisturbed; returns what it prints."""
        return self.room.beside([*words, "--store", self.store], self.folder, code)


@dataclass(frozen=True)
class Outcome:
    """What came of a cell: the share of steps that were recorded when it struck, lives, CPU seconds, what was made again."""

    cell: Cell
    share: float
    lives: int
    cpu: float
    verdict: Verdict

    def row(self) -> Mapping[str, Any]:
        """For the file of results."""
        words = dict(zip(("kind", "phase", "mode", "place"), self.cell.identity, strict=True))
        numbers = {"share": round(self.share, 3), "lives": self.lives, "cpu": round(self.cpu, 2)}
        return {**words, **numbers, "kills": self.cell.kills, **vars(self.verdict)}


def play(cell: Cell, world: World, folder: Path) -> Outcome:
    """Disturb a run as the cell says, let it come to its end, and judge it."""
    expected = world.expected
    with _scene(cell, world, folder) as scene:
        if cell.first:
            cell.first(scene)
        struck = scene.run(cell.strikes)
        assert struck.code in cell.codes, (struck.code, struck.output)
        assert len(struck.of("strike")) == len(cell.strikes), "each strike must strike"
        assert cell.says in struck.output, struck.output
        share = struck.share_at_strike(scene.before[-1], len(scene.sweep.steps))
        if cell.then:
            cell.then(scene)
        if cell.then or struck.code:
            last = scene.run()
            assert last.code == 0, last.output
        verdict = judge(
            scene.sweep,
            scene.ledger,
            scene.lives,
            scene.before,
            expected,
            interval=cell.intervals * EVERY,
            damaged=scene.damaged,
        )
        return Outcome(cell, share, len(scene.lives), sum(life.cpu for life in scene.lives), verdict)


@contextmanager
def _scene(cell: Cell, world: World, folder: Path) -> Iterator[Scene]:
    room = Room(folder / "room", world.server, world.environment)
    room.folder.mkdir()
    with _store(cell, world, folder) as (store, disk):
        if cell.store == "s3":
            room.environment |= world.bucket.environment
        scene = Scene(cell, world, folder, room, store, disk)
        room.wishes = {name: (lambda deed=deed: deed(scene)) for name, deed in cell.beside.items()}
        yield scene
    shutil.rmtree(Ledger(store).node.folder, ignore_errors=True)


@contextmanager
def _store(cell: Cell, world: World, folder: Path) -> Iterator[tuple[str, Path | None]]:
    if cell.store == "s3":
        world.bucket.weather.clear()
        yield f"{world.bucket.uri}/{folder.name}", None
    elif cell.store == "disk":
        disk = folder / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "none", str(disk)], check=True)
        try:
            yield str(disk / "store"), disk
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)
    else:
        yield str(folder / "store"), None
