"""Trials by name where only a store is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made import SWEEP, write_sweep
from synthetic_ledger import fill, forget

from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.errors import UserError
from lmmcl.inspection.step_details import step_facts
from lmmcl.inspection.stored_trials import find_checkpoint
from lmmcl.ledger import Ledger
from lmmcl.reports.failures import keep_failure
from lmmcl.tracking.extras import resolved


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return load_sweep(write_sweep(tmp_path, SWEEP))


@pytest.fixture
def ledger(sweep: Sweep, tmp_path: Path) -> Ledger:
    fill(sweep, tmp_path / "store", questions=5)
    ledger = Ledger(str(tmp_path / "store"))
    ledger.keep_text(f"reports/{sweep.name}/sweep.json", resolved(sweep))
    return ledger


def test_a_name_as_it_is_printed_means_the_last_checkpoint(sweep: Sweep, ledger: Ledger) -> None:
    trial = sweep.trials[1]
    short = f"{trial.recipe.name} · lr 3e-4"
    for wanted in (trial.name, short, f"{sweep.name}: {trial.name}", trial.key, trial.key[:9]):
        assert find_checkpoint(ledger, wanted).key == trial.key, wanted
        assert step_facts(ledger, wanted)["record"]["key"] == trial.key, wanted


def test_a_part_of_several_names_is_refused(sweep: Sweep, ledger: Ledger) -> None:
    for find in (find_checkpoint, step_facts):
        with pytest.raises(UserError, match="ambiguous"):
            find(ledger, "tiny-onevision")
        with pytest.raises(
            UserError, match=r"unknown checkpoint or trial 'gate_pu'.*did you mean the one with 'gate_up'"
        ):
            find(ledger, "gate_pu")


def test_a_misspelt_recipe_is_found_without_its_settings(tmp_path: Path) -> None:
    text = SWEEP.replace("recipe: [sa_proj, gate_up]", "recipe: [{lora_attention: {rank: 8, alpha: 16}}]")
    sweep, ledger = load_sweep(write_sweep(tmp_path, text)), Ledger(str(tmp_path / "store"))
    fill(sweep, Path(ledger.store), questions=5)
    ledger.keep_text(f"reports/{sweep.name}/sweep.json", resolved(sweep))
    with pytest.raises(UserError, match=r"did you mean the one with 'lora_attention"):
        find_checkpoint(ledger, "lora_atention")


def test_two_sweeps_with_a_trial_of_one_name_are_told_apart_by_the_sweeps_name(sweep: Sweep, ledger: Ledger) -> None:
    longer = load_sweep(sweep.file, ["training.epochs=2", "name=longer"])
    fill(longer, Path(ledger.store), questions=5)
    ledger.keep_text("reports/longer/sweep.json", resolved(longer))
    name = sweep.trials[0].name
    with pytest.raises(UserError, match=f"ambiguous.*{sweep.trials[0].key}"):
        find_checkpoint(ledger, name)
    assert find_checkpoint(ledger, f"longer: {name}").key == longer.trials[0].key


def test_a_trial_that_is_not_finished_is_answered_with_what_it_has(sweep: Sweep, ledger: Ledger) -> None:
    trial = sweep.trials[0]
    forget(ledger, trial.stages[-1])
    before = trial.stages[-2]
    for find in (find_checkpoint, step_facts):
        with pytest.raises(
            UserError,
            match=f"no checkpoint of its last stage yet; after stage {before.number} .*{before.checkpoint.key}",
        ):
            find(ledger, trial.name)
    keep_failure(ledger, replace(trial), "row 3 broke", "Traceback")
    assert step_facts(ledger, "sa_proj · lr 0.001")["why"] == "row 3 broke"
