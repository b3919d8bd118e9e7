"""Settings of methods that cannot be are refused before anything runs: exit code 2, the place, what is allowed, the near ones."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
from made import SWEEP, write_sweep

from lmmcl.cli import main
from lmmcl.config.cluster import load_cluster
from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError

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
        ("{wise_ft: {alpha: 1.5}}", "wise_ft.alpha: Input should be less than or equal to 1, not 1.5; allowed: 0 to 1"),
        ("{wise_ft: {alpha: -0.1}}", "wise_ft.alpha: Input should be greater than or equal to 0, not -0.1; allowed: 0 to 1"),
        ("{wise_ft: {alpha: half}}", "wise_ft.alpha: Input should be a valid number"),
        ("{wise_ft: {alfa: 0.5}}", "unknown setting of wise_ft 'alfa'; did you mean 'alpha'?"),
        ("{wise_ft: {continues_from: base}}", "wise_ft.continues_from: unknown value 'base'; allowed: merged, tuned"),
        ("{model_tailor: {keep: 0}}", "model_tailor.keep: Input should be greater than 0, not 0; allowed: above 0, at most 1"),
        ("{model_tailor: {granularity: rows}}", "unknown value 'rows'; did you mean 'row'? allowed: block128, layer, row"),
        ("{grafting: {keep: 0}}", "grafting.keep: Input should be greater than 0, not 0; allowed: above 0, at most 1"),
        ("{ties: {keep: 0}}", "ties.keep: Input should be greater than 0, not 0; allowed: above 0, at most 1"),
        ("{ties: {scope: tensors}}", "ties.scope: unknown value 'tensors'; did you mean 'tensor'? allowed: model, tensor"),
        ("{dare: {drop: 1}}", "dare.drop: Input should be less than 1, not 1; allowed: at least 0, below 1"),
        ("{mofo: {alpha: 0}}", "mofo.alpha: Input should be greater than 0, not 0; allowed: above 0, at most 1"),
        ("{data_hybrid: {ratio: 1}}", "data_hybrid.ratio: Input should be less than 1, not 1"),
        ("{lwf: {temperature: 0}}", "lwf.temperature: Input should be greater than 0, not 0; allowed: above 0"),
        ("{replay: {examples: 0}}", "replay.examples: Input should be greater than"),
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
        ("{lora: {rank: 0}}", "lora.rank: Input should be greater than 0, not 0; allowed: above 0"),
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
        ("recipe: [llm], seed: [0, 1, 0]", "seed[2]", "0 is listed already, at seed[0]"),
        ("recipe: [llm, llm]", "recipe[1]", "'llm' is listed already, at recipe[0]"),
        ("recipe: [llm], learning_rate: [1e-4, 0.0001]", "learning_rate[1]", "0.0001 is listed already"),
        ("recipe: [llm], mitigation: [null, none]", "mitigation[1]", "'none' is listed already"),
        ("recipe: [llm], mitigation: [{wise_ft: {alpha: 0.5}}, {wise_ft: {alpha: 0.50}}]", "mitigation[1]", "listed already, at mitigation[0]"),
        ("recipe: [llm], order: [main, main]", "order[1]", "'main' is listed already"),
        ("recipe: [llm], learning_rate: [true]", "learning_rate", "true is no value of this (YAML reads yes and on as true"),
        ("recipe: [llm], seed: [0, off]", "seed", "false is no value of this"),
        ("recipe: [llm], max_steps: [yes]", "max_steps", "true is no value of this"),
    ],
)  # fmt: skip
def test_values_that_would_be_merged_or_read_as_numbers(tmp_path: Path, grid: str, place: str, said: str) -> None:
    told = answer(tmp_path, f"model: [tiny-onevision], {grid}")
    assert f"small.yaml: grids[0].{place}: " in told
    assert said in told


def test_truth_is_no_number_in_fixed_settings_either(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training\.epochs: true is no value"):
        load_sweep(write_sweep(tmp_path), ["training.epochs=true"])
    with pytest.raises(UserError, match=r"training\.workers: true is no value"):
        load_cluster(write_sweep(tmp_path, "training: {workers: true, compile: true}", "cluster.yaml"))


@pytest.mark.parametrize("model", ["tiny-onevision", "tiny-next", "tiny-qwen", "qwen2.5-vl-7b"])
def test_a_recipe_that_matches_nothing_in_a_family_is_refused_for_that_family(tmp_path: Path, model: str) -> None:
    told = refused(tmp_path, f"model: [{model}], recipe: [{{name: mine, train: [qformer]}}]", "plan")
    assert "grids[0].recipe" in told and "'qformer'" in told and model in told


@pytest.mark.parametrize(
    ("mitigation", "recipe", "said"),
    [
        ("ewc", "moe", "ewc measures how much the answers depend on what trains, and on the fresh experts of 'moe'"),
        *(
            (rule, "moe", f"{rule} merges tensors that all checkpoints have, and 'moe' adds experts")
            for rule in ("wise_ft", "model_tailor", "task_arithmetic", "ties", "dare", "grafting")
        ),
        ("o_lora", "sa_proj", "o_lora goes with recipes that have a LoRA adapter, and 'sa_proj' has none; try lora"),
        ("o_lora", "osf", "o_lora goes with recipes that have a LoRA adapter, and 'osf' has none; try lora"),
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
