"""Orders drawn at random, and the bounds of a sequence: which trials there are, what they teach, and what is reported of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made import SWEEP, write_sweep
from typer.testing import CliRunner

import lmmcl
from lmmcl.cli import app
from lmmcl.config.sweep import Sweep, build_sweep, load_sweep
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods.data.joint import JointSkill
from lmmcl.planning.plan import make_plan
from lmmcl.reports.collect import collect
from lmmcl.steps import Finetune

SKILLS = ["birds", "counting", "digits"]
GRID = {"model": ["tiny-onevision"], "recipe": ["mlp"]}


def sweep(orders: Any, grid: dict[str, Any] | None = None, **more: Any) -> Sweep:
    entry = {
        "name": "made",
        "orders": orders,
        "benchmarks": {"held_out": ["colour"]},
        "grids": [{**GRID, **(grid or {})}],
    }
    return build_sweep({**entry, **more})


def taught(found: Sweep) -> dict[str, list[str]]:
    return {trial.order: [skill.name for skill in trial.skills] for trial in found.trials}


def test_drawn_orders_are_different_permutations_that_a_longer_draw_keeps() -> None:
    five = taught(sweep({"any": {"random": 5, "of": SKILLS}}))
    assert list(five) == ["any-1", "any-2", "any-3", "any-4", "any-5"]
    assert all(sorted(order) == SKILLS for order in five.values()) and len({tuple(o) for o in five.values()}) == 5
    two = taught(sweep({"any": {"random": 2, "of": SKILLS}}))
    assert two == {name: five[name] for name in two}
    other = taught(sweep({"any": {"random": 5, "of": SKILLS, "seed": 1}}))
    assert list(other.values()) != list(five.values())
    assert len(taught(sweep({"any": {"random": 6, "of": SKILLS}}))) == 6, "all there are"


def test_a_drawn_order_has_the_keys_of_the_same_order_written_out() -> None:
    drawn = sweep({"any": {"random": 1, "of": SKILLS}})
    [order] = taught(drawn).values()
    assert sweep({"main": order}).trials[0].key == drawn.trials[0].key


def test_grids_name_all_drawn_orders_or_one_of_them() -> None:
    orders = {"any": {"random": 3, "of": SKILLS}, "main": SKILLS}
    assert list(taught(sweep(orders, {"order": ["main", "any"]}))) == ["main", "any-1", "any-2", "any-3"]
    assert list(taught(sweep(orders, {"order": ["any-2"]}))) == ["any-2"]


@pytest.mark.parametrize(
    ("orders", "why"),
    [
        ({"any": {"random": 7, "of": SKILLS}}, "3 skills have 6 orders, not 7"),
        ({"any": {"random": 2, "of": ["birds", "birds"]}}, "listed twice"),
        ({"any": {"random": 2, "of": ["birds", "countin"]}}, "orders.any.of[1]: unknown skill 'countin'"),
        ({"any": {"random": 2, "of": SKILLS}, "any-2": SKILLS}, "would draw an order called 'any-2'"),
        ({"any": {"randoms": 2, "of": SKILLS}}, "did you mean 'random'"),
        ({"any": {"random": 0, "of": SKILLS}}, "greater than or equal to 1"),
    ],
)
def test_orders_that_cannot_be_drawn_are_refused(orders: Any, why: str) -> None:
    with pytest.raises(UserError) as refused:
        sweep(orders, {"order": ["any"]})
    assert why in str(refused.value)


def test_bounds_are_trials_at_each_point_without_mitigation() -> None:
    grid = {"mitigation": [None, "lwf"], "seed": [0, 1]}
    found = sweep({"main": SKILLS}, grid, bounds=["joint", "alone"])
    plain = sweep({"main": SKILLS}, grid)
    assert [trial.key for trial in plain.trials] == [trial.key for trial in found.trials if not trial.bound]
    bounds = [(trial.order, trial.bound, trial.seed, trial.mitigation) for trial in found.trials if trial.bound]
    names = ["joint", "alone-birds", "alone-counting", "alone-digits"]
    expected = {(name, name.partition("-")[0], seed, None) for name in names for seed in (0, 1)}
    assert set(bounds) == expected and len(bounds) == 8
    alone = next(trial for trial in found.trials if trial.order == "alone-birds" and trial.seed == 0)
    assert alone.stages[1].checkpoint == plain.trials[0].stages[1].checkpoint, (
        "birds come first, so this is its first stage"
    )


def test_orders_of_the_same_skills_share_a_joint_bound() -> None:
    orders = {"any": {"random": 3, "of": SKILLS}, "few": ["birds", "clock"]}
    found = sweep(orders, {"order": ["any", "few"]}, bounds=["joint"])
    joint = {trial.order: trial for trial in found.trials if trial.bound}
    assert list(joint) == ["joint-1", "joint-2"]
    parts = [[part.name for part in trial.skills[0].parts] for trial in joint.values()]
    assert parts == [SKILLS, ["birds", "clock"]]
    assert [each.name for each in joint["joint-1"].benchmarks] == [*SKILLS, "colour"]


def test_joint_training_has_the_examples_and_updates_of_all_stages() -> None:
    settings = {"examples": 50, "global_batch_size": 10}
    found = sweep({"main": SKILLS}, training=settings, bounds=["joint"])
    [stage] = [step for step in found.trials[1].steps().values() if isinstance(step, Finetune)]
    assert (stage.updates, stage.examples) == (15, 150)
    skill = stage.skill
    assert isinstance(skill, JointSkill)
    assert [example.id for example in skill.take(150)] == [
        example.id for part in skill.parts for example in part.take(50)
    ]
    steps = sweep({"main": SKILLS}, training={"max_steps": 7}, bounds=["joint"]).trials[1].stages[1].tuned
    assert steps is not None and steps.updates == 21


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"bounds": ["joined"]}, "bounds"),
        ({"bounds": ["joint"], "per_skill": {"birds": {"epochs": 2}}}, "per_skill and per_stage do not go with them"),
        (
            {
                "bounds": ["joint"],
                "grids": [{**GRID, "learning_rate": {"log_uniform": [1e-4, 1e-3]}}],
                "search": {"optuna": {"trials": 2, "objectives": {"learning": "max"}}},
            },
            "draws learning_rate",
        ),
    ],
)
def test_bounds_that_say_nothing_are_refused(more: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError) as refused:
        sweep({"main": SKILLS}, **more)
    assert why in str(refused.value)


def test_a_run_lies_between_its_bounds_and_over_its_orders(tmp_path: Path) -> None:
    text = (
        SWEEP.replace("main: [counting, clock]", "any: {random: 2, of: [counting, clock]}\nbounds: [joint, alone]")
        .replace("[sa_proj, gate_up]", "[mlp]")
        .replace("[1.0e-3, 3.0e-4]", "[1.0e-3]")
        .replace("examples: 64", "examples: 32")
    )
    file, store = str(write_sweep(tmp_path, text)), str(tmp_path / "store")
    done = CliRunner().invoke(app, ["run", file, "--store", store, "--inline", "--mlflow", "off"])
    assert done.exit_code == 0, done.output
    assert "Between the bounds" in done.output and "Over orders" in done.output
    results = collect(load_sweep(file), Ledger(store))
    assert make_plan(load_sweep(file), Ledger(store)).is_done
    assert [(trial.axes["order"], trial.bound) for trial in results.trials[:3]] == [
        ("any-1", ""),
        ("any-2", ""),
        ("joint", "joint"),
    ]
    assert {trial.axes["order"] for trial in results.trials[3:]} == {"alone-counting", "alone-clock"}
    assert all(trial.state == "done" for trial in results.trials)
    joint = results.trials[2].stages[1]
    assert set(joint.scores) == {"counting", "clock", "colour", "shape"}
    gains = [joint.scores[name] - results.trials[2].stages[0].scores[name] for name in ("counting", "clock")]
    assert joint.measures["learning"] == pytest.approx(sum(gains) / 2) == pytest.approx(joint.measures["overall"])
    told = json.loads(CliRunner().invoke(app, ["report", file, "--store", store, "--format", "json"]).stdout)
    assert {each["measure"] for each in told["orders"]} == {"learning", "overall", "held_out_forgetting"}
    frames = lmmcl.results(load_sweep(file), store=store)
    assert list(frames.orders()["orders"]) == [2, 2, 2] and (frames.orders()["sensitivity"] >= 0).all()
    assert list(frames.bounds()["joint"]) == [each["joint"] for each in told["bounds"]]
    assert len(told["bounds"]) == 2 and all(
        each["joint"] is not None and each["alone"] is not None for each in told["bounds"]
    )
