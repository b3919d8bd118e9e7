"""Checking and encoding data keep their pace: rows a second, peak memory, and the ratio to `datasets.map`."""

from __future__ import annotations

from pathlib import Path

import data_check
import encoding
import pytest

PACE = {"jsonl": 20_000, "json": 8_000, "parquet": 20_000}
"""Rows a second of one core."""


@pytest.mark.bench
def test_a_check_keeps_its_pace_and_its_memory(tmp_path: Path) -> None:
    data_check.write(tmp_path, 200_000, 10_000)
    found = data_check.measure(tmp_path)
    print(found)
    for kind, pace in PACE.items():
        assert found[kind]["rows_per_cpu_second"] >= pace, kind
        assert found[kind]["peak_mib"] <= 400, kind


@pytest.mark.bench
def test_encoding_is_at_least_as_fast_as_datasets_map() -> None:
    found = encoding.measure("tiny-qwen", rows=200, size=336, rounds=3)
    print(found)
    assert found["ratio"] >= 1.0


@pytest.mark.slow
def test_both_benches_run_in_small(tmp_path: Path) -> None:
    data_check.write(tmp_path, 50, 20)
    assert {kind: found["rows"] for kind, found in data_check.measure(tmp_path).items()} == dict.fromkeys(PACE, 50)
    assert encoding.measure("tiny-qwen", rows=6, size=64, rounds=1)["rows"] == 6
