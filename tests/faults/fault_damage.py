"""What a test does to a store between two lives, or beside a run: bytes changed, leases left, other commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fault_cells import Deed
from fault_scenes import Scene

from lmmcl.config.cluster import ClaimSettings
from lmmcl.ledger.leases import MAINTENANCE, Leases
from lmmcl.ledger.owners import host_id
from lmmcl.steps import Step


def flip(file: Path, at: float = 0.5) -> None:
    """Change one byte of a file."""
    content = bytearray(file.read_bytes())
    content[int(len(content) * at)] ^= 1
    file.write_bytes(content)


def stage(scene: Scene, trial: int, number: int) -> Step:
    """The checkpoint of a stage."""
    return scene.sweep.trials[trial].stages[number].checkpoint


def evaluation(scene: Scene, trial: int, number: int, place: int) -> Step:
    """One of a stage's evaluations."""
    return scene.sweep.trials[trial].stages[number].evaluations[place]


def flip_of(find: Callable[[Scene], Step], name: str, *, is_damaged: bool = True) -> Deed:
    """Change a byte of a file of a recorded step, which may be computed again then."""

    def deed(scene: Scene) -> None:
        step = find(scene)
        flip(Path(scene.store) / step.path / name)
        if is_damaged:
            scene.damaged.add(step.key)

    return deed


def flip_newest(pattern: str, at: float = 0.5) -> Deed:
    """Change a byte of the file that was written last of those that a pattern names below the store."""

    def deed(scene: Scene) -> None:
        flip(max(Path(scene.store).glob(pattern), key=lambda file: file.stat().st_mtime_ns), at)

    return deed


def flip_on_node(pattern: str) -> Deed:
    """The same in this node's folder of a store that is elsewhere."""

    def deed(scene: Scene) -> None:
        files = list(scene.node.glob(pattern))
        assert files, sorted(scene.node.rglob("*"))
        flip(max(files, key=lambda file: file.stat().st_mtime_ns))

    return deed


def flip_packed(scene: Scene) -> None:
    """Change a byte of a packed record: its step is computed again, and no other."""
    step = evaluation(scene, 0, 1, 0)
    pack = next(Path(scene.store).glob(f"packs/*/*{stage(scene, 0, 1).key}.zip"))
    content = bytearray(pack.read_bytes())
    place = content.index(f"{step.path}/record.json".encode()) + len(f"{step.path}/record.json") + 20
    content[place] ^= 1
    pack.write_bytes(content)
    scene.damaged.add(step.key)
    repair(scene)


def flip_index(scene: Scene) -> None:
    """Change a byte of the index, which a run that finds nothing to do leaves as it is."""
    flip_newest("index/*.records")(scene)
    repair(scene)


def repair(scene: Scene) -> None:
    """`lmmcl ledger check --repair`, which finds damage."""
    assert "1 damaged" in scene.command("ledger", "check", "--repair", code=1)


def cut(pattern: str) -> Deed:
    """Cut the newest file of a pattern to its half."""

    def deed(scene: Scene) -> None:
        file = max(Path(scene.store).glob(pattern), key=lambda file: file.stat().st_mtime_ns)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    return deed


def remove(name: str) -> Deed:
    """Delete a file or folder of the store."""

    def deed(scene: Scene) -> None:
        path = Path(scene.store, name)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return deed


def forget_node(scene: Scene) -> None:
    """The next life is on another machine: this node's folder of the store is gone."""
    shutil.rmtree(scene.node)


def empty_disk(scene: Scene) -> None:
    """Make room again."""
    assert scene.disk is not None
    (scene.disk / "filler").unlink()


def make_writable(scene: Scene) -> None:
    """Let the disk be written again."""
    subprocess.run(["mount", "-o", "remount,rw", str(scene.disk)], check=True)


def nothing(scene: Scene) -> None:
    """Let the same command run again."""


def finish(scene: Scene) -> None:
    """An undisturbed run before the one that is struck."""
    ended = scene.run()
    assert ended.code == 0, ended.output


def lease_of(find: Callable[[Scene], Step | str], **about: Any) -> Deed:
    """A lease that some owner left, or holds: by default of a process of this machine that is gone."""

    def deed(scene: Scene) -> None:
        wanted = find(scene)
        key = wanted if isinstance(wanted, str) else wanted.key
        lease = {**vars(Leases(scene.ledger.files, ClaimSettings(expiry_s=3))._new()), "pid": 4_000_000, **about}
        lease["until"] = time.time() + about.get("left", 3.0)
        lease.pop("left", None)
        scene.ledger.files.write(f"claims/{key}.json", json.dumps(lease).encode())

    return deed


ELSEWHERE = {"host": "gone", "place": "gone", "pid": 7}
RECYCLED = {"pid": os.getpid(), "born": "1", "place": host_id()}


def start_other(scene: Scene) -> None:
    """Another run of the same sweep begins."""
    scene.start_other()


def wait_for_other(scene: Scene) -> None:
    """Until the other run has ended."""
    scene.wait_for_other()


def maintenance(scene: Scene) -> str:
    """The key of the lease of what packs, repairs or clears a store."""
    return MAINTENANCE


def collect(scene: Scene) -> None:
    """`lmmcl gc` of the sweep."""
    scene.command("gc", str(scene.world.file))


def check(scene: Scene) -> None:
    """`lmmcl ledger check --repair`, which finds nothing."""
    assert " 0 damaged" in scene.command("ledger", "check", "--repair")


def report(scene: Scene) -> None:
    """`lmmcl report`, which shows what is there."""
    scene.command("report", str(scene.world.file), "--format", "html")


def export_of(find: Callable[[Scene], Step]) -> Deed:
    """`lmmcl export` of a recorded checkpoint."""

    def deed(scene: Scene) -> None:
        to = scene.folder / f"exported-{time.monotonic_ns()}"
        scene.command("export", find(scene).key, "--to", str(to))
        assert list(to.glob("*.safetensors")) and (to / "config.json").exists()

    return deed


def weather(kind: str, times: int, method: str = "", path: str = "") -> Deed:
    """The bucket answers the next requests like this."""
    return lambda scene: scene.world.bucket.weather.turn(kind, times, method, path)


def weather_was(scene: Scene) -> None:
    """The weather has struck, and is over."""
    assert scene.world.bucket.weather.hits, "no request came"
    scene.world.bucket.weather.clear()


def mood(kind: str, after: int = 0) -> Deed:
    """MLflow answers like this from now on."""
    return lambda scene: scene.world.mlflow.turn(kind, after)


def mlflow_is_well(scene: Scene) -> None:
    """MLflow answers rightly again, after it was wrong."""
    assert scene.world.mlflow.refused, "nothing was refused"
    scene.world.mlflow.turn("")


def lock_database(scene: Scene) -> None:
    """Another process holds MLflow's database in the store for some seconds."""
    script = "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN EXCLUSIVE'); print(1, flush=True); time.sleep(4)"
    database = Path(scene.store) / "mlflow.db"
    end = time.monotonic() + 60
    while not database.exists() and time.monotonic() < end:
        time.sleep(0.05)
    process = subprocess.Popen(["python", "-c", script, str(database)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
