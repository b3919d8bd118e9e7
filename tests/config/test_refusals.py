"""Settings of methods that cannot be are refused before anything runs: exit code 2, the place, what is allowed, the near ones."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from pathlib import Path

import pytest
from made import SWEEP, MadeModel, write_sweep

from lmmcl.cli import main
from lmmcl.config.cluster import load_cluster
from lmmcl.config.name_lookup import Names
from lmmcl.config.sweep import load_sweep
from lmmcl.config.sweep_file import SweepFile
from lmmcl.config.validation import read_yaml, validate
from lmmcl.errors import UserError
from lmmcl.tasks import get_benchmark, get_skill

GRID = "  - {model: [tiny-onevision], recipe: [sa_proj, gate_up], learning_rate: [1.0e-3, 3.0e-4]}"


def answer(folder: Path, grid: str) -> str:
    """What `lmmcl run` says to a sweep with this grid; nothing may have been written."""
    store = folder / "store"
    told = refused(folder, grid, "run", "--store", str(store), "--inline", "--mlflow", "off")
    assert not store.exists(), "refused before anything was written"
    return told


def refused(folder: Path, grid: str, command: str, *more: str) -> str:
    """The message of a command that ends with exit code 2."""
    path = write_sweep(folder, SWEEP.replace(GRID, f"  - {{{grid}}}"))
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setattr("sys.argv", ["lmmcl", command, str(path), *more])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 2
    assert said.getvalue().startswith(f"error: {path}: ")
    return " ".join(said.getvalue().split())


@pytest.mark.parametrize(
    ("mitigation", "said"),
    [
        ("{wise_ft: {alpha: 1.5}}", "wise_ft.alpha: must be between 0 and 1, not 1.5"),
        ("{wise_ft: {alpha: -0.1}}", "wise_ft.alpha: must be between 0 and 1, not -0.1"),
        ("{wise_ft: {alpha: half}}", "wise_ft.alpha: a number is expected"),
        ("{wise_ft: {alfa: 0.5}}", "wise_ft: unknown setting 'alfa'; did you mean 'alpha'?"),
        ("{wise_ft: {continues_from: base}}", "wise_ft.continues_from: unknown value 'base'; allowed: merged, tuned"),
        ("{model_tailor: {keep: 0}}", "model_tailor.keep: must be above 0 and at most 1, not 0"),
        ("{model_tailor: {granularity: rows}}", "unknown value 'rows'; did you mean 'row'? allowed: block128, layer, row"),
        ("{grafting: {keep: 0}}", "grafting.keep: must be above 0 and at most 1, not 0"),
        ("{ties: {keep: 0}}", "ties.keep: must be above 0 and at most 1, not 0"),
        ("{ties: {scope: tensors}}", "ties.scope: unknown value 'tensors'; did you mean 'tensor'? allowed: model, tensor"),
        ("{dare: {drop: 1}}", "dare.drop: must be at least 0 and below 1, not 1"),
        ("{mofo: {alpha: 0}}", "mofo.alpha: must be above 0 and at most 1, not 0"),
        ("{data_hybrid: {ratio: 1}}", "data_hybrid.ratio: must be above 0 and below 1, not 1"),
        ("{lwf: {temperature: 0}}", "lwf.temperature: must be greater than 0, not 0"),
        ("{replay: {examples: 0}}", "replay.examples: must be greater than"),
        ("wise-ft", "unknown mitigation 'wise-ft'; did you mean 'wise_ft'?"),
    ],
)  # fmt: skip
def test_settings_of_mitigations_that_cannot_be(tmp_path: Path, mitigation: str, said: str) -> None:
    told = answer(tmp_path, f"model: [tiny-onevision], recipe: [sa_proj], mitigation: [{mitigation}]")
    assert "small.yaml: grids[0].mitigation[0]: " in told
    assert said in told


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (
            "{name: mine, train: [llm.blocks.*.mpl]}",
            "'llm.blocks.*.mpl' matches no parameter of tiny-onevision; did you mean 'llm.blocks.*.mlp'",
        ),
        ("{name: mine, train: [llm.blocks.90.mlp]}", "'llm.blocks.90.mlp'"),
        ("{name: mine, train: [qformer]}", "'qformer'"),
        ("head", "'llm.head'"),
        ("{lora: {rank: 97}}", "rank 97 is above what a layer of 96 × 384 can hold; allowed: 1 to 96"),
        ("{lora: {rank: 0}}", "lora.rank: must be greater than 0, not 0"),
        ("{lora: {rnak: 4}}", "did you mean 'rank'?"),
        ("{osf: {preserved: 0.001}}", "preserved 0.001 keeps nothing of a layer"),
        ("sa_prj", "unknown recipe 'sa_prj'; did you mean 'sa_proj'"),
        ("moe+gate_up", "would train itself and have an adapter; allowed: one of them"),
        ("lora+moe", "has 2 adapters; allowed: one"),
    ],
)
def test_recipes_that_do_not_fit(tmp_path: Path, recipe: str, said: str) -> None:
    told = answer(tmp_path, f"model: [tiny-onevision], recipe: [{recipe}]")
    assert "small.yaml: grids[0].recipe" in told
    assert said in told


@pytest.mark.parametrize(
    ("grid", "place", "said"),
    [
        ("recipe: [llm], seed: [0, 1, 0]", "seed[2]", "0 is already listed, at seed[0]"),
        ("recipe: [llm, llm]", "recipe[1]", "'llm' is already listed, at recipe[0]"),
        ("recipe: [llm], learning_rate: [1e-4, 0.0001]", "learning_rate[1]", "0.0001 is already listed"),
        ("recipe: [llm], mitigation: [null, none]", "mitigation[1]", "'none' is already listed"),
        ("recipe: [llm], mitigation: [{wise_ft: {alpha: 0.5}}, {wise_ft: {alpha: 0.50}}]", "mitigation[1]", "already listed, at mitigation[0]"),
        ("recipe: [llm], order: [main, main]", "order[1]", "'main' is already listed"),
        ("recipe: [llm], learning_rate: [true]", "learning_rate[0]", "a number is expected, not true (YAML reads an unquoted yes or on as true"),
        ("recipe: [llm], seed: [0, off]", "seed[1]", "a whole number is expected, not false"),
        ("recipe: [llm], max_steps: [yes]", "max_steps[0]", "a whole number is expected, not true"),
    ],
)  # fmt: skip
def test_values_that_would_be_merged_or_read_as_numbers(tmp_path: Path, grid: str, place: str, said: str) -> None:
    told = answer(tmp_path, f"model: [tiny-onevision], {grid}")
    assert f"small.yaml: grids[0].{place}: " in told
    assert said in told


ONE, OTHER = "{name: mine, train: [llm.blocks.0]}", "{name: mine, train: [llm.blocks.1]}"


@pytest.mark.parametrize(
    ("grids", "place", "said"),
    [
        (f"{{model: [tiny-onevision], recipe: [{ONE}, {OTHER}]}}", "grids[0].recipe[1]", "'mine' is already the name of another recipe, at grids[0].recipe[0]"),
        (f"{{model: [tiny-onevision], recipe: [{ONE}]}}, {{model: [tiny-onevision], recipe: [{OTHER}]}}", "grids[1].recipe[0]", "'mine' is already the name of another recipe, at grids[0].recipe[0]"),
        ("{model: [tiny-onevision], recipe: [{name: sa_proj, train: [vision]}]}", "grids[0].recipe[0]", "'sa_proj' is the name of a built-in recipe"),
    ],
)  # fmt: skip
def test_two_recipes_of_one_name_are_refused_with_their_places(
    tmp_path: Path, grids: str, place: str, said: str
) -> None:
    text = f"name: small\norders: {{main: [counting]}}\ngrids: [{grids}]\n"
    with pytest.raises(UserError) as refusal:
        load_sweep(write_sweep(tmp_path, text))
    assert f"small.yaml: {place}: {said}" in str(refusal.value)


def test_one_recipe_may_be_written_twice_under_its_name(tmp_path: Path) -> None:
    grid = f"{{model: [tiny-onevision], recipe: [{ONE}], seed: [SEED]}}"
    grids = f"[{grid.replace('SEED', '0')}, {grid.replace('SEED', '1')}, {{model: [tiny-next], recipe: [{{name: sa_proj, train: [llm.blocks.*.attention]}}]}}]"
    text = f"name: small\norders: {{main: [counting]}}\ngrids: {grids}\n"
    assert len(load_sweep(write_sweep(tmp_path, text)).trials) == 3


@pytest.mark.parametrize("kind", ["mitigation", "model"])
def test_of_mitigations_and_models_too_a_name_stands_for_one_thing(tmp_path: Path, kind: str) -> None:
    path = write_sweep(tmp_path)
    names = Names(str(path), tmp_path, validate(SweepFile, read_yaml(path), file=str(path)))
    one, other = MadeModel("same", revision="1"), MadeModel("same", revision="2")
    names._one_of_its_name(kind, "same", one, "grids[0]")
    names._one_of_its_name(kind, "same", one, "grids[1]")
    with pytest.raises(UserError, match=rf"grids\[2\]: 'same' is already the name of another {kind}, at grids\[0\]"):
        names._one_of_its_name(kind, "same", other, "grids[2]")


def test_trials_that_a_report_could_not_tell_apart_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Names, "_one_of_its_name", lambda self, axis, name, value, place: value)
    text = (
        f"name: small\norders: {{main: [counting]}}\ngrids: [{{model: [tiny-onevision], recipe: [{ONE}, {OTHER}]}}]\n"
    )
    with pytest.raises(UserError, match=r"two trials are called 'mine · .*' and are not the same"):
        load_sweep(write_sweep(tmp_path, text))


def test_the_benchmark_of_a_skill_that_is_taught_is_not_held_out_under_any_name(tmp_path: Path) -> None:
    skill = dataclasses.replace(get_skill("counting"), benchmark=get_benchmark("colour"))
    path = write_sweep(tmp_path)
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(
            UserError, match=r"held_out\[0\]: 'colour' is the benchmark of 'counting', a skill of order 'main'"
        ),
    ):
        patch.setattr("lmmcl.config.name_lookup.get_skill", lambda name: skill)
        load_sweep(path)


def test_truth_is_no_number_in_fixed_settings_either(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--set training\.epochs=true: a number is expected, not true"):
        load_sweep(write_sweep(tmp_path), ["training.epochs=true"])
    with pytest.raises(UserError, match=r"training\.workers: a whole number is expected, not true"):
        load_cluster(write_sweep(tmp_path, "training: {workers: true, compile: true}", "cluster.yaml"))


@pytest.mark.parametrize("model", ["tiny-onevision", "tiny-next", "tiny-qwen", "qwen2.5-vl-7b"])
def test_a_recipe_that_matches_nothing_in_a_family_is_refused_for_that_family(tmp_path: Path, model: str) -> None:
    told = refused(tmp_path, f"model: [{model}], recipe: [{{name: mine, train: [qformer]}}]", "plan")
    assert "grids[0].recipe" in told and "'qformer'" in told and model in told


@pytest.mark.parametrize(
    ("mitigation", "recipe", "said"),
    [
        (
            "ewc",
            "moe",
            "ewc measures how much the answers depend on the trained parameters, and none depends on the new experts of 'moe'",
        ),
        *(
            (rule, "moe", f"{rule} merges tensors that all checkpoints have, and 'moe' adds experts")
            for rule in ("wise_ft", "model_tailor", "task_arithmetic", "ties", "dare", "grafting")
        ),
        ("o_lora", "sa_proj", "o_lora needs a recipe with a LoRA adapter, and 'sa_proj' has none; try lora"),
        ("o_lora", "osf", "o_lora needs a recipe with a LoRA adapter, and 'osf' has none; try lora"),
        ("model_tailor", "norms", "model_tailor patches linear layers, and 'norms' trains none"),
        ("model_tailor", "embeddings", "model_tailor patches linear layers, and 'embeddings' trains none"),
    ],
)
def test_methods_that_cannot_protect_what_a_recipe_trains(
    tmp_path: Path, mitigation: str, recipe: str, said: str
) -> None:
    told = answer(tmp_path, f"model: [tiny-onevision], recipe: [{recipe}], mitigation: [{mitigation}]")
    assert "small.yaml: grids[0].mitigation: " in told
    assert said in told


def test_a_method_and_a_recipe_change_places_and_are_told_so(tmp_path: Path) -> None:
    assert "is a recipe, not a mitigation" in answer(
        tmp_path, "model: [tiny-onevision], recipe: [sa_proj], mitigation: [lora]"
    )
