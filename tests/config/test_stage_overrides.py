"""Settings may depend on the skill or on the stage; sweeps without such settings compute what they computed."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from made import SWEEP, write_sweep

from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods.data.data_hybrid import DataHybrid
from lmmcl.planning.inputs import tasks_of
from lmmcl.planning.plan import make_plan
from lmmcl.reports.collect import collect
from lmmcl.reports.published.published_file import Of
from lmmcl.steps import Finetune, Merge, examples_of, skills_of
from lmmcl.steps.trial import Trial
from lmmcl.tracking.extras import resolved

ONE = SWEEP.replace("recipe: [sa_proj, gate_up], learning_rate: [1.0e-3, 3.0e-4]", "recipe: [sa_proj]")


def sweep_with(folder: Path, more: str, text: str = ONE) -> Sweep:
    return load_sweep(write_sweep(folder, text + more))


def stages(trial: Trial) -> list[Finetune]:
    return [stage.tuned for stage in trial.stages if stage.tuned]


def refusal(folder: Path, more: str, text: str = ONE) -> str:
    with pytest.raises(UserError) as caught:
        sweep_with(folder, more, text)
    return str(caught.value)


def test_a_skill_may_have_epochs_a_rate_a_recipe_and_a_mitigation_of_its_own(tmp_path: Path) -> None:
    more = "per_skill: {clock: {epochs: 3, examples: 32, learning_rate: 1.0e-4, recipe: mlp, mitigation: {lwf: {weight: 2}}}}\n"
    first, second = stages(sweep_with(tmp_path, more).trials[0])
    assert (first.training.epochs, first.training.examples, first.recipe.name, first.mitigation) == (
        1,
        64,
        "sa_proj",
        None,
    )
    assert (second.training.epochs, second.training.examples, second.recipe.name) == (3, 32, "mlp")
    assert second.training.learning_rate == 1e-4
    assert second.mitigation is not None and second.mitigation.label == "lwf(weight=2.0)"


def test_a_stage_goes_before_its_skill(tmp_path: Path) -> None:
    more = "per_skill: {clock: {epochs: 3, examples: 16}}\nper_stage: {2: {epochs: 2}}\n"
    last = stages(sweep_with(tmp_path, more).trials[0])[-1]
    assert (last.training.epochs, last.training.examples) == (2, 16)


def test_a_mitigation_can_be_switched_off_and_a_limit_taken_away(tmp_path: Path) -> None:
    text = ONE.replace("recipe: [sa_proj]", "recipe: [sa_proj], mitigation: [lwf]")
    first, second = stages(sweep_with(tmp_path, "per_stage: {2: {mitigation: null, examples: null}}\n", text).trials[0])
    assert first.mitigation is not None
    assert second.mitigation is None
    assert second.training.examples is None


def test_keys_hold_what_is_in_force_and_nothing_else(tmp_path: Path) -> None:
    plain = sweep_with(tmp_path, "").trials[0]
    other = sweep_with(tmp_path, "per_skill: {clock: {epochs: 3}}\n").trials[0]
    by_hand = sweep_with(tmp_path, "", ONE.replace("epochs: 1", "epochs: 3")).trials[0]
    same = sweep_with(tmp_path, "per_stage: {1: {epochs: 1}}\n").trials[0]
    assert stages(other)[0].key == stages(plain)[0].key, "the first stage is what it was"
    assert stages(other)[1].key != stages(plain)[1].key
    assert stages(other)[1].fields() == stages(by_hand)[1].fields(), "an override is not in a key, its value is"
    assert same.key == plain.key, "an override that changes nothing changes no key"


def test_mllm_cl_teaches_its_domains_for_one_three_one_two_and_one_epochs() -> None:
    """MLLM-CL's own configurations, as arXiv 2603.14493 uses them (epochs 1/3/1/2/1; projector trained in both forms)."""
    sweep = load_sweep(Path(__file__).parents[2] / "sweeps" / "mllm_cl.yaml")
    for trial in sweep.trials:
        assert [stage.training.epochs for stage in stages(trial)] == [1, 3, 1, 2, 1]
        assert all("projector" in stage.recipe.selectors for stage in stages(trial))
    sequential = [trial for trial in sweep.trials if trial.recipe.adapter is None]
    assert {trial.recipe.train for trial in sequential} == {("llm", "projector")}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("per_skill: {clok: {epochs: 3}}\n", "per_skill.clok: unknown skill of an order 'clok'; did you mean 'clock'?"),
        ("per_skill: {clock: {epoch: 3}}\n", "per_skill.clock: unknown key 'epoch'; did you mean 'epochs'?"),
        ("per_skill: {clock: {epochs: 0}}\n", "per_skill.clock.epochs: "),
        (
            "per_skill: {clock: {precision: bf16}}\n",
            "this is training.precision (or an axis of a grid) or evaluation.precision in the sweep file",
        ),
        ("per_skill: {clock: {}}\n", "per_skill.clock: sets nothing; allowed: recipe, mitigation, "),
        (
            "per_skill: {clock: {recipe: sa_prj}}\n",
            "per_skill.clock.recipe: unknown recipe 'sa_prj'; did you mean 'sa_proj'",
        ),
        ("per_skill: {clock: {recipe: null}}\n", "per_skill.clock.recipe: a name"),
        (
            "per_skill: {clock: {mitigation: lfw}}\n",
            "per_skill.clock.mitigation: unknown mitigation 'lfw'; did you mean 'lwf'",
        ),
        ("per_skill: {clock: {mitigation: o_lora}}\n", "per_skill.clock.mitigation: o_lora needs a recipe"),
        ("per_skill: {clock: {recipe: moe}}\n", "per_skill.clock.recipe: some stages of a trial add experts"),
        ("per_skill: {clock: {recipe: {lora: {rank: 999}}}}\n", "per_skill.clock.recipe: "),
        ("per_stage: {3: {epochs: 2}}\n", "per_stage.3: no order has 3 stages; allowed: 1 to 2"),
        ("per_stage: {0: {epochs: 2}}\n", "per_stage"),
        (
            "per_stage: {1: {mitigation: wise_ft}, 2: {mitigation: {wise_ft: {continues_from: tuned}}}}\n",
            "per_stage.1.mitigation: the merges of one trial differ in continues_from (merged, tuned)",
        ),
        (
            "per_stage: {2: {mitigation: {ties: {continues_from: base}}}}\n",
            "per_stage.2.mitigation: a merge with continues_from: base",
        ),
    ],
)
def test_what_is_wrong_in_an_override_is_told_with_its_place(tmp_path: Path, more: str, said: str) -> None:
    assert said in refusal(tmp_path, more)


