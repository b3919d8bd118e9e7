"""The budget of on-policy methods: read from records, alone or in a combination, and shown where something was generated."""

from __future__ import annotations

from dataclasses import replace

from synthetic_results import make_sweep

from lmmcl.reports.tables.generation_budget import budget_of, generation_markdown, generation_table

FOUND = {"samples": 640, "generated_tokens": 1300, "rewards": [0.1, 0.2, 0.4]}


def test_a_budget_is_in_updates_answers_and_tokens() -> None:
    budget = {"samples": 640, "generated_tokens": 1300, "updates": 40, "first_reward": 0.1, "last_reward": 0.4}
    assert budget_of({"updates": 40, "mitigation": FOUND}) == budget
    assert budget_of({"updates": 40, "mitigation": {"grpo": FOUND, "l2_sp": {}}}) == budget, "of a combination"
    plain = {"samples": 5, "generated_tokens": 9}
    assert budget_of({"updates": 3, "mitigation": plain}) == {"samples": 5, "generated_tokens": 9, "updates": 3}
    assert budget_of({"updates": 3, "mitigation": {"kept_bytes": 5}}) == {}
    assert budget_of({"updates": 3}) == {}


def test_the_table_sums_stages_and_has_rows_for_what_generates_alone() -> None:
    sweep = make_sweep(recipes=["llm"], rates=[1e-5], mitigations=[None, "grpo"], stages=2)
    assert generation_table(sweep) is None and generation_markdown(sweep) == ""
    cost = budget_of({"updates": 40, "mitigation": FOUND})
    trials = [
        trial
        if trial.axes["mitigation"] is None
        else replace(trial, stages=[replace(stage, cost=cost if stage.number else {}) for stage in trial.stages])
        for trial in sweep.trials
    ]
    text = generation_markdown(replace(sweep, trials=trials))
    assert "| grpo | 80 | 1,280 | 2,600 | 0.10 | 0.40 |" in text
    assert text.count("\n| ") == 2, "its heads and one row"
