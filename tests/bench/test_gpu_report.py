"""The report of one GPU keeps its time, measures what matters first, says what it left out, and is rehearsed on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gpu_report
import gpu_step
import pytest
import torch

TESTS = Path(__file__).parents[1]
CORE = "torch,transformers,peft,accelerate,safetensors,pydantic,pillow"


def reported(parts: Any, seconds: float = 1000.0) -> gpu_report.Report:
    return gpu_report.make_report(parts, gpu_report.Budget(seconds), with_tests=False, tell=lambda line: None)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Parts that are measured at once, without training anything."""
    parts: list[tuple[str, str]] = []

    def measure(row: gpu_report.Row, ledger: Any) -> None:
        parts.append((row.size, row.recipe))
        row.tokens_per_second, row.plain_tokens_per_second, row.utilisation = 1500.0, 1000.0, 0.5

    monkeypatch.setattr(gpu_report, "measure", measure)
    return parts


def test_all_parts_are_measured_in_their_order_and_shown(measured: list[tuple[str, str]]) -> None:
    report = reported(gpu_report.PARTS)
    assert measured == list(gpu_report.PARTS) and measured[0] == ("7b", "sa_proj")
    assert {size for size, _ in measured} == {"3b", "7b"}
    assert {recipe for _, recipe in measured} == {"sa_proj", "gate_up", "llm", "lora"}
    table = report.table()
    assert "1.50" in table and "lowest: 1.50" in table and "7b sa_proj (50%)" in table
    assert not report.failures


def test_a_part_that_the_time_is_too_short_for_is_left_out_and_named(measured: list[tuple[str, str]]) -> None:
    report = reported((("7b", "sa_proj"), ("3b", "sa_proj"), ("tiny", "llm")), seconds=80)
    assert measured == [("3b", "sa_proj"), ("tiny", "llm")], "the smaller ones fit"
    assert report.rows[0].note == "left out: takes about 100 s, 68 s are left"
    assert "left out: takes about 100 s" in report.table()


def test_the_time_ends_what_is_running(monkeypatch: pytest.MonkeyPatch) -> None:
    def swallows(row: gpu_report.Row, ledger: Any) -> None:
        try:
            time.sleep(30)
        except Exception:  # noqa: BLE001 - as code in between might
            pytest.fail("the end of the time must get through")

    monkeypatch.setattr(gpu_report, "measure", swallows)
    monkeypatch.setattr(gpu_report, "EXPECTED", {"tiny": 0.1})
    started = time.monotonic()
    report = reported((("tiny", "sa_proj"), ("tiny", "llm")), seconds=0.5)
    assert time.monotonic() - started < 5
    assert report.rows[-1].note == "stopped: the time is over" and not report.failures


def test_a_part_that_fails_is_shown_and_the_others_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(row: gpu_report.Row, ledger: Any) -> None:
        if row.recipe == "llm":
            raise ValueError("no such kernel")

    monkeypatch.setattr(gpu_report, "measure", fails)
    report = reported(gpu_report.SMALL_PARTS)
    assert report.failures == ["tiny llm"]
    assert "FAILED: ValueError: no such kernel" in report.table() and report.rows[-1].recipe == "lora"


def test_the_plan_decides_on_checkpointing_and_on_what_cannot_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    row = gpu_report.Row("7b", "llm")
    monkeypatch.setattr(gpu_report, "gpu_gb", lambda: 80.0)
    assert gpu_report.measure(row, None) is None  # type: ignore[arg-type]
    assert row.note.startswith("left out: plan says 1") and row.note.endswith("GB, the GPU has 80")
    setting, need = gpu_report.fitting("7b", "sa_proj")
    assert setting.checkpointing and 25 < need < 60
    monkeypatch.setattr(gpu_report, "gpu_gb", lambda: 139.0)
    setting, more = gpu_report.fitting("7b", "sa_proj")
    assert not setting.checkpointing and need < more < 139


def test_utilisation_is_counted_from_n_forward_n_back_and_what_trains() -> None:
    setting = gpu_report.setting_of("7b")
    tokens, flops = gpu_step.tokens_of(setting), gpu_step.update_flops(setting, "sa_proj")
    blocks, attention = 6.526e9, 28 * (2 * 3584 * 3584 + 2 * 3584 * 512)
    least = (4 * blocks + 2 * attention) * tokens.total
    assert least < flops < 1.25 * least, "attention, the frozen tower and the head of answers come on top"


@pytest.mark.slow
def test_the_rehearsal_passes_with_the_same_command_where_only_the_core_is_installed(tmp_path: Path) -> None:
    code = f"import runpy, sys; sys.argv = ['gpu_report.py', '--small', '--json', {str(tmp_path / 'report.json')!r}]\n"
    code += f"runpy.run_path({str(TESTS / 'bench' / 'gpu_report.py')!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, str(TESTS / "without_packages.py"), "--only", CORE, code],
        cwd=TESTS.parent,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=290,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert [row["recipe"] for row in report["rows"]] == ["sa_proj", "gate_up", "llm", "lora"]
    assert all(
        row["tokens_per_second"] and row["plain_tokens_per_second"] and row["planned_gb"] for row in report["rows"]
    )
    assert "exported in" in report["weights"] and "delta" in report["weights"]
    assert f"torch {torch.__version__}" in done.stdout and "padding" in done.stdout.splitlines()[-6]
