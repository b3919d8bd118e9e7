"""A plan says before it is spent what a sweep will cost; the plans of the sweeps that ship do not change by accident."""

from __future__ import annotations

import json
from pathlib import Path

from made import made_trial

from lmmcl.ledger import Ledger
from lmmcl.runner.plan import make_plan
from lmmcl.spec.sweep import Sweep, load_sweep

REPOSITORY = Path(__file__).parents[2]
GOLDEN = REPOSITORY / "tests" / "golden" / "plans.json"


def plans_that_ship(store: Path) -> dict[str, dict]:
    found = {}
    for path in sorted((REPOSITORY / "sweeps").glob("*.yaml")):
        plan = make_plan(load_sweep(path), Ledger(str(store)))
        found[path.stem] = {"trials": len(plan.trials), "asked_by_trials": plan.asked_by_trials, **plan.wanted}
    return found


def test_the_plans_of_the_sweeps_that_ship_are_as_written_down(tmp_path: Path) -> None:
    assert plans_that_ship(tmp_path) == json.loads(GOLDEN.read_text()), (
        "A sweep that ships now computes other steps. If that is meant, write the new counts to tests/golden/plans.json."
    )


def test_what_trials_share_is_planned_once(tmp_path: Path) -> None:
    trials = (made_trial(skills=("first", "second")), made_trial(skills=("first", "third"), held_out=("kept",)))
    plan = make_plan(Sweep("made", "", "made.yaml", trials), Ledger(str(tmp_path)))
    assert plan.wanted["finetune"] == 3
    assert plan.wanted["pretrained"] == 1
    assert plan.asked_by_trials == sum(len(trial.steps()) for trial in trials) > sum(plan.wanted.values())


def test_what_is_recorded_is_not_to_run(tmp_path: Path) -> None:
    ledger, trial = Ledger(str(tmp_path)), made_trial()
    with ledger.writing(trial.stages[1].checkpoint) as draft:
        draft.commit({})
    plan = make_plan(Sweep("made", "", "made.yaml", (trial,)), ledger)
    assert (plan.recorded["finetune"], plan.to_run["finetune"]) == (1, 1)
    assert not plan.is_done
    per_stage = trial.trained_parameters() * 2
    assert plan.bytes_to_write == per_stage, "bf16, one of two stages is there"
