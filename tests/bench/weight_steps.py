"""The steps of the bench of a large model's weights: a random model, its stages, and each step measured beside plain safetensors."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
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
from lmmcl.planning.memory_estimate import stage_memory
from lmmcl.steps import Finetune, Merge, Pretrained
from lmmcl.tasks.examples import ask
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.training.finetune import finetune
from lmmcl.training.stage import loop
from lmmcl.training.stage.memory import peak_bytes, start_peak
from lmmcl.weights import checkpoint, resident
from lmmcl.weights.delta import save_delta
from lmmcl.weights.merging import merge
from lmmcl.weights.swapping import forget_loaded

SPARE = 1.5e9
"""Bytes that a stage may take beside the model and what trains."""
STAGES = 5
CPU = torch.device("cpu")


def stages(folder: Path) -> list[Finetune]:
    """A chain of stages: two updates of all of attention, then one update of the last layers' each."""
    rows = [ask(str(n), "what is shown ?", "red circle", Image.new("RGB", (32, 32), (9 * n, 40, 90))) for n in range(4)]
    skill = Skill("shades", 1, load=lambda: rows, benchmark=Benchmark("shades", 1, "exact_match", load=list))
    training = Training(learning_rate=1e-3, global_batch_size=1, max_steps=2, warmup_ratio=0, precision="bf16")
    late = get_recipe({"name": "late", "train": ["llm.blocks.last-2.attention"], "partial": True})
    step = Finetune(Pretrained(get_model(str(folder / "model"))), get_recipe("sa_proj"), None, skill, training, seed=0)
    found, once = [step], training.model_copy(update={"max_steps": 1})
    for seed in range(1, STAGES):
        found.append(replace(step, parent=found[-1], recipe=late, training=once, seed=seed))
    return found


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
    """Two updates of attention, with the time of the base's digests, of the proof and of the delta."""
    step, ledger = stages(folder)[0], Ledger(str(folder / "store"))
    forget_loaded()  # a rehearsal runs all steps in one process
    digests, proof, delta, plain = Spent(), Spent(), Spent(), Spent()
    resident.digest_tensors = digests.around(resident.digest_tensors)
    loop.fast_digests, loop.save_delta = proof.around(loop.fast_digests), delta.around(loop.save_delta)
    with measured() as found:
        record = finetune(step, ledger, TrainingPlacement())
    plain_write(folder, deltas(folder, 1), plain)
    delta = min(
        delta, _written_again(folder), key=lambda spent: spent.cpu
    )  # the first has to make room in the page cache
    size, estimate = 2 * record["total_parameters"], stage_memory(step, TrainingPlacement())
    return {
        **found,
        **digests.fields("digest_"),
        **proof.fields("proof_"),
        **delta.fields("delta_"),
        **plain.fields("plain_delta_"),
        "train_seconds": record["train_seconds"],
        "digest_bytes": size,
        "proof_bytes": size,
        "delta_bytes": record["checkpoint_bytes"],
        "estimate": estimate.weights + estimate.gradients + estimate.optimizer,
        "activations": estimate.activations,
        "bound": size + 16 * record["trained_parameters"] + SPARE,
    }


def _written_again(folder: Path) -> Spent:
    """The delta of the first stage once more, elsewhere."""
    tensors, spent = {name: tensor.clone() for name, tensor in load_file(deltas(folder, 1)[0]).items()}, Spent()
    with tempfile.TemporaryDirectory(dir=folder) as out, spent.counting():
        save_delta(Path(out), tensors, parent_key="", base_digest="")
    return spent


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


STEPS: dict[str, Callable[..., dict[str, float]]] = {
    "identify": identify,
    "read": read_plainly,
    "load": load,
    "train": train,
    "chain": continue_chain,
    "export": write_export,
    "merge": write_merge,
}
