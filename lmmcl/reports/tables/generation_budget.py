"""What trials generated while they trained: the budget of on-policy methods in updates, answers and tokens, and what it earned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from lmmcl.reports.recommend import short_name
from lmmcl.reports.results import SweepResults
from lmmcl.reports.seeds import averaged, has_seeds
from lmmcl.reports.tables.small_table import SmallTable

TITLE = "Generated while training"
HEADS = ("trial", "updates", "answers", "tokens", "reward at first", "reward at last")
NOTE = (
    "All stages together, mean over seeds; methods that generate nothing make the same updates on the stage's answers. Rewards are "
    "the means of the first and the last tenth of the stages that are rewarded, from 0 to 1."
)
BUDGET = ("updates", "samples", "generated_tokens")


def budget_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Of a stage's record: updates, samples, generated tokens, first and last mean reward; empty where nothing was generated."""
    findings = record.get("mitigation") or {}
    single = findings if "generated_tokens" in findings else {}
    for part in findings.values():  # of a combination, by member
        single = part if isinstance(part, Mapping) and "generated_tokens" in part else single
    if not single:
        return {}
    budget = {name: float(single[name]) for name in BUDGET[1:]} | {"updates": float(record["updates"])}
    rewards = single.get("rewards")
    return budget | ({"first_reward": rewards[0], "last_reward": rewards[-1]} if rewards else {})


def generation_table(results: SweepResults) -> Table | None:
    """For the terminal; None where nothing was generated."""
    return _table(results).terminal()


def generation_markdown(results: SweepResults) -> str:
    """The same as Markdown; empty where nothing was generated."""
    return _table(results).markdown()


def _table(results: SweepResults) -> SmallTable:
    results = averaged(results) if has_seeds(results) else results
    rows = []
    for trial in results.trials:
        if trial.cost("generated_tokens") is None:
            continue
        rewarded = [stage.cost for stage in trial.stages if "first_reward" in stage.cost]
        rewards = [
            f"{sum(cost[name] for cost in rewarded) / len(rewarded):.2f}" if rewarded else ""
            for name in ("first_reward", "last_reward")
        ]
        rows.append([short_name(results, trial), *(f"{trial.cost(name) or 0:,.0f}" for name in BUDGET), *rewards])
    return SmallTable(TITLE, HEADS, rows, NOTE)
