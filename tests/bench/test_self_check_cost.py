"""What the self-check costs: its share of the CPU seconds of one trial of the quickstart, all stages and evaluations included.

The whole quickstart has six trials, which share the first look at each benchmark: its share there is smaller.
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lmmcl.cli import app
from lmmcl.models.self_check import SelfCheck
from lmmcl.training.stage import trainer

pytestmark = pytest.mark.bench

QUICKSTART = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"
ONE_TRIAL = ["--set", "grids.0.recipe=[gate_up]", "--set", "grids.0.learning_rate=[0.001]"]


def test_the_self_check_costs_at_most_one_per_cent_of_the_quickstart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent: dict[str, list[float]] = defaultdict(list)

    def timed(name: str, original: Any) -> Any:
        def call(*args: Any) -> Any:
            start = time.process_time()
            try:
                return original(*args)
            finally:
                spent[name].append(time.process_time() - start)

        return call

    monkeypatch.setattr(trainer, "check_first_batch", timed("stages", trainer.check_first_batch))
    monkeypatch.setattr(SelfCheck, "check_prompts", timed("evaluations", SelfCheck.check_prompts))
    arguments = ["run", str(QUICKSTART), *ONE_TRIAL, "--store", str(tmp_path), "--inline", "--mlflow", "off"]
    start = time.process_time()
    done = CliRunner().invoke(app, arguments)
    whole = time.process_time() - start
    assert done.exit_code == 0, done.output
    checks = sum(sum(times) for times in spent.values())
    told = ", ".join(f"{len(times)} {name} {sum(times):.2f} s" for name, times in spent.items())
    print(
        f"\none trial of the quickstart: {whole:.1f} s of CPU; self-checks {checks:.2f} s ({told}): {checks / whole:.2%}"
    )
    assert len(spent["stages"]) == 3 and len(spent["evaluations"]) >= 11
    assert checks <= 0.01 * whole
