"""From the last update of a stage to the first of the next, with an evaluation between them: this build and an earlier one.

    git worktree add ../earlier 337e03d
    python tests/bench/turnaround.py --earlier ../earlier      random Qwen2.5-VL widths in bf16, 8 layers (1.2 B), 8 GB of memory
    python tests/bench/turnaround.py --small                   a rehearsal in seconds, of this build alone

Both builds do the same stages of the same model in processes of their own, one after the other, and again in the other order;
the arithmetic of updates and answers is taken off. What is left is reading, laying deltas over a model, digests and writing. The
floor is what no build can leave out: reading every byte of the model once, by the fast digest, to prove that frozen tensors did
not change, and writing the delta.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

GOAL = 5.0
STAGES = 4


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--earlier", type=Path, help="a working tree of the build to compare with")
    parser.add_argument("--small", action="store_true", help="a rehearsal in seconds")
    parser.add_argument("--layers", type=int, default=8, help="of the language model and of the vision tower")
    parser.add_argument("--folder", type=Path, help="where the files go (removed afterwards); default a temporary one")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.child:
        print(json.dumps(measure(settings.child)))
        return
    with tempfile.TemporaryDirectory(dir=settings.folder, prefix="lmmcl-turnaround-") as folder:
        write(Path(folder), settings.layers, small=settings.small)
        trees = {"this build": Path(__file__).parents[2]}
        if settings.earlier:
            trees["the earlier build"] = settings.earlier.resolve()
        print(table(compare(Path(folder), trees)))


def write(folder: Path, layers: int, *, small: bool) -> None:
    """The random model."""
    from random_qwen import Size, write_model

    (folder / "model").mkdir()
    write_model(folder / "model", Size(real=False) if small else Size(layers, layers))


def compare(folder: Path, trees: Mapping[str, Path]) -> dict[str, list[dict[str, Any]]]:
    """Each build in two processes of its own, in turns."""
    figures: dict[str, list[dict[str, Any]]] = {name: [] for name in trees}
    for name in [*trees, *reversed(trees)]:
        figures[name].append(run(folder, trees[name]))
        print(f"{name}: {figures[name][-1]}", file=sys.stderr, flush=True)
    return figures


def run(folder: Path, tree: Path) -> dict[str, Any]:
    """The stages in a process of a build."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, __file__, "--child", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        check=True,
    )
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


