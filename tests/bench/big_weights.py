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
import contextlib
import gc
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.settings import Training
from lmmcl.ledger import Ledger
from lmmcl.methods import get_mitigation
from lmmcl.methods.recipes.recipe import get_recipe
from lmmcl.models import get_model
from lmmcl.models.inventory import meta_model
from lmmcl.planning.memory_estimate import RESERVE, stage_memory
from lmmcl.steps import Finetune, Merge, Pretrained
from lmmcl.tasks.examples import ask
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.training.finetune import finetune
from lmmcl.training.stage import loop
from lmmcl.training.stage.memory import peak_bytes, start_peak
from lmmcl.weights import checkpoint
from lmmcl.weights.merging import merge

GOAL = 0.7
"""Of the speed of plain safetensors."""
SPARE = 1.5e9
"""Bytes that a stage may take beside the model and what trains."""
NEAR = 0.15
SHARD = 2 * 10**9
STAGES = 5
CPU = torch.device("cpu")
REHEARSAL = "LMMCL_BENCH_REHEARSAL"
"""Environment variable that says that all steps share this process."""


@dataclass(frozen=True)
class Size:
    """The model: layers of language model and vision tower, and whether they have the real widths."""

    layers: int = 36
    depth: int = 32
    real: bool = True

    def values(self) -> tuple[dict[str, Any], Any]:
        """Configuration and a processor that knows a few words."""
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from gpu_step import MROPE_3B, TEXT_3B, VISION_3B
        from models.small_families import qwen2_5_vl

        config, processor = qwen2_5_vl()
        text, vision = config["text_config"], config["vision_config"]
        if self.real:
            text |= {**TEXT_3B, "num_hidden_layers": self.layers, "tie_word_embeddings": True}
            text["rope_parameters"] = {**text["rope_parameters"], "mrope_section": MROPE_3B}
            vision |= {**VISION_3B, "depth": self.depth}
            config["tie_word_embeddings"] = True
        return config, processor


