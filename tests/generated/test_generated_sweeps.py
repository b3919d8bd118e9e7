"""Changed sweep files: each becomes a plan or one message, in time, and what a store holds stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from generated.mutations import OF_YAML, OTHERS, SIZES, Tally, explore, mutated, seen_values
from synthetic_ledger import finished_sweep

from lmmcl.config.settings import Evaluation, Training
from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.config.sweep_file import Benchmarks, Grid, SweepFile
from lmmcl.config.validation import read_yaml
from lmmcl.errors import UserError
from lmmcl.inspection.status import status_view, sweep_status
from lmmcl.ledger import Ledger
from lmmcl.planning.plan import make_plan, plan_table
from lmmcl.terminal import wide_console

SEEDS: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "sweep_seeds.yaml").read_text(encoding="utf-8"))
SHIPPED = [read_yaml(path) for path in sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))]
ADDITIONS = {
    "": list(SweepFile.model_fields),
    "training": list(Training.model_fields),
    "evaluation": list(Evaluation.model_fields),
    "grids": list(Grid.model_fields),
    "counting": list(Training.model_fields),
    "benchmarks": list(Benchmarks.model_fields),
}


@pytest.mark.parametrize("examples", SIZES)
def test_a_changed_sweep_file_becomes_a_plan_or_one_message(
    examples: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = finished_sweep(tmp_path)
    ledger, path, tally = Ledger(str(tmp_path / "store")), tmp_path / "changed.yaml", Tally()
    (tmp_path / "rows.json").write_text(json.dumps([{"question": f"{n} ?", "answer": str(n)} for n in range(9)]))
    (tmp_path / "asked.csv").write_text("q,a\nwhich?,red\nwhere?,here\n")
    before = ledger.sizes("")

    def read(data: Any) -> bool:
        path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
        try:
            sweep = load_sweep(path)
        except UserError as error:
            str(error).encode()
            return False
        use(sweep, ledger)
        assert {trial.key for trial in load_sweep(path).trials} == {trial.key for trial in sweep.trials}
        assert ledger.sizes("") == before, "finished work was touched"
        return True

    explore(
        read,
        mutated(SEEDS, seen_values([*SEEDS, *SHIPPED]), additions=ADDITIONS, wild=[*OTHERS, *OF_YAML]),
        examples,
        tally,
    )
    assert all(ledger.has(step) for step in finished.steps.values())
    tally.check("sweep files", capsys)


def use(sweep: Sweep, ledger: Ledger) -> None:
    """What `plan` and `status` do with a sweep that was understood."""
    try:
        plan = make_plan(sweep, ledger)
        json.dumps(plan.to_dict())
        with (console := wide_console()).capture():
            console.print(plan_table(plan))
        plan.refuse_overlaps()
        plan.refuse_infeasible()
        progress = sweep_status(sweep, ledger)
        json.dumps(progress.to_dict())
        with console.capture():
            console.print(status_view(progress))
    except UserError as error:
        str(error).encode()