class Clock:
    """Seconds by the clock and of this process, which others on the machine do not lengthen; without what is arithmetic."""

    def __init__(self) -> None:
        self.away = [0.0, 0.0]
        self.ends: list[list[float]] = []
        self.turns: list[list[float]] = []

    def now(self) -> list[float]:
        return [time.perf_counter() - self.away[0], time.process_time() - self.away[1]]

    def training(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The updates of a stage: what came since those of the last one is a turn-around."""

        def timed(*args: Any, **more: Any) -> Any:
            start = self.now()
            if self.ends:
                self.turns.append([after - before for after, before in zip(start, self.ends[-1], strict=True)])
            result = work(*args, **more)
            self.ends.append(self.now())
            return result

        return timed

    def answering(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """Answers to questions, which are not counted."""

        def timed(*args: Any, **more: Any) -> Any:
            clock, cpu = time.perf_counter(), time.process_time()
            result = work(*args, **more)
            self.away = [self.away[0] + time.perf_counter() - clock, self.away[1] + time.process_time() - cpu]
            return result

        return timed


def measure(folder: Path) -> dict[str, Any]:
    """In a process of one of the builds: stages of one update, each evaluated; the median turn-around."""
    from lmmcl.config.cluster import Cluster
    from lmmcl.config.settings import Evaluation
    from lmmcl.evaluation import evaluate
    from lmmcl.ledger import Ledger
    from lmmcl.runner.execute import compute
    from lmmcl.steps import Evaluate
    from lmmcl.training.stage.trainer import StageTrainer

    clock = Clock()
    StageTrainer.train = clock.training(StageTrainer.train)  # type: ignore[method-assign]
    evaluate.record_scores = clock.answering(evaluate.record_scores)
    with tempfile.TemporaryDirectory(dir=folder) as store:
        ledger, cluster, size = Ledger(store), Cluster(), 0
        for step in stages(folder):
            compute([step], ledger, cluster, lambda *_: None)
            scores = Evaluate(step, step.skill.benchmark, Evaluation(precision="bf16"))
            compute([scores], ledger, cluster, lambda *_: None)
            size = (ledger.find(step) or {})["checkpoint_bytes"]
        floor = floor_of(step, ledger, size, folder)
    seconds, cpu = (statistics.median(turn[part] for turn in clock.turns) for part in (0, 1))
    return {"seconds": seconds, "cpu": cpu, "floor_seconds": floor[0], "floor_cpu": floor[1], "turns": len(clock.turns)}


def stages(folder: Path) -> list[Any]:
    """A chain of stages of all of attention, one update each."""
    from PIL import Image

    from lmmcl.config.settings import Training
    from lmmcl.methods.recipes.recipe import get_recipe
    from lmmcl.models import get_model
    from lmmcl.steps import Finetune, Pretrained
    from lmmcl.tasks.examples import ask
    from lmmcl.tasks.skills import Benchmark, Skill

    rows = [ask(str(n), "what is shown ?", "red circle", Image.new("RGB", (32, 32), (9 * n, 40, 90))) for n in range(2)]
    benchmark = Benchmark("shades", 1, "exact_match", load=lambda: rows[:1], max_new_tokens=1)
    skill = Skill("shades", 1, load=lambda: rows, benchmark=benchmark)
    training = Training(learning_rate=1e-3, global_batch_size=1, max_steps=1, warmup_ratio=0, precision="bf16")
    chain = [
        Finetune(Pretrained(get_model(str(folder / "model"))), get_recipe("sa_proj"), None, skill, training, seed=0)
    ]
    for seed in range(1, STAGES):
        chain.append(replace(chain[-1], parent=chain[-1], seed=seed))
    return chain


def floor_of(step: Any, ledger: Any, size: int, folder: Path) -> tuple[float, float]:
    """Seconds and CPU seconds of one pass of the proof over a model that is in memory, and of writing a delta's bytes; the least
    of a few."""
    import torch
    from safetensors.torch import save_file

    from lmmcl.weights.checkpoint import load_checkpoint, named_tensors

    try:
        from lmmcl.weights.fast_digest import fast_digests
    except ImportError:  # an earlier build
        from lmmcl.weights.checkpoint import digest_tensors as fast_digests
    tensors = named_tensors(load_checkpoint(step, ledger, precision="bf16"))
    fast_digests(tensors)  # what is mapped is read now
    delta, passes = {"delta": torch.zeros(size, dtype=torch.uint8)}, []
    for _ in range(STAGES):
        with tempfile.TemporaryDirectory(dir=folder) as name:
            clock, cpu = time.perf_counter(), time.process_time()
            fast_digests(tensors)
            save_file(delta, Path(name) / "delta.safetensors")
            passes.append((time.perf_counter() - clock, time.process_time() - cpu))
    return min(seconds for seconds, _ in passes), min(cpu for _, cpu in passes)


def table(figures: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The figures as Markdown, with the ratio."""
    lines = ["| build | seconds | CPU seconds |", "| --- | --- | --- |"]
    best = {
        name: {part: min(row[part] for row in rows) for part in ("seconds", "cpu", "floor_seconds", "floor_cpu")}
        for name, rows in figures.items()
    }
    for name, row in best.items():
        lines.append(f"| {name} | {row['seconds']:.2f} | {row['cpu']:.2f} |")
    this, *others = best.values()
    lines.append(
        f"| floor: one pass of the proof, and the delta | {this['floor_seconds']:.2f} | {this['floor_cpu']:.2f} |"
    )
    for other in others:
        clock, cpu = other["seconds"] / this["seconds"], other["cpu"] / this["cpu"]
        lines += [
            "",
            f"Turn-around {clock:.1f} times as fast by the clock, {cpu:.1f} times in CPU time; the goal is {GOAL:g}.",
        ]
        lines.append(f"The floor would be {other['cpu'] / this['floor_cpu']:.1f} times in CPU time.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
