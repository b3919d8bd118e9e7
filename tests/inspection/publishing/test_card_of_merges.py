"""The card of a merge says what the report of its trial says, whatever the rule and wherever its stages start."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from made import SWEEP, write_sweep
from synthetic_ledger import fill

from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.inspection.publishing.card_facts import CardFacts, card_facts
from lmmcl.inspection.publishing.model_card import card_data, card_text
from lmmcl.ledger import Ledger
from lmmcl.methods.mitigation import MergeMitigation
from lmmcl.registry import members
from lmmcl.reports.collect import collect_results
from lmmcl.runner.reporting.sweep_label import find_label
from lmmcl.search.run_context import RunContext
from lmmcl.steps import Evaluate
from lmmcl.steps.trial import Trial
from lmmcl.tracking.extras import resolved

LORA = "{name: low, adapter: {rank: 8, alpha: 16}}"
MEASURES = ("learning", "target_forgetting", "held_out_forgetting", "overall")
MERGES = [
    (rule, start)
    for rule, member in sorted(members("lmmcl.methods", "MITIGATIONS").items())
    if issubclass(member, MergeMitigation)
    for start in get_args(member.model_fields["continues_from"].annotation)
]


def by_chance(step: Evaluate) -> float:
    """Each checkpoint has scores of its own, whatever made it."""
    return 0.3 + 0.6 * int(step.key[:4], 16) / 2**16


def merging(folder: Path, mitigation: str, recipe: str = "sa_proj", more: str = "") -> tuple[Sweep, Ledger]:
    """A finished sweep of three stages with this mitigation, and its store, which knows no sweep so far."""
    grid = f"recipe: [{recipe}], mitigation: [{mitigation}], learning_rate: [1.0e-3]"
    text = SWEEP.replace("[counting, clock]", "[counting, clock, birds]")
    text = text.replace("recipe: [sa_proj, gate_up], learning_rate: [1.0e-3, 3.0e-4]", grid)
    sweep, store = load_sweep(write_sweep(folder, text + more)), folder / "store"
    fill(sweep, store, questions=40, chance=by_chance)
    return sweep, Ledger(str(store))


def card(trial: Trial, ledger: Ledger) -> CardFacts:
    return card_facts(ledger.checkpoint(trial.key), ledger)


def reported(sweep: Sweep, ledger: Ledger) -> dict[str, float | None]:
    last = collect_results(RunContext.resolve(sweep, ledger)).trials[0].stages[-1]
    return {name: round(float(last.measures[name]), 6) for name in MEASURES}


def claimed(facts: CardFacts) -> dict[str, float | None]:
    return {name: value and round(value, 6) for name in MEASURES for value in [facts.measure(name)]}


def test_every_merge_is_tried() -> None:
    assert len({rule for rule, _ in MERGES}) >= 6 and {start for _, start in MERGES} == {"merged", "tuned", "base"}


@pytest.mark.parametrize(("rule", "start"), MERGES)
def test_a_card_has_all_stages_of_a_merge_and_the_measures_of_the_report(tmp_path: Path, rule: str, start: str) -> None:
    """With the sweep that made it, and without: it was edited since, say."""
    sweep, ledger = merging(
        tmp_path, f"{{{rule}: {{continues_from: {start}}}}}", LORA if rule == "mr_lora" else "sa_proj"
    )
    report = reported(sweep, ledger)
    unknown = card(sweep.trials[0], ledger)
    find_label(sweep, ledger).keep(sweep)
    known = card(sweep.trials[0], ledger)
    for facts in (unknown, known):
        assert [stage.skill for stage in facts.stages] == ["counting", "clock", "birds"]
        assert facts.held_out == ["colour", "shape"]
        if (
            rule != "mr_lora" or facts is known
        ):  # its routers are known by the sweep alone, and no card of it is published
            assert claimed(facts) == report
            assert all(rule in str(stage.mitigation) for stage in facts.stages)
    assert "fine-tuned on counting, clock and birds" in card_text(known, None, adapter=False, at="me/mine")


def test_mitigations_that_are_combined_are_all_named(tmp_path: Path) -> None:
    sweep, ledger = merging(tmp_path, "[lwf, dare, wise_ft]")
    facts = card(sweep.trials[0], ledger)
    assert claimed(facts) == reported(sweep, ledger)
    for stage in facts.stages:
        assert [part.split(" ")[0] for part in str(stage.mitigation).split(" + ")] == ["lwf", "dare", "wise_ft"]


def test_without_a_sweep_a_stage_whose_merge_is_not_recorded_makes_no_claim(tmp_path: Path) -> None:
    sweep, ledger = merging(tmp_path, "ties")
    ledger.files.remove_folder(sweep.trials[0].stages[1].checkpoint.path)
    facts = card(sweep.trials[0], ledger)
    assert [stage.skill for stage in facts.stages] == ["counting", "clock", "birds"] and not facts.stages[0].scores
    assert facts.measure("learning") is None and facts.measure("overall") is not None


def test_a_fine_tune_below_a_merge_has_its_own_stages_and_no_scores(tmp_path: Path) -> None:
    sweep, ledger = merging(tmp_path, "ties")
    find_label(sweep, ledger).keep(sweep)
    trial = sweep.trials[0]
    tuned = trial.stages[2].tuned
    assert tuned is not None
    facts = card_facts(ledger.checkpoint(tuned.key), ledger)
    assert [stage.skill for stage in facts.stages] == ["clock"], "it starts from the base"
    text = card_text(facts, None, adapter=False, at="me/mine")
    assert text.startswith(f"# {tuned.label}\n"), "the trial is another model"
    assert "This checkpoint was not evaluated" in text and "Questions" not in text and "as few as" not in text
    assert "eval_results" not in card_data(facts, None, name="mine", adapter=False).to_dict()


def test_a_checkpoint_is_named_by_the_trial_that_ends_with_it(tmp_path: Path) -> None:
    """The fine-tune of a plain trial is also what other trials merge, and the first sweep that needs it is not its name."""
    sweep, ledger = merging(tmp_path, "{wise_ft: {continues_from: tuned}}, none")
    find_label(sweep, ledger).keep(sweep)
    _, plain = sweep.trials
    assert plain.mitigation is None
    first, last = (card_facts(ledger.checkpoint(plain.stages[number].checkpoint.key), ledger) for number in (1, 3))
    assert last.title == plain.name and first.title == f"{plain.name}, after stage 1 of 3"
    assert all(stage.mitigation is None and stage.scores for stage in last.stages)


def test_scores_of_another_limit_are_not_mixed_in(tmp_path: Path) -> None:
    """A store may have a checkpoint's answers to 8 questions and to all of them: a card compares alike with alike."""
    sweep, ledger = merging(tmp_path, "none")
    whole = load_sweep(write_sweep(tmp_path, Path(sweep.file).read_text().replace("limit: 8", "limit: null")))
    assert whole.trials[0].key == sweep.trials[0].key
    fill(whole, Path(ledger.store), questions=60, chance=lambda step: 1 - by_chance(step))
    for known in (sweep, whole):
        find_label(known, ledger).keep(known)
        facts = card(known.trials[0], ledger)
        assert claimed(facts) == reported(known, ledger)
        assert set(facts.questions.values()) == {40 if known is sweep else 60}


