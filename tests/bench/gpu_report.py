"""What a GPU hour buys, in at most eight minutes on one GPU of the class of an H200 (a smaller one measures fewer sizes).

    python tests/bench/gpu_report.py                  one GPU; without one, a rehearsal in small on the CPU
    python tests/bench/gpu_report.py --small          the rehearsal, also where there is a GPU
    python tests/bench/gpu_report.py --minutes 4      less time: what does not fit is left out and named

It needs torch, transformers, peft, accelerate and safetensors beside what lmmcl itself needs (pytest for the tests; no Ray), and downloads nothing.
First the tests of `tests/gpu`, then random models of the shapes of Qwen2.5-VL-3B and 7B with `sa_proj`, `gate_up`, `llm` and
`lora`: tokens a second and utilisation, peak memory beside what `plan` says, and the plain Hugging Face Trainer on the same rows in
the same run; last, how fast a delta is written, put back onto its base and exported. A short table comes last. Rows are of
mixed lengths. Utilisation counts 2 N operations forward, 2 N for the gradients of activations and 2 N for those of what
trains, a token; not what is computed twice. A part that fails is in the table, and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
for folder in (TESTS.parent, TESTS, TESTS / "bench"):
    sys.path.insert(0, str(folder))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gpu_step  # noqa: E402 - once it can be found
import torch  # noqa: E402

from lmmcl.ledger import Ledger  # noqa: E402
from lmmcl.models import get_model  # noqa: E402
from lmmcl.planning.memory_estimate import GB, RESERVE, stage_memory  # noqa: E402
from lmmcl.steps import Finetune, Pretrained  # noqa: E402

PARTS = (
    ("7b", "sa_proj"),
    ("3b", "sa_proj"),
    ("7b", "lora"),
    ("7b", "gate_up"),
    ("3b", "llm"),
    ("3b", "lora"),
    ("3b", "gate_up"),
    ("7b", "llm"),
)
"""What is measured, what matters most first: time may end before the last."""
SMALL_PARTS = tuple(("tiny", recipe) for recipe in ("sa_proj", "gate_up", "llm", "lora"))
EXPECTED = {"7b": 100.0, "3b": 55.0, "tiny": 10.0}
"""Seconds of a part before one of its size was timed: a guess, since it has not run on a GPU yet."""
TEST_SHARE = 0.25
"""Of the time, what the tests may take."""
WEIGHTS_SHARE = 0.15
"""Of the time, what is kept for writing and exporting weights."""
CORE = "not strategy and not divided_models"
"""The tests that need neither Ray nor DeepSpeed."""
RATIO, UTILISATION = 1.5, 0.45
"""What is aimed at: tokens a second over those of the plain Trainer, and for `sa_proj` of the 7 B model, of the GPU's peak."""


class OutOfTime(BaseException):
    """The time of the whole report is over; no code that handles errors handles this."""


@dataclass
class Budget:
    """The time that is left, and what a part of each size took."""

    seconds: float
    started: float = field(default_factory=time.monotonic)
    took: dict[str, float] = field(default_factory=dict)

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.started)

    def lacks(self, size: str, reserved: float = 0.0) -> str | None:
        """Why a part of a size is not begun."""
        expected = self.took.get(size, EXPECTED[size])
        have = self.left - reserved
        return None if expected <= have else f"left out: takes about {expected:.0f} s, {max(have, 0):.0f} s are left"

    @contextmanager
    def enforced(self) -> Iterator[None]:
        """Raises OutOfTime inside the `with` when the time is over."""

        def end(*_: Any) -> None:
            raise OutOfTime

        before = signal.signal(signal.SIGALRM, end)
        signal.setitimer(signal.ITIMER_REAL, max(self.left, 0.001))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


