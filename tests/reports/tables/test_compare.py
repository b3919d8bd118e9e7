from __future__ import annotations

import io
from pathlib import Path

import pytest
from made import SWEEP, write_sweep
from rich.console import Console
from synthetic_ledger import fill, plausible

from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.reports.tables.compare import compare_trials, comparison_table, sentence
from lmmcl.steps import Evaluate, Finetune

FIRST, SECOND = "sa_proj · lr 1e-3 · tiny-onevision", "gate_up · lr 1e-3 · tiny-onevision"


def planted(step: Evaluate) -> float:
    """gate_up forgets `colour` and nothing else differs."""
    checkpoint = step.checkpoint
    is_gate = isinstance(checkpoint, Finetune) and checkpoint.recipe.name == "gate_up"
    return 0.3 if is_gate and step.benchmark.name == "colour" else plausible(step)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    text = SWEEP.replace("[1.0e-3, 3.0e-4]}", "[1.0e-3], seed: [0, 1, 2]}")
    return load_sweep(write_sweep(tmp_path_factory.mktemp("compare"), text))


@pytest.fixture(scope="module")
def ledger(sweep: Sweep, tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    store = tmp_path_factory.mktemp("store")
    fill(sweep, store, questions=200, chance=planted)
    return Ledger(str(store))


def test_a_planted_loss_is_found_on_its_benchmark_and_on_no_other(sweep: Sweep, ledger: Ledger) -> None:
    found = compare_trials(sweep, ledger, f"{FIRST} · s0", f"{SECOND} · s0", alone=True)
    assert found.seeds == 1
    assert {each.name for each in found.benchmarks if each.significant} == {"colour"}
    lost = next(each for each in found.measures if each.name == "held_out_forgetting")
    assert lost.significant and lost.value < 0 and lost.low < lost.value < lost.high < 0


def test_all_seeds_of_both_grid_points_are_used_and_told(sweep: Sweep, ledger: Ledger) -> None:
    found = compare_trials(sweep, ledger, FIRST, f"{SECOND} · s0")
    assert (found.seeds, found.first, found.second) == (3, FIRST, SECOND)
    assert {each.name for each in found.benchmarks if each.significant} == {"colour"}


def test_two_seeds_of_one_grid_point_are_compared_alone(sweep: Sweep, ledger: Ledger) -> None:
    found = compare_trials(sweep, ledger, f"{FIRST} · s0", f"{FIRST} · s1")
    assert found.seeds == 1 and not any(each.significant for each in found.benchmarks)


def test_the_other_way_round_has_the_other_sign(sweep: Sweep, ledger: Ledger) -> None:
    one, other = (compare_trials(sweep, ledger, *names) for names in ((FIRST, SECOND), (SECOND, FIRST)))
    assert [each.value for each in one.benchmarks] == pytest.approx([-each.value for each in other.benchmarks])
    assert [each.p for each in one.benchmarks] == pytest.approx([each.p for each in other.benchmarks])


def test_a_trial_may_be_named_by_the_beginning_of_its_key(sweep: Sweep, ledger: Ledger) -> None:
    found = compare_trials(sweep, ledger, sweep.trials[0].key[:8], sweep.trials[3].key[:8], alone=True)
    assert (found.first, found.second) == (sweep.trials[0].name, sweep.trials[3].name)


def test_the_table_shows_every_benchmark_and_says_it_in_words(sweep: Sweep, ledger: Ledger) -> None:
    found = compare_trials(sweep, ledger, FIRST, SECOND)
    console = Console(file=io.StringIO(), width=120)
    console.print(comparison_table(found))
    text = console.file.getvalue()
    assert all(name in text for name in ("counting", "clock", "colour", "shape", "p (Holm)"))
    assert "differs on 1 of 4 benchmarks" in sentence(found) and "loses" in sentence(found)


def test_trials_that_a_budget_ends_are_compared_where_it_ends_them(sweep: Sweep, ledger: Ledger) -> None:
    both = load_sweep(sweep.file, ["search.stop={learning: {below: 101}}"])
    assert compare_trials(both, ledger, FIRST, SECOND).stages == (1, 1)
    assert compare_trials(sweep, ledger, FIRST, SECOND).stages == (2, 2)


def test_what_cannot_be_compared_is_refused(sweep: Sweep, ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="same trial"):
        compare_trials(sweep, ledger, FIRST, f"{FIRST} · s0")
    with pytest.raises(UserError, match="unknown trial"):
        compare_trials(sweep, ledger, FIRST, "sa_prj")
    with pytest.raises(UserError, match="no score yet"):
        compare_trials(sweep, Ledger(str(tmp_path)), FIRST, SECOND)


def test_trials_are_named_as_the_report_prints_them(sweep: Sweep, ledger: Ledger) -> None:
    found = compare_trials(sweep, ledger, "sa_proj", "gate_up")
    assert (found.seeds, found.first, found.second) == (3, FIRST, SECOND)
    alone = compare_trials(sweep, ledger, "sa_proj · s1", "gate_up · lr 0.001 · s1", alone=True)
    assert (alone.first, alone.second) == (f"{FIRST} · s1", f"{SECOND} · s1")
