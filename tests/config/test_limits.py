"""Sweeps beyond any use are refused at once, and what a message repeats of them is cut."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from made import write_sweep

from lmmcl.config.cluster import load_cluster
from lmmcl.config.sweep import load_sweep
from lmmcl.config.sweep_file import LONGEST_NAME
from lmmcl.config.validation import MOST_PROBLEMS
from lmmcl.errors import LONGEST_VALUE, UserError

SWEEP = """
name: small
orders: {main: [counting]}
training: {learning_rate: 1.0e-3, precision: fp32}
grids:
  - {model: [tiny-onevision], recipe: [sa_proj]}
  - {model: [tiny-onevision], recipe: [llm], AXES}
"""


def axis(name: str, count: int) -> str:
    return f"{name}: [{', '.join(str(n + 1) for n in range(count))}]"


def refused(folder: Path, text: str) -> str:
    started = time.process_time()
    with pytest.raises(UserError) as caught:
        load_sweep(write_sweep(folder, text))
    assert time.process_time() - started < 5  # nothing was expanded
    return str(caught.value)


def test_a_grid_of_too_many_trials_is_refused_with_the_count_before_they_are_made(tmp_path: Path) -> None:
    axes = ", ".join([axis("seed", 1000), axis("epochs", 1000), axis("global_batch_size", 1000)])
    told = refused(tmp_path, SWEEP.replace("AXES", axes))
    assert "grids[1]: 1,000,000,001 trials (" in told and "allowed: 100,000" in told
    for factor in ("1,000 seed", "1,000 epochs", "1,000 global_batch_size"):
        assert factor in told


def test_a_space_of_too_many_choices_is_refused_as_well(tmp_path: Path) -> None:
    drawn = ", ".join(f"{name}: {{choice: [{', '.join(map(str, range(1, 400)))}]}}" for name in ("epochs", "max_steps"))
    text = SWEEP.replace("AXES", drawn) + "search: {optuna: {trials: 3, objectives: {learning: max}}}\n"
    assert "159,202 trials (399 epochs × 399 max_steps)" in refused(tmp_path, text)


def test_as_many_trials_as_are_allowed_are_counted_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmmcl.config.sweep.MOST_TRIALS", 4)
    assert len(load_sweep(write_sweep(tmp_path, SWEEP.replace("AXES", axis("seed", 3)))).trials) == 4
    assert "5 trials" in refused(tmp_path, SWEEP.replace("AXES", axis("seed", 4)))


def test_more_moments_in_a_stage_than_anybody_meant_are_refused_with_the_remedy(tmp_path: Path) -> None:
    text = SWEEP.replace("AXES", "max_steps: [80000]") + "evaluation: {every: 4}\n"
    told = refused(tmp_path, text)
    assert "evaluation.every: 4 evaluates 20,000 times inside a stage of 80,000 updates; allowed: 1,000" in told
    assert "at least every 80 updates" in told


def test_the_points_of_a_wide_range_are_listed_up_to_a_limit(tmp_path: Path) -> None:
    text = SWEEP.replace("AXES", "max_steps: {int_uniform: [1, 1000000000000]}")
    text += "search: {optuna: {trials: 3, objectives: {learning: max}}}\n"
    (space,) = load_sweep(write_sweep(tmp_path, text)).spaces
    assert [point["max_steps"] for point in space.enumerate_points(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    "line",
    [
        "name: " + "n" * 5000 + "!",
        "training: {learning_rate: " + "x" * 5000 + "}",
        "training: {" + "k" * 900 + ": 1}",
        "grids: [{model: [" + "m" * 5000 + "], recipe: [sa_proj]}]",
        "grids: [{model: [tiny-onevision], recipe: [" + "r" * 5000 + "]}]",
        "grids: [{model: [tiny-onevision], recipe: [{lora: " + "s" * 5000 + "}]}]",
        "grids: [{model: [tiny-onevision], recipe: [sa_proj], mitigation: [{lwf: {weight: " + "w" * 5000 + "}}]}]",
        "description: [" + "1, " * 5000 + "2]",
        "benchmarks: {held_out: [" + "b" * 5000 + "]}",
    ],
    ids=lambda line: line[:40],
)
def test_values_in_messages_are_cut(line: str, tmp_path: Path) -> None:
    name = line.split(":")[0]
    kept = "\n".join(each for each in SWEEP.replace(", AXES", "").split("\n") if not each.startswith(name))
    if name == "grids":
        kept = kept.split("  - ")[0]
    told = refused(tmp_path, f"{kept}\n{line}\n")
    assert len(told) < 12 * LONGEST_VALUE, told
    assert "…" in told


def test_of_many_problems_the_first_are_listed(tmp_path: Path) -> None:
    told = refused(tmp_path, SWEEP.replace("AXES", f"seed: [{', '.join(['x'] * 500)}]"))
    assert told.count("\n") == MOST_PROBLEMS + 1 and told.endswith(f"and {500 - MOST_PROBLEMS} more problems")


@pytest.mark.parametrize("line", ["name: {}", "orders: {{{}: [counting]}}", "benchmarks: {{held_out: [{}]}}"])
def test_names_that_no_folder_can_have_are_refused(line: str, tmp_path: Path) -> None:
    kept = [each for each in SWEEP.replace(", AXES", "").split("\n") if not each.startswith(line.split(":")[0])]
    told = refused(tmp_path, "\n".join([*kept, line.format("n" * (LONGEST_NAME + 1))]))
    assert f"at most {LONGEST_NAME} characters" in told


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("training: {workers: HUGE}", "training.workers"),
        ("evaluation: {batch_size: HUGE}", "evaluation.batch_size"),
        ("evaluation: {features_gb: HUGE}", "evaluation.features_gb"),
    ],
)
def test_numbers_too_large_to_compute_with_are_refused_in_cluster_files(tmp_path: Path, text: str, place: str) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(text.replace("HUGE", str(10**400)))
    with pytest.raises(
        UserError, match=f"{place}: is too large; allowed: whole numbers up to 9,223,372,036,854,775,807"
    ):
        load_cluster(file)


def test_numbers_too_large_to_compute_with_are_refused_in_sweeps_also_in_lists(tmp_path: Path) -> None:
    inside = SWEEP.replace("AXES", "seed: [0]") + f"evaluation: {{updates: [1, {10**400}]}}\n"
    assert "evaluation.updates[1]: is too large" in refused(tmp_path, inside)
