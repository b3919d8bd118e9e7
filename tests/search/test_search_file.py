"""What a sweep file may say of a search, and the message when it says something else."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml
from made import write_sweep
from pretended import SEARCH

from lmmcl.config.draws import Draw
from lmmcl.config.search_settings import MEASURES, NEEDS_HELD_OUT, NEEDS_TWO_SKILLS
from lmmcl.config.sweep import load_sweep
from lmmcl.config.sweep_file import SweepFile
from lmmcl.errors import UserError
from lmmcl.evaluation.matrix import ScoreMatrix
from lmmcl.measures import MEASURES as EVALUATED

RATES = "learning_rate: [1.0e-6, 1.0e-5, 1.0e-4, 1.0e-3]"
OPTUNA = "search: {optuna: {trials: 3, objectives: {learning: max}}}\n"


def refused(folder: Path, text: str) -> str:
    with pytest.raises(UserError) as caught:
        load_sweep(write_sweep(folder, text))
    return str(caught.value)


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ("{stopp: {}}", ["search", "did you mean 'stop'"]),
        ("{stop: {held_out_forgeting: {below: -10}}}", ["search.stop.held_out_forgeting", "did you mean 'held_out_forgetting'"]),
        ("{stop: {learning: {under: 3}}}", ["search.stop.learning", "under", "below"]),
        ("{stop: {learning: {}}}", ["search.stop.learning", "below or above"]),
        ("{stop: {learning: {below: low}}}", ["search.stop.learning.below", "number", "low"]),
        ("{stop: {learning: {below: 5, above: 3}}}", ["search.stop.learning", "all trials would end"]),
        ("{scheduler: {hyperband: {}}}", ["search.scheduler", "unknown key 'hyperband'", "asha"]),
        ("{scheduler: {asha: {metric: overal}}}", ["search.scheduler.asha.metric", "did you mean 'overall'"]),
        ("{scheduler: {asha: {metric: overall, grace: 1}}}", ["search.scheduler.asha", "grace_stages"]),
        ("{scheduler: {asha: {metric: overall, reduction_factor: 1}}}", ["reduction_factor", "greater than 1"]),
        ("{scheduler: {asha: {metric: overall, grace_stages: 3}}}", ["asha.grace_stages", "3 of at most 3 stages"]),
        ("{optuna: {trials: 3, objectives: {learning: max}}}", ["search.optuna", "no axis", "log_uniform"]),
    ],
)  # fmt: skip
def test_a_wrong_word_in_a_search_is_answered_with_place_and_remedy(
    tmp_path: Path, search: str, said: list[str]
) -> None:
    message = refused(tmp_path, SEARCH + f"search: {search}\n")
    assert "small.yaml" in message and "<" not in message
    for words in said:
        assert words in message, f"{words!r} is not in: {message}"


@pytest.mark.parametrize(
    ("axis", "said"),
    [
        ("learning_rate: {loguniform: [1.0e-6, 1.0e-3]}", ["grids[0].learning_rate", "did you mean 'log_uniform'"]),
        ("learning_rate: {log_uniform: [1.0e-3, 1.0e-6]}", ["grids[0].learning_rate", "[lowest, highest]"]),
        ("learning_rate: {log_uniform: [0, 1.0e-3]}", ["grids[0].learning_rate", "greater than 0"]),
        ("learning_rate: {log_uniform: [1.0e-6]}", ["grids[0].learning_rate.log_uniform"]),
        ("learning_rate: {uniform: [-1.0, 1.0]}", ["grids[0].learning_rate", "greater than 0"]),
        ("learning_rate: {}", ["grids[0].learning_rate", "exactly one of log_uniform, uniform, int_uniform, choice"]),
        ("learning_rate: {choice: [1.0e-3]}", ["grids[0].learning_rate.choice", "at least 2"]),
        ("learning_rate: {choice: [1.0e-3, 1.0e-3]}", ["grids[0].learning_rate.choice[1]", "listed twice"]),
        ('epochs: {choice: [1, "1"]}', ["grids[0].epochs.choice[1]", "1.0 is listed twice"]),
        ("learning_rate: {choice: [1e-4, fast]}", ["grids[0].learning_rate.choice[1]", "a number is expected", "'fast'"]),
        ("warmup_ratio: {uniform: [0, 2]}", ["grids[0].warmup_ratio", "less than 1"]),
        ("global_batch_size: {uniform: [8, 16]}", ["grids[0].global_batch_size", "int_uniform"]),
        ("lr_scheduler_type: {choice: [cosine, cosin]}", ["grids[0].lr_scheduler_type", "cosin"]),
        ("mitigation: {choice: [null, wise]}, learning_rate: [1.0e-3]", ["grids[0].mitigation.choice[1]", "did you mean 'wise_ft'"]),
        ("mitigation: {uniform: [0, 1]}, learning_rate: [1.0e-3]", ["grids[0].mitigation", "uniform", "choice"]),
    ],
)  # fmt: skip
def test_a_wrong_range_is_answered_with_place_and_remedy(tmp_path: Path, axis: str, said: list[str]) -> None:
    message = refused(tmp_path, SEARCH.replace(RATES, axis) + OPTUNA)
    assert "<" not in message
    for words in said:
        assert words in message, f"{words!r} is not in: {message}"


@pytest.mark.parametrize(
    ("axis", "value"),
    [("recipe", "{lora: {rank: 8}}"), ("mitigation", "{wise_ft: {alpha: 0.5}}"), ("epochs", "{to: 3}")],
)
def test_forgotten_brackets_are_told_as_such(tmp_path: Path, axis: str, value: str) -> None:
    text = SEARCH.replace("recipe: [sa_proj], ", "").replace(RATES, f"recipe: [sa_proj], {axis}: {value}")
    text = text.replace("recipe: [sa_proj], recipe:", "recipe:")
    message = refused(tmp_path, text)
    assert f"grids[0].{axis}: every value is a list: `[…]`" in message and "allowed: choice" not in message


def test_a_chosen_value_is_what_the_setting_holds_however_yaml_reads_it(tmp_path: Path) -> None:
    axes = "learning_rate: {choice: [1e-4, 1.0e-3]}, epochs: {choice: [1, 2]}"
    (space,) = load_sweep(write_sweep(tmp_path, SEARCH.replace(RATES, axes) + OPTUNA)).spaces
    assert [dict(trial.axes)["learning_rate"] for trial in space.extremes] == [1e-4, 1e-4, 1e-3, 1e-3]
    (listed, *_) = load_sweep(write_sweep(tmp_path, SEARCH.replace(RATES, "learning_rate: [1e-4], epochs: [1]"))).trials
    assert listed.name == space.extremes[0].name and "epochs 1" in listed.name


def test_a_range_without_a_search_is_told_what_to_add(tmp_path: Path) -> None:
    message = refused(tmp_path, SEARCH.replace(RATES, "learning_rate: {log_uniform: [1.0e-6, 1.0e-3]}"))
    assert "grids[0].learning_rate" in message and "search: {optuna: {trials: 30" in message


@pytest.mark.parametrize("name", sorted(NEEDS_HELD_OUT))
def test_a_measure_without_held_out_benchmarks_is_refused(tmp_path: Path, name: str) -> None:
    message = refused(
        tmp_path, SEARCH.replace("[colour, shape]", "[]") + f"search: {{stop: {{{name}: {{below: 0}}}}}}\n"
    )
    assert f"search.stop.{name}" in message and "benchmarks.held_out" in message


@pytest.mark.parametrize("name", sorted(NEEDS_TWO_SKILLS))
def test_a_measure_over_earlier_skills_is_refused_where_there_are_none(tmp_path: Path, name: str) -> None:
    text = SEARCH.replace("[counting, clock, birds]", "[counting]") + f"search: {{stop: {{{name}: {{below: 0}}}}}}\n"
    assert "two skills" in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("skills", "search", "said"),
    [
        ("[counting, clock]", "scheduler: {asha: {metric: target_forgetting}}", ["asha.metric", "from stage 2 on", "compared"]),
        ("[counting, clock]", "stop: {bwt: {below: -1}}", ["search.stop.bwt", "from stage 2 on", "cannot be stopped"]),
        ("[counting]", "stop: {learning: {below: -1}}", ["search.stop.learning", "from stage 1 on", "cannot be stopped"]),
    ],
)  # fmt: skip
def test_a_measure_that_comes_too_late_to_end_a_trial_is_refused(
    tmp_path: Path, skills: str, search: str, said: list[str]
) -> None:
    text = SEARCH.replace("[counting, clock, birds]", skills) + f"search: {{{search}}}\n"
    message = refused(tmp_path, text)
    assert all(words in message for words in said), message


def test_an_order_that_no_grid_uses_is_not_asked_whether_a_search_could_act(tmp_path: Path) -> None:
    orders = "{main: [counting, clock, birds], short: [counting]}"
    text = SEARCH.replace("{main: [counting, clock, birds]}", orders).replace("recipe:", "order: [ORDER], recipe:")
    text += "search: {scheduler: {asha: {metric: overall}}}\n"
    assert orders in text and "ORDER" in text
    assert load_sweep(write_sweep(tmp_path, text.replace("ORDER", "main"))).trials
    assert "stages" in refused(tmp_path, text.replace("ORDER", "short"))


def test_the_measures_that_may_be_named_are_those_that_are_reported_and_defined_where_said() -> None:
    assert set(MEASURES) == set(EVALUATED)
    bare, short = ScoreMatrix(["a", "b"]), ScoreMatrix(["a"], ["h"])
    for stage in range(3):
        bare.add(stage, {"a": [1.0], "b": [1.0]})
    for stage in range(2):
        short.add(stage, {"a": [1.0], "h": [1.0]})
    assert set(EVALUATED) - set(bare.summary()) == NEEDS_HELD_OUT
    assert set(EVALUATED) - set(short.summary()) == NEEDS_TWO_SKILLS


def test_a_search_changes_no_key(tmp_path: Path) -> None:
    plain = load_sweep(write_sweep(tmp_path, SEARCH))
    searched = load_sweep(
        write_sweep(tmp_path, SEARCH + "search: {stop: {learning: {below: 0}}, scheduler: {asha: {metric: overall}}}\n")
    )
    assert list(plain.steps) == list(searched.steps)


def test_drawn_numbers_have_few_digits_and_stay_in_their_range() -> None:
    draw = Draw(log_uniform=(1.2345e-6, 9.8765e-5))
    assert draw.rounded(3.14159e-6) == 3.14e-6
    assert (draw.rounded(1.2346e-6), draw.rounded(9.8764e-5)) == (1.2345e-6, 9.8765e-5)
    assert Draw(int_uniform=(1, 9)).rounded(3.0) == 3


def test_the_schema_knows_searches(tmp_path: Path) -> None:
    schema = SweepFile.model_json_schema()
    text = SEARCH.replace(RATES, "learning_rate: {log_uniform: [1.0e-6, 1.0e-3]}") + OPTUNA
    jsonschema.validate(yaml.safe_load(text), schema)
    for wrong in (text.replace("log_uniform", "loguniform"), text.replace("trials", "trial")):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(yaml.safe_load(wrong), schema)
