"""A run resolves its sweep once: one context has the trials that were proposed, and how far all of them are."""

from __future__ import annotations

from pathlib import Path

import lmmcl
from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger
from lmmcl.search.run_context import RunContext
from lmmcl.search.search_state import Proposals

SEARCH = """
name: searched
orders: {main: [counting]}
benchmarks: {held_out: [colour]}
training: {max_steps: 2, examples: 32, global_batch_size: 16, precision: fp32}
evaluation: {precision: fp32, limit: 4}
search: {optuna: {trials: 3, objectives: {learning: max}}}
grids:
  - {model: [tiny-onevision], recipe: [sa_proj], learning_rate: {log_uniform: [1.0e-4, 1.0e-2]}}
"""


def test_a_context_has_the_trials_that_were_proposed_and_finds_those_of_others_when_it_is_refreshed(
    tmp_path: Path,
) -> None:
    (tmp_path / "searched.yaml").write_text(SEARCH)
    sweep, ledger = load_sweep(tmp_path / "searched.yaml"), Ledger(str(tmp_path / "store"))
    context = RunContext.resolve(sweep, ledger)
    assert context.sweep.trials == context.listed.trials == ()
    proposals = Proposals(sweep.spaces[0], ledger)
    first = proposals.add({"learning_rate": 1.0e-3}).trial
    context.add(first)
    context.add(first)
    assert [trial.key for trial in context.sweep.trials] == [first.key]
    second = proposals.add({"learning_rate": 1.0e-2}).trial
    context.refresh()
    assert [trial.key for trial in context.sweep.trials] == [first.key, second.key]
    assert set(first.steps()) | set(second.steps()) == set(context.steps())
    assert context.of(first).stopped is None


def test_proposals_are_resolved_in_one_place() -> None:
    package = Path(lmmcl.__file__).parent
    users = [path.name for path in package.rglob("*.py") if "with_proposals(" in path.read_text(encoding="utf-8")]
    assert sorted(users) == ["run_context.py", "search_state.py"]