def write_model(folder: Path, size: Size) -> None:
    """A checkpoint of random weights, a shard at a time."""
    config, processor = size.values()
    model = meta_model(config)
    model.config.dtype = torch.bfloat16
    model.config.save_pretrained(folder)
    processor.save_pretrained(folder)
    torch.manual_seed(0)
    shards: list[dict[str, torch.Tensor]] = [{}]
    places: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if sum(tensor.nbytes for tensor in shards[-1].values()) > SHARD:
            _write_shard(folder, len(shards), shards[-1])
            shards[-1] = {}
            shards.append({})
        value = torch.empty(parameter.shape, dtype=torch.bfloat16)
        shards[-1][name] = value.fill_(1.0) if "norm" in name else value.normal_(0, 0.02)
        places[name] = len(shards)
    _write_shard(folder, len(shards), shards[-1])
    index = {"metadata": {}, "weight_map": {name: _shard(number) for name, number in places.items()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _shard(number: int) -> str:
    return f"model-{number:05}.safetensors"


def _write_shard(folder: Path, number: int, tensors: Mapping[str, torch.Tensor]) -> None:
    save_file(dict(tensors), folder / _shard(number), metadata={"format": "pt"})


def stages(folder: Path) -> list[Finetune]:
    """A chain of stages: two updates of all of attention, then one update of the last layers' each."""
    rows = [ask(str(n), "what is shown ?", "red circle", Image.new("RGB", (32, 32), (9 * n, 40, 90))) for n in range(4)]
    skill = Skill("shades", 1, load=lambda: rows, benchmark=Benchmark("shades", 1, "exact_match", load=list))
    training = Training(learning_rate=1e-3, global_batch_size=1, max_steps=2, warmup_ratio=0, precision="bf16")
    late = get_recipe({"name": "late", "train": ["llm.blocks.last-2.attention"], "partial": True})
    step = Finetune(Pretrained(get_model(str(folder / "model"))), get_recipe("sa_proj"), None, skill, training, seed=0)
    found = [step]
    for seed in range(1, STAGES):
        found.append(replace(step, parent=found[-1], recipe=late, training=replace_steps(training), seed=seed))
    return found


def replace_steps(training: Training) -> Training:
    """The same for one update."""
    return training.model_copy(update={"max_steps": 1})


def shards(folder: Path) -> list[Path]:
    """The files of the model."""
    return sorted((folder / "model").glob("*.safetensors"))


def deltas(folder: Path, number: int) -> list[Path]:
    """The delta files of the first stages."""
    return [folder / "store" / step.path / "delta.safetensors" for step in stages(folder)[:number]]


def evict(files: Sequence[Path]) -> None:
    """Out of the page cache with them."""
    for file in files:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@dataclass
class Spent:
    """Seconds by the clock, and of this process's CPU time, which others on the machine do not lengthen."""

    seconds: float = 0.0
    cpu: float = 0.0

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Add the time of the `with`."""
        clock, cpu = time.perf_counter(), time.process_time()
        yield
        self.seconds += time.perf_counter() - clock
        self.cpu += time.process_time() - cpu

    def fields(self, prefix: str = "") -> dict[str, float]:
        """For a row of figures."""
        return {f"{prefix}seconds": self.seconds, f"{prefix}cpu": self.cpu}

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """`work`, whose time is added up."""

        def timed(*given: Any, **more: Any) -> Any:
            with self.counting():
                return work(*given, **more)

        return timed


def plain_read(files: Sequence[Path], spent: Spent) -> None:
    """Read the files into memory by safetensors, which maps them: what is mapped is read when it is looked at."""
    with spent.counting():
        for file in files:
            for tensor in load_file(file).values():
                tensor.clone()


def plain_write(folder: Path, files: Sequence[Path], spent: Spent) -> None:
    """Write by safetensors what the files hold."""
    for number, file in enumerate(files):
        tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
        with spent.counting():
            save_file(tensors, folder / f"plain-{number}.safetensors")
        (folder / f"plain-{number}.safetensors").unlink()


def size_of(files: Sequence[Path]) -> int:
    """Bytes of files."""
    return sum(file.stat().st_size for file in files)


# Steps, each in a process of its own. They return JSON values; `cold` says whether files are out of the page cache.


def read_plainly(folder: Path, number: int, cold: bool) -> dict[str, float]:
    """Model and the first deltas by safetensors."""
    files, spent = [*shards(folder), *deltas(folder, number)], Spent()
    evict(files if cold else [])
    plain_read(files, spent)
    return {**spent.fields("plain_"), "bytes": size_of(files)}


def identify(folder: Path) -> dict[str, float]:
    """The content of the files, which is the model's name; remembered for the steps after."""
    evict(shards(folder))
    with measured() as found:
        get_model(str(folder / "model")).identity()
    return {**found, "bytes": size_of(shards(folder))}


def load(folder: Path, number: int, cold: bool) -> dict[str, float]:
    """The model that `number` stages ended in."""
    step = stages(folder)[number - 1] if number else Pretrained(get_model(str(folder / "model")))
    files = [*shards(folder), *deltas(folder, number)]
    evict(files if cold else [])
    with measured() as found:
        checkpoint.load_checkpoint(step, Ledger(str(folder / "store")), precision="bf16")
    return {**found, "bytes": size_of(files)}


def train(folder: Path) -> dict[str, float]:
    """Two updates of attention, with the time of digests and of the delta."""
    step, ledger = stages(folder)[0], Ledger(str(folder / "store"))
    digests, delta, plain = Spent(), Spent(), Spent()
    loop.digest_tensors, loop.save_delta = digests.around(loop.digest_tensors), delta.around(loop.save_delta)
    with measured() as found:
        record = finetune(step, ledger, TrainingPlacement())
    plain_write(folder, deltas(folder, 1), plain)
    size = 2 * record["total_parameters"]
    return {
        **found,
        **digests.fields("digest_"),
        **delta.fields("delta_"),
        **plain.fields("plain_delta_"),
        "train_seconds": record["train_seconds"],
        "digest_bytes": 2 * size,
        "delta_bytes": record["checkpoint_bytes"],
        "estimate": stage_memory(step, TrainingPlacement()).total - RESERVE,
        "bound": size + 16 * record["trained_parameters"] + SPARE,
    }


def continue_chain(folder: Path) -> dict[str, float]:
    """The stages after the first."""
    with measured() as found:
        for step in stages(folder)[1:]:
            finetune(step, Ledger(str(folder / "store")), TrainingPlacement())
    return found


def write_export(folder: Path) -> dict[str, float]:
    """The last stage as a plain folder; and the same bytes read and written by safetensors."""
    out, read = folder / "export", [*shards(folder), *deltas(folder, STAGES)]
    step = stages(folder)[-1]
    evict(read)
    with measured() as found:
        checkpoint.export(step, Ledger(str(folder / "store")), out)
    written = sorted(out.glob("*.safetensors"))
    plain = _plainly(folder, read, written)
    size = size_of(read) + size_of(written)
    shutil.rmtree(out)
    return {**found, **plain, "bytes": size}


def write_merge(folder: Path) -> dict[str, float]:
    """The base and the last stage half and half."""
    tuned, ledger = stages(folder)[-1], Ledger(str(folder / "store"))
    step = Merge(Pretrained(tuned.model), (tuned,), get_mitigation({"wise_ft": {"alpha": 0.5}}))
    read = [*shards(folder), *deltas(folder, STAGES)]
    evict(read)
    with measured() as found:
        merge(step, ledger)
    written = [folder / "store" / step.path / "delta.safetensors"]
    return {**found, **_plainly(folder, read, written), "bytes": size_of(read) + size_of(written)}


def _plainly(folder: Path, read: Sequence[Path], written: Sequence[Path]) -> dict[str, float]:
    """The same bytes by safetensors, out of the page cache like the step itself."""
    spent = Spent()
    gc.collect()
    evict(read)
    plain_read(read, spent)
    plain_write(folder, written, spent)
    return spent.fields("plain_")


@contextlib.contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Seconds, and the peak of resident memory above what the process had before."""
    found: dict[str, float] = {}
    start_peak()
    before, spent = peak_bytes(CPU), Spent()
    with spent.counting():
        yield found
    found |= {**spent.fields(), "peak": peak_bytes(CPU) - before}


NEEDS = {"identify": 0.1, "read": 1.1, "load": 1.2, "train": 1.8, "chain": 1.2, "export": 2.2, "merge": 1.5}
"""Times the model's bytes, beside SPARE: what a step needs of the machine's memory."""
PATIENCE = 900
"""Seconds to wait for it."""

STEPS: dict[str, Callable[..., dict[str, float]]] = {
    "identify": identify,
    "read": read_plainly,
    "load": load,
    "train": train,
    "chain": continue_chain,
    "export": write_export,
    "merge": write_merge,
}


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
    """Return when so many bytes are available on this machine, which others may use too; gives up after a while."""
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
    found["of it: digests"] = {name: stage[f"digest_{name}"] for name in ("seconds", "cpu", "bytes")}
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
        "peak memory",
    )
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
    for name, row in found.items():
        cells = [name, f"{row['seconds']:.1f}", f"{row['cpu']:.1f}"]
        size = row.get("bytes")
        cells += [f"{size / 1e9:.2f} GB", f"{size / row['seconds'] / 1e9:.2f}"] if size else ["", ""]
        cells += [f"{row[f'plain_{of}'] / row[of]:.2f}" if f"plain_{of}" in row else "" for of in ("seconds", "cpu")]
        cells.append(f"{row['peak'] / 1e9:.2f} GB" if "peak" in row else "")
        lines.append(f"| {' | '.join(cells)} |")
    stage = found["stage"]
    lines += [
        "",
        f"Peak of the stage: {stage['peak'] / 1e9:.2f} GB; model + trained fp32 state + 1.5 GB is {stage['bound'] / 1e9:.2f} GB. "
        f"`plan` tells {stage['estimate'] / 1e9:.2f} GB without its reserve: {stage['estimate'] / stage['peak'] - 1:+.0%}.",
    ]
    return "\n".join(lines)


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
        print(table(measure(Path(folder), size)))


if __name__ == "__main__":
    main()