def test_an_axis_that_overrides_leave_without_effect_is_refused(tmp_path: Path) -> None:
    more = "per_stage: {1: {learning_rate: 1.0e-3}, 2: {learning_rate: 1.0e-3}}\n"
    assert "per_skill or per_stage set learning_rate in every stage" in refusal(tmp_path, more, SWEEP)


def test_a_merge_may_be_of_some_stages_alone(tmp_path: Path) -> None:
    trial = sweep_with(tmp_path, "per_stage: {1: {mitigation: {wise_ft: {alpha: 0.5}}}}\n").trials[0]
    first, second = trial.stages[1].checkpoint, trial.stages[2].checkpoint
    assert isinstance(first, Merge)
    assert isinstance(second, Finetune)
    assert second.parent.key == first.key, "the next stage starts from the merge"


def test_a_chain_of_fine_tunes_continues_past_a_stage_without_a_merge(tmp_path: Path) -> None:
    text = ONE.replace("recipe: [sa_proj]", "recipe: [sa_proj], mitigation: [{wise_ft: {continues_from: tuned}}]")
    trial = sweep_with(tmp_path, "per_skill: {counting: {mitigation: none}}\n", text).trials[0]
    first, second = trial.stages[1].checkpoint, trial.stages[2].checkpoint
    assert isinstance(first, Finetune)
    assert isinstance(second, Merge)
    assert second.tuned.parent.key == first.key
    assert second.anchor.key == trial.stages[0].checkpoint.key


