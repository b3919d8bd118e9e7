"""Probes are steps like others: named by what they compute, and nobody else's name depends on them."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from made import SWEEP, made_benchmark, made_trial, write_sweep

from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.steps import ProbeStep
from lmmcl.steps.trial import Trial
from lmmcl.tasks.probes import PROBES, get_probe, probe_names

GOLDEN = Path(__file__).parent.parent / "golden" / "probe_keys.json"


def probed(*probes: Any, **more: Any) -> Trial:
    return dataclasses.replace(made_trial(**more), probes=tuple(get_probe(each) for each in probes))


def probes_of(trial: Trial) -> list[ProbeStep]:
    return [step for step in trial.steps().values() if isinstance(step, ProbeStep)]


def with_probes(folder: Path, text: str) -> Path:
    return write_sweep(folder, f"{SWEEP}probes: {text}\n")


def refused(folder: Path, text: str) -> str:
    with pytest.raises(UserError) as caught:
        load_sweep(with_probes(folder, text))
    return str(caught.value)


def test_every_probe_is_found_by_name_with_settings_that_have_defaults() -> None:
    assert len(probe_names()) >= 8
    for kind in PROBES:
        probe = get_probe(kind.name)
        assert probe.identity()["version"] >= 1
        assert (kind.__doc__ or "").strip()


def test_a_probe_that_is_added_leaves_all_other_keys_and_the_trials_as_they_were() -> None:
    plain, more = made_trial(), probed("number_bias", "kl_from_base")
    assert more.key == plain.key
    assert set(plain.steps()) < set(more.steps())
    assert {step.kind for key, step in more.steps().items() if key not in plain.steps()} == {"examine"}


def test_keys_do_not_change_by_accident() -> None:
    """A default that changes is another finding under the same name: raise the probe's version and write the file again."""
    keys = {step.label: step.key for step in probed(*probe_names()).stages[1].probes}
    assert keys == json.loads(GOLDEN.read_text())


def test_what_compares_with_the_base_is_not_asked_of_the_base() -> None:
    trial = probed("number_bias", "kl_from_base", "layer_contribution")
    labels = [[step.label for step in stage.probes] for stage in trial.stages]
    assert labels == [["number_bias"], *[["number_bias", "kl_from_base", "layer_contribution"]] * 2]
    base = trial.stages[0].checkpoint.key
    for step in trial.stages[2].probes:
        assert [parent.key for parent in step.parents] == [trial.stages[2].checkpoint.key, base][: len(step.parents)]
        assert len(step.parents) == 1 + step.probe.needs_base


@pytest.mark.parametrize(
    "other",
    [
        probed({"number_bias": {"examples": 8}}),
        probed("letter_bias"),
        probed("number_bias", held_out=("kept", "new")),
        probed("number_bias", learning_rate=1e-3),
    ],
    ids=["settings", "probe", "benchmarks", "checkpoint"],
)
def test_what_changes_a_finding_changes_the_key(other: Trial) -> None:
    keys = {step.key for step in (*probes_of(probed("number_bias"))[1:], *probes_of(other)[1:])}
    assert len(keys) == 4


def test_how_many_questions_a_benchmark_is_asked_does_not_change_a_probe() -> None:
    trial = probed("number_bias")
    limited = dataclasses.replace(trial, evaluation=trial.evaluation.model_copy(update={"limit": 5}))
    assert [step.key for step in probes_of(limited)] == [step.key for step in probes_of(trial)]
    half = dataclasses.replace(trial, evaluation=trial.evaluation.model_copy(update={"precision": "fp16"}))
    assert not {step.key for step in probes_of(half)} & {step.key for step in probes_of(trial)}


def test_a_version_that_is_raised_changes_the_key() -> None:
    first = probes_of(probed("number_bias"))[0]
    newer = dataclasses.replace(first, benchmarks=(made_benchmark("kept", version=2),))
    assert newer.key != first.key


def test_a_probes_step_travels_to_a_worker(tmp_path: Path) -> None:
    trial = load_sweep(with_probes(tmp_path, str(probe_names()))).trials[0]
    steps = trial.stages[1].probes
    assert [step.label for step in steps] == probe_names()
    there = pickle.loads(pickle.dumps(steps))
    assert [step.key for step in there] == [step.key for step in steps]
    assert [each.load()[0].id for each in there[-1].benchmarks] == ["bird_parts-test-0"] * 2


def test_a_sweep_names_its_probes_with_or_without_settings(tmp_path: Path) -> None:
    sweep = load_sweep(with_probes(tmp_path, "[number_bias, {constrained: {forbid: letter}}]"))
    probes = sweep.trials[0].stages[1].probes
    assert [step.probe for step in probes] == [
        get_probe("number_bias"),
        get_probe({"constrained": {"forbid": "letter"}}),
    ]
    assert [each.name for each in probes[0].benchmarks] == ["colour", "shape"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[number_bais]", "probes[0]: unknown probe 'number_bais'; did you mean 'number_bias'"),
        (
            "[time_bias, {number_bias: {example: 3}}]",
            "probes[1]: number_bias: unknown setting 'example'; did you mean 'examples'",
        ),
        ("[{number_bias: {examples: 0}}]", "number_bias.examples: must be greater than 0"),
        ("[{constrained: {forbid: words}}]", "constrained.forbid"),
        ("[number_bias, {number_bias: {examples: 3}}]", "'number_bias' is listed twice"),
        ("number_bias", "probes"),
    ],
)
def test_a_wrong_probe_is_refused_at_the_door(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


def test_a_probe_without_held_out_benchmarks_is_refused(tmp_path: Path) -> None:
    text = SWEEP.replace("benchmarks: {held_out: [colour, shape]}\n", "")
    with pytest.raises(UserError, match="the sweep lists none"):
        load_sweep(write_sweep(tmp_path, f"{text}probes: [number_bias]\n"))
    load_sweep(write_sweep(tmp_path, f"{text}probes: [class_name_option]\n"))
