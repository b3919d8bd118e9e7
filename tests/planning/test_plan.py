"""A plan says before it is spent what a sweep will cost; the plans of the sweeps that ship do not change by accident."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from made import made_trial, write_sweep
from rich.console import Console

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.ledger import Ledger
from lmmcl.planning import flops
from lmmcl.planning.fits import smallest_place
from lmmcl.planning.flops import Hours, estimate_hours
from lmmcl.planning.memory_estimate import stage_memory
from lmmcl.planning.plan import make_plan, plan_table
from lmmcl.reports import formatting
from lmmcl.steps import Finetune

REPOSITORY = Path(__file__).parents[2]
GOLDEN = REPOSITORY / "tests" / "golden" / "plans.json"


def plans_that_ship(store: Path) -> dict[str, dict]:
    found = {}
    for path in sorted((REPOSITORY / "sweeps").glob("*.yaml")):
        plan = make_plan(load_sweep(path), Ledger(str(store)))
        found[path.stem] = {"trials": len(plan.trials), "asked_by_trials": plan.asked_by_trials, **plan.wanted}
    return found


def test_the_plans_of_the_sweeps_that_ship_are_as_written_down(tmp_path: Path) -> None:
    assert plans_that_ship(tmp_path) == json.loads(GOLDEN.read_text()), (
        "A sweep that ships now computes other steps. If that is meant, write the new counts to tests/golden/plans.json."
    )


def test_what_trials_share_is_planned_once(tmp_path: Path) -> None:
    trials = (made_trial(skills=("first", "second")), made_trial(skills=("first", "third"), held_out=("kept",)))
    plan = make_plan(Sweep("made", "", "made.yaml", trials), Ledger(str(tmp_path)))
    assert plan.wanted["finetune"] == 3
    assert plan.wanted["pretrained"] == 1
    assert plan.asked_by_trials == sum(len(trial.steps()) for trial in trials) > sum(plan.wanted.values())


def test_what_is_recorded_is_not_to_run(tmp_path: Path) -> None:
    ledger, trial = Ledger(str(tmp_path)), made_trial()
    with ledger.writing(trial.stages[1].checkpoint) as draft:
        draft.commit({})
    plan = make_plan(Sweep("made", "", "made.yaml", (trial,)), ledger)
    assert (plan.recorded["finetune"], plan.to_run["finetune"]) == (1, 1)
    assert not plan.is_done
    per_stage = trial.trained_parameters() * 2
    assert plan.bytes_to_write == per_stage, "bf16, one of two stages is there"


def test_a_name_that_a_person_chose_is_no_markup(tmp_path: Path) -> None:
    trial = replace(made_trial(), name="mlp [/b] of [mlp] · s0")
    said = Console(record=True, width=120, file=io.StringIO())
    said.print(plan_table(make_plan(Sweep("made", "", "made.yaml", (trial,)), Ledger(str(tmp_path)))))
    assert trial.name in said.export_text()


def test_a_batch_of_more_examples_than_there_are_is_told(tmp_path: Path) -> None:
    def notes(**settings: int) -> tuple[str, ...]:
        sweep = load_sweep(write_sweep(tmp_path), [f"training.{name}={value}" for name, value in settings.items()])
        return make_plan(sweep, Ledger(str(tmp_path))).notes

    assert notes(global_batch_size=64) == (), "64 examples are an update"
    assert notes(global_batch_size=4096) == tuple(
        f"{skill} has 64 training examples and global_batch_size is 4096: an update shows each 64 times, and a stage has 1 update"
        for skill in ("counting", "clock")
    )
    assert "shows each 1.25 times, and a stage has 5 updates" in notes(global_batch_size=80, max_steps=5)[0]


def test_that_is_told_of_data_that_are_not_here_yet_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMMCL_DATA", str(tmp_path))
    text = "name: h\norders: {main: [cub200]}\ntraining: {global_batch_size: 8192}\n"
    sweep = load_sweep(write_sweep(tmp_path, f"{text}grids: [{{model: [qwen2.5-vl-7b], recipe: [mlp]}}]\n"))
    assert make_plan(sweep, Ledger(str(tmp_path))).notes[0].startswith("cub200 has 5994 training examples and ")
    few = load_sweep(sweep.file, ["training.examples=100"])
    assert make_plan(few, Ledger(str(tmp_path))).notes[0].startswith("cub200 has 100 training examples and ")


PAPERS = ("paper", "paper_orders", "paper_probes", "easier", "tailor", "mllm_cl")


@pytest.mark.parametrize("name", PAPERS)
def test_a_paper_s_sweep_opens_with_its_question_and_the_cost_that_the_plan_tells(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMMCL_DATA", str(tmp_path))  # sizes as their owners tell them, not as they are prepared here
    file = REPOSITORY / "sweeps" / f"{name}.yaml"
    head = file.read_text(encoding="utf-8").partition("\nname:")[0]
    words_of_head = " ".join(line.removeprefix("#").strip() for line in head.splitlines())
    assert "?" in head.splitlines()[0] and "Compared with" in words_of_head
    plan = make_plan(load_sweep(file), Ledger(str(tmp_path)))
    assert plan.hours is not None and plan.hours.unknown == 0
    assert f"{len(plan.trials)} trials, {plan.wanted['finetune']} fine-tunes" in words_of_head
    assert f"{formatting.size(plan.bytes_to_write)} of checkpoints" in words_of_head
    assert str(plan.hours).partition(" (")[0] in words_of_head


def test_without_a_cluster_file_a_plan_tells_what_a_node_of_eight_gpus_needs_and_takes_seconds(tmp_path: Path) -> None:
    code = (
        "import sys, time\nstarted = time.process_time()\nfrom lmmcl.cli import app\n"
        f"app(['plan', {str(REPOSITORY / 'sweeps' / 'paper.yaml')!r}, '--store', {str(tmp_path)!r}], standalone_mode=False)\n"
        "print(sorted({'torch', 'ray', 'transformers'} & set(sys.modules)), time.process_time() - started < 20)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-1] == "[] True"
    assert "51 trials" in told and "steps are shared between trials" in told and "2.55 TB" in told
    assert "8 × 80 GB" in told and "on 1 GPU" in told and "on 2 GPUs (ZeRO-3)" in told
    assert "822,212,608" in told and "H100-hours of training" in told


@pytest.mark.parametrize(
    ("hours", "told"),
    [
        (Hours(850.2, 571.0, 0), "about 850 H100-hours of training and 570 of evaluation"),
        (Hours(38.0, 0.18, 0), "about 38 H100-hours of training and 11 H100-minutes of evaluation"),
        (Hours(0.004, 0.0007, 0), "about 14 H100-seconds of training and 2.5 of evaluation"),
        (Hours(None, 0.5, 3), "about an unknown time of training and 30 H100-minutes of evaluation"),
        (Hours(0.0, 2.0, 0), "about 2 H100-hours of evaluation"),
        (Hours(None, None, 3), "unknown"),
    ],
)
def test_what_is_unknown_is_said_so_and_small_times_are_in_small_units(hours: Hours, told: str) -> None:
    assert str(hours).partition(" (")[0] == told
    assert "0.00" not in str(hours) and ("3 steps" in str(hours)) == bool(hours.unknown)


def test_hours_of_data_of_unknown_size_are_unknown_and_not_0(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = load_sweep(REPOSITORY / "sweeps" / "mllm_cl.yaml")
    monkeypatch.setattr(flops, "known_size", lambda task: None)
    found = estimate_hours(sweep.steps.values())
    assert found is not None and (found.training, found.evaluation) == (None, None) and found.unknown
    assert str(found).startswith("unknown (no estimate for")


def test_the_smallest_place_is_one_that_fits_and_the_one_before_it_does_not() -> None:
    sweep = load_sweep(REPOSITORY / "sweeps" / "paper.yaml")
    stages = [step for step in sweep.steps.values() if isinstance(step, Finetune) and step.depth == 1]
    places = {step.key: smallest_place(step) for step in stages}
    assert {place.gpus for place in places.values() if place} >= {1, 2}
    assert all(place.memory.total <= 80e9 for place in places.values() if place)
    homeless = {step.mitigation.name for step in stages if places[step.key] is None and step.mitigation}
    assert homeless == {"ewc", "l2_sp", "mofo", "spider"}, (
        "they need a language model undivided: copies of it, or its fp32 weights"
    )
    large = next(step for step in stages if step.recipe.name.startswith("full"))
    assert smallest_place(large, gpus=1) is None
    assert smallest_place(large, gb=1000.0).gpus == 1  # type: ignore[union-attr]
    kept = {
        step.mitigation.name if step.mitigation else None: stage_memory(step, TrainingPlacement()) for step in stages
    }
    assert kept["ewc"].mitigation == 2 * kept["l2_sp"].mitigation > 0 == kept["replay"].mitigation


def test_hours_grow_with_examples_and_with_what_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMMCL_DATA", str(tmp_path))

    def hours(recipe: str, examples: int) -> float:
        sweep = load_sweep(
            write_sweep(
                tmp_path,
                f"name: h\norders: {{main: [cub200]}}\ntraining: {{examples: {examples}}}\n"
                f"grids: [{{model: [qwen2.5-vl-7b], recipe: [{recipe}]}}]\n",
            )
        )
        found = estimate_hours(sweep.steps.values())
        assert found is not None
        return found.training

    assert hours("llm", 2000) == pytest.approx(2 * hours("llm", 1000))
    assert hours("llm", 10**6) == hours("llm", 5994), "there are no more examples"
    assert hours("llm", 1000) > hours("sa_proj", 1000) > 0.7 * hours("llm", 1000)
    tokens, billions = 999 + 128, 6.53  # of the blocks of Qwen2.5-7B
    least = 1000 * 3 * 2 * billions * 1e9 * tokens / (0.4 * 989e12) / 3600
    assert least < hours("sa_proj", 1000) < 1.3 * least


def test_models_that_need_no_gpu_have_no_gpu_hours() -> None:
    assert estimate_hours(load_sweep(REPOSITORY / "sweeps" / "quickstart.yaml").steps.values()) is None
