"""A sweep file becomes trials, or one message that says what to mend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from made import SWEEP, write_sweep

from lmmcl.config.sweep import load_sweep
from lmmcl.config.sweep_file import SweepFile
from lmmcl.errors import UserError

REPOSITORY = Path(__file__).parents[2]
SWEEPS = sorted((REPOSITORY / "sweeps").rglob("*.yaml"))


def refused(folder: Path, old: str, new: str) -> str:
    assert old in SWEEP
    with pytest.raises(UserError) as caught:
        load_sweep(write_sweep(folder, SWEEP.replace(old, new)))
    return str(caught.value)


def test_a_grid_is_the_product_of_its_axes(tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path))
    assert [trial.name for trial in sweep.trials] == [
        "sa_proj · lr 1e-3 · tiny-onevision · s0",
        "sa_proj · lr 3e-4 · tiny-onevision · s0",
        "gate_up · lr 1e-3 · tiny-onevision · s0",
        "gate_up · lr 3e-4 · tiny-onevision · s0",
    ]
    assert [stage.skill and stage.skill.name for stage in sweep.trials[0].stages] == [None, "counting", "clock"]
    assert [each.benchmark.name for each in sweep.trials[0].stages[0].evaluations] == [
        "counting",
        "clock",
        "colour",
        "shape",
    ]


def test_grids_that_overlap_give_each_trial_once(tmp_path: Path) -> None:
    again = SWEEP + "  - {model: [tiny-onevision], recipe: [sa_proj], learning_rate: [0.001]}\n"
    assert len(load_sweep(write_sweep(tmp_path, again)).trials) == 4


def test_any_training_setting_may_be_an_axis(tmp_path: Path) -> None:
    text = SWEEP.replace("learning_rate: [1.0e-3, 3.0e-4]", "weight_decay: [0, 0.1], global_batch_size: [8]")
    trials = load_sweep(write_sweep(tmp_path, text)).trials
    assert {(trial.training.weight_decay, trial.training.global_batch_size) for trial in trials} == {(0.0, 8), (0.1, 8)}
    assert "weight_decay 0.1" in trials[1].name


def test_an_exponent_without_a_dot_is_still_a_number(tmp_path: Path) -> None:
    trials = load_sweep(write_sweep(tmp_path, SWEEP.replace("[1.0e-3, 3.0e-4]", "[1e-3]"))).trials
    assert trials[0].training.learning_rate == 0.001


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("recipe: [sa_proj", "recipe: [sa_prj", ["grids[0].recipe[0]", "sa_prj", "did you mean 'sa_proj'"]),
        ("model: [tiny-onevision]", "model: [tiny-onevison]", ["grids[0].model[0]", "did you mean 'tiny-onevision'"]),
        ("[counting, clock]", "[countin, clock]", ["orders.main[0]", "did you mean 'counting'"]),
        ("[colour, shape]", "[color, shape]", ["benchmarks.held_out[0]", "did you mean 'colour'"]),
        ("[colour, shape]", "[colour, colour]", ["benchmarks.held_out[1]", "listed twice"]),
        ("[colour, shape]", "[colour, counting]", ["benchmarks.held_out[1]", "counting"]),
        ("recipe: [sa_proj, gate_up]", "recipe: []", ["grids[0].recipe", "must list at least one value"]),
        ("recipe: [sa_proj, gate_up]", "recip: [sa_proj]", ["grids[0]", "recip", "did you mean 'recipe'"]),
        ("[1.0e-3, 3.0e-4]", "[fast]", ["grids[0].learning_rate[0]", "fast"]),
        ("[1.0e-3, 3.0e-4]", "[-1]", ["grids[0].learning_rate[0]", "greater than 0"]),
        ("[1.0e-3, 3.0e-4]", "1.0e-3", ["grids[0].learning_rate", "list"]),
        ("epochs: 1", "num_train_epochs: 1", ["training: unknown key 'num_train_epochs'", "did you mean 'epochs'"]),
        ("epochs: 1", "epoch: 1", ["training", "did you mean 'epochs'"]),
        ("precision: fp32}\nevaluation", "precision: fp64}\nevaluation", ["training.precision", "fp64", "fp32"]),
        ("grids:", "grid:", ["grid", "did you mean 'grids'"]),
        ("name: small", "name: a/b", ["name: must begin with a letter or digit", "not 'a/b'"]),
        ("learning_rate: [", "order: [mian], learning_rate: [", ["grids[0].order[0]", "did you mean 'main'"]),
        ("learning_rate: [", "mitigation: [wise], learning_rate: [", ["grids[0].mitigation[0]", "did you mean 'wise_ft'"]),
        ("learning_rate: [", "mitigation: [{wise_ft: {alfa: 1}}], learning_rate: [", ["mitigation[0]", "alfa", "alpha"]),
        ("learning_rate: [", "mitigation: [{wise_ft: {alpha: 2}}], learning_rate: [", ["mitigation[0]", "alpha", "2"]),
        ("recipe: [sa_proj, gate_up]", "recipe: [{name: mine, train: [llm.blocks.90.mlp]}]", ["grids[0].recipe", "llm.blocks.90.mlp", "llm.blocks.*.mlp"]),
        ("name: small", "name: small\nname: twice", ["line", "given twice"]),
        ("name: small", "name: {{ name }}", ["line 2, column 8", "a key is a plain word"]),
        ("name: small", "name: sma\x07l", ["not valid YAML", "unacceptable character"]),
        ("name: small", "name: 2026-02-30", ["not valid YAML", "day is out of range"]),
        ("name: small\n", "", ["small.yaml: name: is missing"]),
        ("[counting, clock]", "counting", ["orders.main: a list is expected, such as [counting], not 'counting'"]),
        ("epochs: 1, ", "epochs: [1], ", ["training.epochs", "not [1]"]),
        ("recipe: [sa_proj, gate_up]", "recipe: [[sa_proj]]", ["grids[0].recipe[0]: a name, or {name: {setting: value}}, is expected, not ['sa_proj']"]),
        ("recipe: [sa_proj, gate_up]", "recipe: [{name: mine, train: llm}]", ["recipe[0]: recipe mine.train: a list is expected, such as [llm]"]),
        ("recipe: [sa_proj, gate_up]", "recipe: [{llm: {learning_rates: {1: 1.0, llm: 1.0}}}]", ["grids[0].recipe[0]"]),
        ("recipe: [sa_proj, gate_up]", "recipe: [{llm: {learning_rates: 1.0}}]", ["learning rates are a mapping such as"]),
        ("learning_rate: [", "mitigation: [{wise_ft: 0.5}], learning_rate: [", ["mitigation[0]: settings of wise_ft are a mapping"]),
        ("learning_rate: [", "mitigation: [{wise_ft: {1: 0.5}}], learning_rate: [", ["mitigation[0]: wise_ft: unknown setting 1"]),
        ("learning_rate: [", "seed: [4294967296], learning_rate: [", ["grids[0].seed[0]", "less than 4294967296"]),
        ("[1.0e-3, 3.0e-4]", "{log_uniform: [1.0e-4, 1.0e-2]}", ["{learning: max, held_out_forgetting: max}}}`, or list the values"]),
        ("grids:", "search: {stop: {held_out_forgeting: {below: 1}}}\ngrids:", ["search.stop.held_out_forgeting: unknown measure"]),
        ("orders:", "orders: [", ["line", "not valid YAML"]),
    ],
)  # fmt: skip
def test_bad_input_is_told_with_file_place_and_remedy(tmp_path: Path, old: str, new: str, said: list[str]) -> None:
    message = refused(tmp_path, old, new)
    assert "small.yaml" in message
    for words in said:
        assert words in message, f"{words!r} is not in: {message}"


def test_a_file_that_is_not_there_is_answered_with_the_near_ones(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    with pytest.raises(UserError, match=r"did you mean .*small\.yaml"):
        load_sweep(tmp_path / "smal.yaml")


def test_a_key_that_may_be_of_several_trials_is_told_with_those(tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path))
    assert sweep.trial(sweep.trials[1].key[:12]) is sweep.trials[1]
    with pytest.raises(UserError, match=f"is ambiguous.*{sweep.trials[3].key}.*more characters"):
        sweep.trial("")


def test_an_override_is_an_edit(tmp_path: Path) -> None:
    path = write_sweep(tmp_path)
    by_hand = load_sweep(write_sweep(tmp_path, SWEEP.replace("epochs: 1", "epochs: 2"), "other.yaml"))
    by_override = load_sweep(path, ["training.epochs=2"])
    assert [trial.key for trial in by_override.trials] == [trial.key for trial in by_hand.trials]
    assert len(load_sweep(path, ["grids[0].seed=[0,1,2]"]).trials) == 12


@pytest.mark.parametrize(
    "pair",
    ["training.epochs", "grids[7].seed=[1]", "name.deeper=1", "training.epochz=1", "training.epochs=[", "name={{ x }}"],
)
def test_an_override_that_cannot_be_is_refused(tmp_path: Path, pair: str) -> None:
    with pytest.raises(UserError):
        load_sweep(write_sweep(tmp_path), [pair])


def test_every_sweep_that_ships_can_be_read() -> None:
    assert len(SWEEPS) >= 2
    for path in SWEEPS:
        sweep = load_sweep(path)
        assert sweep.trials, path
        assert sweep.name == path.stem, "a sweep is called like its file"


def test_the_published_schema_accepts_what_ships_and_refuses_a_misspelt_key() -> None:
    schema = SweepFile.model_json_schema()
    for path in SWEEPS:
        jsonschema.validate(yaml.safe_load(path.read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**yaml.safe_load(SWEEP), "grid": []}, schema)
    json.dumps(schema)


def test_a_sweep_is_understood_without_reading_what_is_taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(load: Any) -> int:
        raise AssertionError("a file of a million dialogues takes a minute, in every command")

    monkeypatch.setattr("lmmcl.steps.checkpoints._size", read)
    assert load_sweep(write_sweep(tmp_path, SWEEP)).steps
