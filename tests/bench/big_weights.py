"""Weights of a large model on a CPU: how fast they are read, proved and written beside plain safetensors, and in how much memory.

    python tests/bench/big_weights.py                 a random model of the shape of Qwen2.5-VL-3B in bf16: 7.5 GB of disk, 15 GB of memory
    python tests/bench/big_weights.py --layers 12     fewer layers of the same widths
    python tests/bench/big_weights.py --small         a rehearsal in seconds

Each step runs in a process of its own. Read and written are compared with `safetensors` on the same bytes in the same run, files
out of the page cache first (`cold`), then as the cache has them (`warm`). Goals: each step at least 0.7 times as fast; a stage's
peak at most model + trained fp32 state + 1.5 GB; the memory that a plan tells within 15 % of what was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from random_qwen import Size, write_model
from weight_steps import SPARE, STAGES, STEPS, shards, size_of

GOAL = 0.7
"""Of the speed of plain safetensors."""
NEAR = 0.15
"""How near a plan's estimate is to be."""
REHEARSAL = "LMMCL_BENCH_REHEARSAL"
"""Environment variable that says that all steps share this process."""
NEEDS = {"identify": 0.1, "read": 1.1, "load": 1.2, "train": 1.8, "chain": 1.2, "export": 2.2, "merge": 1.5}
"""Times the model's bytes, beside SPARE: what a step needs of the machine's memory."""
PATIENCE = 900
"""Seconds to wait for it."""


def run(step: str, folder: Path, *given: Any) -> dict[str, float]:
    """One step in a process of its own, which may map only so much memory; in a rehearsal in this one."""
    if REHEARSAL in os.environ:
        return STEPS[step](folder, *given)
    wait_for_memory(NEEDS[step] * size_of(shards(folder)) + SPARE)
    told = json.dumps([step, str(folder), *given])
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "XDG_CACHE_HOME": str(folder / "cache")}
    limit = 60 * 2**30  # address space, mapped files included
    done = subprocess.run(
        [sys.executable, __file__, "--step", told],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    if done.returncode:
        raise SystemExit(f"{step} failed with {done.returncode}")
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{step} {given}: {found}", file=sys.stderr, flush=True)
    return found


def wait_for_memory(size: float) -> None:
    """Return when this number of bytes is available on this machine, which others may use too; gives up after a while."""
    for _ in range(PATIENCE // 5):
        available = 1024 * int(Path("/proc/meminfo").read_text(encoding="ascii").split("MemAvailable:")[1].split()[0])
        if available > size:
            return
        time.sleep(5)
    raise SystemExit(f"{size / 1e9:.1f} GB of memory are needed, and {available / 1e9:.1f} GB are available")


def measure(folder: Path, size: Size) -> dict[str, dict[str, float]]:
    """All steps; the figures of each by name."""
    (folder / "model").mkdir(parents=True)
    write_model(folder / "model", size)
    found: dict[str, dict[str, float]] = {"hash of the model's files": run("identify", folder)}
    for cold in (True, False):
        found[f"load, {_word(cold)}"] = {**run("read", folder, 0, cold), **run("load", folder, 0, cold)}
    found["stage"] = stage = run("train", folder)
    found["of it: delta"] = {
        **{name: stage[f"delta_{name}"] for name in ("seconds", "cpu", "bytes")},
        **{f"plain_{name}": stage[f"plain_delta_{name}"] for name in ("seconds", "cpu")},
    }
    for part in ("digest", "proof"):
        found[f"of it: {part}"] = {name: stage[f"{part}_{name}"] for name in ("seconds", "cpu", "bytes")}
    found[f"{STAGES - 1} stages more"] = run("chain", folder)
    for cold in (True, False):
        name = f"load a chain of {STAGES}, {_word(cold)}"
        found[name] = {**run("read", folder, STAGES, cold), **run("load", folder, STAGES, cold)}
    found["export"] = run("export", folder)
    found["merge"] = run("merge", folder)
    return found


def _word(cold: bool) -> str:
    return "cold" if cold else "warm"


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """The figures as Markdown."""
    head = (
        "step",
        "seconds",
        "CPU seconds",
        "bytes",
        "GB/s",
        "× plain safetensors",
        "the same, CPU time",
        "with the proof at most",
        "peak memory",
    )
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
    for name, row in found.items():
        cells = [name, f"{row['seconds']:.1f}", f"{row['cpu']:.1f}"]
        size = row.get("bytes")
        cells += [f"{size / 1e9:.2f} GB", f"{size / row['seconds'] / 1e9:.2f}"] if size else ["", ""]
        cells += [f"{row[f'plain_{of}'] / row[of]:.2f}" if f"plain_{of}" in row else "" for of in ("seconds", "cpu")]
        cells.append(f"{most:.2f}" if (most := ceiling(found, name)) else "")
        cells.append(f"{row['peak'] / 1e9:.2f} GB" if "peak" in row else "")
        lines.append(f"| {' | '.join(cells)} |")
    stage = found["stage"]
    lines += [
        "",
        f"Peak of the stage: {stage['peak'] / 1e9:.2f} GB; model + trained fp32 state + 1.5 GB is {stage['bound'] / 1e9:.2f} GB. "
        f"`plan` tells {stage['estimate'] / 1e9:.2f} GB for weights, gradients and optimizer: "
        f"{stage['estimate'] / stage['peak'] - 1:+.0%} (and {stage['activations'] / 1e9:.2f} GB for a photograph, not the tiny image here).",
    ]
    return "\n".join(lines)


def ceiling(found: Mapping[str, Mapping[str, float]], name: str) -> float | None:
    """Of the speed of plain safetensors in CPU time, what a step can reach that also proves the base by SHA-256; None for others.

    Its digests are as fast as those of this run's stage.
    """
    row, digests = found[name], found["of it: digest"]
    if "plain_cpu" not in row or name.startswith("of it"):
        return None
    proof = digests["cpu"] / digests["bytes"] * found["hash of the model's files"]["bytes"]
    return row["plain_cpu"] / (row["plain_cpu"] + proof)


def misses(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What is short of its goal, in words; speeds are compared in CPU time."""
    slow = [
        f"{name}: {row['plain_cpu'] / row['cpu']:.2f} times plain safetensors{_reason(found, name)}"
        for name, row in found.items()
        if "plain_cpu" in row and row["plain_cpu"] < GOAL * row["cpu"]
    ]
    stage = found["stage"]
    slow += ["the stage takes more memory than its bound"] if stage["peak"] > stage["bound"] else []
    far = abs(stage["estimate"] / stage["peak"] - 1) > NEAR
    return [*slow, *(["what a plan tells is more than 15 % off"] if far else [])]


def _reason(found: Mapping[str, Mapping[str, float]], name: str) -> str:
    most = ceiling(found, name)
    return f" (with the proof of the base at most {most:.2f})" if most and most < GOAL else ""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="a rehearsal in seconds")
    parser.add_argument(
        "--layers", type=int, default=36, help="of the language model; the vision tower has as many, at most 32"
    )
    parser.add_argument("--folder", type=Path, help="where the files go (removed afterwards); default a temporary one")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        step, folder, *more = json.loads(given.step)
        print(json.dumps(STEPS[step](Path(folder), *more)))
        return
    size = Size(real=False) if given.small else Size(given.layers, min(32, given.layers))
    os.environ |= {REHEARSAL: "1"} if given.small else {}
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="lmmcl-big-weights-") as folder:
        found = measure(Path(folder), size)
    print(table(found))
    print("\n".join(["", "Short of its goal:", *misses(found)]))


if __name__ == "__main__":
    main()