def test_earlier_skills_are_known_with_the_examples_that_they_were_taught_with(tmp_path: Path) -> None:
    last = stages(sweep_with(tmp_path, "per_skill: {counting: {examples: 24}}\n").trials[0])[-1]
    assert [skill.name for skill in skills_of(last)] == ["counting", "clock"]
    assert examples_of(last) == [24, 64]


def test_data_mixed_into_one_stage_is_looked_for_before_a_run(tmp_path: Path) -> None:
    more = "per_skill: {clock: {mitigation: {data_hybrid: {auxiliary: general}}}}\n"
    trial = sweep_with(tmp_path, more).trials[0]
    assert [type(each) for each in trial.mitigations] == [DataHybrid]
    assert "general" in {task.name for task in tasks_of(trial)}


def test_a_plan_says_what_differs_and_what_each_stage_trains(tmp_path: Path) -> None:
    sweep = sweep_with(
        tmp_path, "per_skill: {clock: {recipe: mlp, epochs: 3}}\nper_stage: {1: {learning_rate: 2.0e-4}}\n"
    )
    plan = make_plan(sweep, Ledger(str(tmp_path / "store")))
    assert plan.notes[:2] == ("skill clock: mlp · epochs 3", "stage 1: lr 2e-4")
    assert "at stage 1" in plan.notes[2]
    assert "the table shows the most" in plan.notes[2]
    assert plan.trials[0].trained_parameters == sweep.trials[0].trained_parameters() == 331776
    assert "skill clock: mlp · epochs 3" in repr(plan)


def test_what_was_understood_names_the_settings_of_each_stage_that_differs(tmp_path: Path) -> None:
    sweep = sweep_with(tmp_path, "per_stage: {2: {recipe: mlp}}\n")
    [trial] = json.loads(resolved(sweep))["trials"]
    assert {number: each["recipe"] for number, each in trial["by_stage"].items()} == {"2": "mlp"}


def test_a_report_says_what_differs_since_names_of_trials_do_not(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "store"))
    more = "per_skill: {clock: {epochs: 3}}\nper_stage: {1: {mitigation: lwf}}\n"
    notes = collect(sweep_with(tmp_path, more), ledger).notes
    assert notes == ["settings that differ by skill or stage: skill clock: epochs 3; stage 1: lwf"]
    assert not collect(sweep_with(tmp_path, ""), ledger).notes


def test_a_published_figure_is_not_held_to_a_trial_that_trains_another_part_at_some_stage(tmp_path: Path) -> None:
    figure = Of(model=("tiny-onevision",), skills=("counting", "clock"), recipe="sa_proj")
    assert figure.covers(sweep_with(tmp_path, "").trials[0])
    assert figure.covers(sweep_with(tmp_path, "per_stage: {2: {epochs: 2}}\n").trials[0])
    assert not figure.covers(sweep_with(tmp_path, "per_stage: {2: {recipe: mlp}}\n").trials[0])


def test_a_search_keeps_what_its_stages_have_of_their_own(tmp_path: Path) -> None:
    text = ONE.replace("recipe: [sa_proj]", "recipe: [sa_proj], learning_rate: {log_uniform: [1.0e-4, 1.0e-2]}")
    more = "search: {optuna: {trials: 4, objectives: {learning: max}}}\nper_skill: {clock: {epochs: 2}}\n"
    [space] = pickle.loads(pickle.dumps(sweep_with(tmp_path, more, text).spaces))
    assert [stage.training.epochs for stage in stages(space.trial({"learning_rate": 1e-3}))] == [1, 2]
