"""A thousand trials: the report in a minute, the page below 15 MB and drawn in seconds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from made import write_sweep
from synthetic_ledger import fill
from test_page import in_a_browser, needs_browser

from lmmcl.ledger import Ledger
from lmmcl.reports.collect import collect
from lmmcl.reports.page import write_page
from lmmcl.reports.results import SweepResults
from lmmcl.spec.sweep import load_sweep

TRIALS = 1000
SWEEP = f"""
name: large
orders:
  main: [birds, counting, microscopy, digits, clock]
benchmarks: {{held_out: [colour, shape, size, pattern, presence, chart, characters, position]}}
evaluation: {{limit: 200}}
grids:
  - model: [tiny-onevision]
    recipe: [llm, sa_proj, gate_up, mlp]
    learning_rate: [{", ".join(f"{1e-5 * (place + 1):.5f}" for place in range(TRIALS // 4))}]
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepResults, float]:
    folder = tmp_path_factory.mktemp("large")
    sweep = load_sweep(write_sweep(folder, SWEEP))
    fill(sweep, folder / "store", questions=200, updates=50)
    started = time.monotonic()
    results = collect(sweep, Ledger(str(folder / "store")))
    return results, time.monotonic() - started


def test_the_report_takes_less_than_a_minute_and_the_page_less_than_15_megabytes(
    large: tuple[SweepResults, float], tmp_path: Path
) -> None:
    results, seconds = large
    assert len(results.trials) == TRIALS and all(trial.state == "done" for trial in results.trials)
    started = time.monotonic()
    write_page(results, tmp_path / "page.html")
    size, total = (tmp_path / "page.html").stat().st_size, seconds + time.monotonic() - started
    print(f"report {total:.0f} s, page {size / 1e6:.1f} MB")
    assert total < 60 and size < 15_000_000


@needs_browser
def test_a_thousand_trials_are_painted_within_three_seconds(large: tuple[SweepResults, float], tmp_path: Path) -> None:
    seen = in_a_browser(large[0], tmp_path, real_time=True)
    print(seen["paint"])
    assert seen["faults"] == [] and seen["all"] == TRIALS
    assert seen["paint"]["first-contentful-paint"] < 3000