@dataclass
class Row:
    """One size and recipe; what was not measured is None, and `note` says why."""

    size: str
    recipe: str
    tokens_per_second: float | None = None
    plain_tokens_per_second: float | None = None
    utilisation: float | None = None
    peak_gb: float | None = None
    planned_gb: float | None = None
    padding_share: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Over the plain Trainer."""
        mine, plain = self.tokens_per_second, self.plain_tokens_per_second
        return mine / plain if mine and plain else None


def setting_of(size: str, checkpointing: bool = False) -> gpu_step.Setting:
    """Rows of mixed lengths, pictures of up to a thousand tokens; in small, of a few."""
    if size == "tiny":
        return gpu_step.Setting(
            "tiny", gpu_step.WARM_UP + 3, batch=8, micro=2, side=32, checkpointing=False, mixed=True
        )
    return gpu_step.Setting(
        size, gpu_step.WARM_UP + 5, batch=16, micro=4, side=256, checkpointing=checkpointing, mixed=True
    )


def planned(setting: gpu_step.Setting, recipe: str) -> float:
    """GB that `plan` says for the model of these shapes, without what CUDA takes for itself: torch does not count that."""
    own = gpu_step.step_of(setting, recipe)
    real = Finetune(
        Pretrained(get_model(setting.model().real_name)), own.recipe, None, own.skill, own.training, own.seed
    )
    return (stage_memory(real, setting.placement).total - RESERVE) / GB


def gpu_gb() -> float | None:
    """Memory of the GPU, less what CUDA takes for itself."""
    if not torch.cuda.is_available():
        return None
    return (torch.cuda.get_device_properties(0).total_memory - RESERVE) / GB


def fitting(size: str, recipe: str) -> tuple[gpu_step.Setting, float]:
    """The setting without checkpointing where `plan` says that it fits, else with it; and the GB that `plan` says."""
    setting, have = setting_of(size), gpu_gb()
    need = planned(setting, recipe)
    if have is not None and size != "tiny" and need > have:
        setting = replace(setting, checkpointing=True)
        need = planned(setting, recipe)
    return setting, need


def measure(row: Row, ledger: Ledger) -> Finetune | None:
    """Both ways of one size and recipe, into `row`; returns the recorded stage. Nothing is done where `plan` says that it cannot fit."""
    setting, row.planned_gb = fitting(row.size, row.recipe)
    have = gpu_gb()
    if have is not None and row.planned_gb > have:
        row.note = f"left out: plan says {row.planned_gb:.0f} GB, the GPU has {have:.0f}"
        return None
    row.note = "checkpointing" if setting.checkpointing else ""
    tokens, peak = gpu_step.tokens_of(setting).total, gpu_step.peak_flops()
    step = gpu_step.step_of(setting, row.recipe)
    gpu_step.free_memory()
    seconds, record = gpu_step.trained(step, ledger, setting.placement)
    row.tokens_per_second, row.padding_share = tokens / seconds, record["padding_share"]
    row.peak_gb = record["peak_memory_bytes"] / GB if setting.on_gpu else None
    row.utilisation = gpu_step.update_flops(setting, row.recipe) / seconds / peak if peak else None
    gpu_step.free_memory()
    try:
        plain_seconds, _ = gpu_step.plain(setting, row.recipe)
    except torch.OutOfMemoryError:
        row.note = f"{row.note}; plain Trainer: out of memory".lstrip("; ")
        return step
    row.plain_tokens_per_second = tokens / plain_seconds
    return step


def run_tests(budget: Budget) -> str:
    """What became of `tests/gpu`, in a line."""
    if find_spec("pytest") is None:
        return "left out: pytest is not installed"
    limit = min(TEST_SHARE * budget.seconds, budget.left)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-o",
        "addopts=",
        "-m",
        "not slow",
        "-k",
        CORE,
        str(TESTS / "gpu"),
    ]
    try:
        done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired as stopped:
        done_so_far = (stopped.stdout or b"").decode(errors="replace").strip().splitlines()[-1:]
        return f"stopped after {limit:.0f} s: {' '.join(done_so_far) or 'no test was done'}"
    last = done.stdout.strip().splitlines()[-1:] or done.stderr.strip().splitlines()[-1:]
    return " ".join(last) if done.returncode == 0 else f"FAILED: {' '.join(last)}\n{done.stdout[-3000:]}"


def weights_speed(step: Finetune, ledger: Ledger, folder: Path) -> str:
    """How fast the delta of a stage is written, put back onto its base, and exported, in a line."""
    from safetensors.torch import load_file

    from lmmcl.weights.checkpoint import export, load_checkpoint
    from lmmcl.weights.delta import DELTA, save_delta

    with ledger.opened(step.path, DELTA) as path:
        delta = load_file(path, device="cuda" if torch.cuda.is_available() else "cpu")
    size = sum(tensor.nbytes for tensor in delta.values()) / GB
    write = _timed(lambda: save_delta(folder, delta, parent_key="bench", base_digest="bench"))
    load = _timed(lambda: load_checkpoint(step, ledger, precision=step.training.precision))
    out = _timed(lambda: export(step, ledger, folder / "exported"))
    whole = sum(file.stat().st_size for file in (folder / "exported").glob("*.safetensors")) / GB
    return (
        f"delta {size:.3f} GB written in {write:.2f} s ({size / write:.2f} GB/s), base drawn and delta put back in {load:.1f} s, "
        f"{whole:.3f} GB exported in {out:.1f} s ({whole / out:.2f} GB/s)"
    )


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@dataclass
class Report:
    """All that came out."""

    device: str
    tests: str = "left out"
    weights: str = "left out: no stage was trained"
    rows: list[Row] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def table(self) -> str:
        """The short table."""
        head = f"{'size':6}{'recipe':9}{'tokens/s':>11}{'plain':>11}{'ratio':>7}{'MFU':>7}{'peak GB':>9}{'plan GB':>9}{'padding':>9}"
        lines = [
            f"{self.device}, torch {torch.__version__}",
            f"tests/gpu: {self.tests}",
            f"weights: {self.weights}",
            head,
        ]
        for row in self.rows:
            figures = (
                (row.tokens_per_second, "11,.0f"),
                (row.plain_tokens_per_second, "11,.0f"),
                (row.ratio, "7.2f"),
                (row.utilisation, "7.0%"),
                (row.peak_gb, "9.2f"),
                (row.planned_gb, "9.2f"),
                (row.padding_share, "9.0%"),
            )
            shown = [
                format(value, form) if value is not None else "–".rjust(int(form.split(",")[0].split(".")[0]))
                for value, form in figures
            ]
            lines.append(f"{row.size:6}{row.recipe:9}{''.join(shown)}  {row.note}".rstrip())
        return "\n".join([*lines, self._verdict()])

    def _verdict(self) -> str:
        """What is aimed at, and what came out."""
        ratios = [row.ratio for row in self.rows if row.ratio is not None]
        best = next((row for row in self.rows if (row.size, row.recipe) == ("7b", "sa_proj")), None)
        used = best.utilisation if best else None
        least = f"{min(ratios):.2f}" if ratios else "not measured"
        return (
            f"aims: ratio of at least {RATIO} everywhere (lowest: {least}), utilisation of at least {UTILISATION:.0%} for 7b sa_proj "
            f"({f'{used:.0%}' if used is not None else 'not measured'})"
        )


def make_report(
    parts: tuple[tuple[str, str], ...], budget: Budget, *, with_tests: bool, tell: Callable[[str], None]
) -> Report:
    """All parts that the time allows, in their order; one that fails is noted, and the others are measured."""
    report = Report(
        torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU, a rehearsal: its figures mean nothing"
    )
    if with_tests:
        report.tests = run_tests(budget)
        tell(f"tests/gpu: {report.tests}")
        report.failures += ["tests/gpu"] if report.tests.startswith("FAILED") else []
    with tempfile.TemporaryDirectory() as folder, budget.enforced():
        try:
            _measure_all(parts, budget, report, Path(folder), tell)
        except OutOfTime:
            report.rows += [Row("", "", note="stopped: the time is over")]
    return report


def _measure_all(
    parts: tuple[tuple[str, str], ...], budget: Budget, report: Report, folder: Path, tell: Callable[[str], None]
) -> None:
    kept: tuple[Finetune, Ledger] | None = None
    for size, recipe in parts:
        row, started = Row(size, recipe), time.monotonic()
        store = folder / f"{size}-{recipe}"
        report.rows.append(row)
        if lacks := budget.lacks(size, WEIGHTS_SHARE * budget.seconds):
            row.note = lacks
            continue
        try:
            step = measure(row, Ledger(str(store)))
        except Exception as error:  # noqa: BLE001 - shown in the table, and the status says so
            row.note = f"FAILED: {type(error).__name__}: {str(error)[:200]}"
            report.failures.append(f"{size} {recipe}")
            continue
        if step is not None:
            budget.took[size] = 1.1 * (time.monotonic() - started)
        if step is not None and kept is None:
            kept = step, Ledger(str(store))
        else:
            shutil.rmtree(store, ignore_errors=True)  # a delta of the largest recipe takes 14 GB
        tell(f"{size} {recipe}: {time.monotonic() - started:.0f} s, {budget.left:.0f} s are left")
    if kept is not None:
        gpu_step.free_memory()
        try:
            report.weights = f"{kept[0].recipe.name} of {kept[0].model.reference}: {weights_speed(*kept, folder)}"
        except OutOfTime:
            report.weights = "stopped: the time is over"
            raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny models, as where there is no GPU: a rehearsal")
    parser.add_argument(
        "--minutes", type=float, default=8.0, help="for all together; what does not fit is left out and named"
    )
    parser.add_argument("--no-tests", action="store_true", help="leave tests/gpu out")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    small = arguments.small or not torch.cuda.is_available()
    report = make_report(
        SMALL_PARTS if small else PARTS,
        Budget(60 * arguments.minutes),
        with_tests=not arguments.no_tests,
        tell=lambda line: print(line, flush=True),
    )
    print(report.table())
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(report), indent=1), encoding="utf-8")
    if report.failures:
        sys.exit(f"failed: {', '.join(report.failures)}")


if __name__ == "__main__":
    main()