def test_skills_that_are_taught_together_are_all_targets(tmp_path: Path) -> None:
    sweep, ledger = merging(tmp_path, "none", more="bounds: [joint]\n")
    find_label(sweep, ledger).keep(sweep)
    facts = card(next(trial for trial in sweep.trials if trial.bound), ledger)
    assert [stage.skill for stage in facts.stages] == ["birds + clock + counting"]
    assert "birds: made by lmmcl" in facts.stages[0].data
    assert facts.targets == ("birds", "clock", "counting") and facts.measure("learning") is not None


def test_a_skill_whose_benchmark_has_another_name_is_measured_by_it(tmp_path: Path) -> None:
    sweep, ledger = merging(tmp_path, "none")
    as_kept = json.loads(resolved(sweep))
    assert as_kept["trials"][0]["targets"] == [["counting"], ["clock"], ["birds"]]
    as_kept["trials"][0]["targets"][0] = ["shape"]
    as_kept["trials"][0]["held_out"] = ["colour"]
    ledger.keep_text("reports/small/sweep.json", json.dumps(as_kept))
    facts = card(sweep.trials[0], ledger)
    assert facts.targets == ("shape", "clock", "birds") and facts.measure("learning") is not None
    names = {result.dataset_name for result in card_data(facts, None, name="mine", adapter=False).eval_results}
    assert {"shape (target)", "colour (held out)", "counting"} <= names


def test_the_number_of_questions_is_named_where_there_are_any(tmp_path: Path) -> None:
    sweep, ledger = merging(tmp_path, "none")
    facts = card(sweep.trials[0], ledger)
    assert "as few as 40 questions;" in card_text(facts, None, adapter=False, at="x")
    assert "as few as 1 question;" in card_text(replace(facts, questions={"colour": 1}), None, adapter=False, at="x")
