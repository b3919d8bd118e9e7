"""Benchmarks in other words: what is asked, what has which key, what is reported, and what is refused."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made import SWEEP, write_sweep
from synthetic_ledger import fill
from synthetic_results import make_trial
from typer.testing import CliRunner

import lmmcl
from lmmcl.cli import app
from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.reports.collect import collect
from lmmcl.reports.results import SweepResults
from lmmcl.reports.tables.export import as_dict
from lmmcl.reports.tables.wording_spread import spreads, wordings_markdown, wordings_table
from lmmcl.tasks import get_benchmark
from lmmcl.tasks.examples import ask
from lmmcl.tasks.wordings import Wording, worded

ONE_TRIAL = SWEEP.replace("[sa_proj, gate_up]", "[gate_up]").replace("[1.0e-3, 3.0e-4]", "[1.0e-3]")
WORDINGS = "{colour: [{replace: What, with: Which}, '{question} Answer in one word.']}"


def sweep_with(folder: Path, wordings: str = WORDINGS, text: str = ONE_TRIAL) -> Sweep:
    listed = text.replace("[colour, shape]}", f"[colour, shape], wordings: {wordings}}}")
    return load_sweep(write_sweep(folder, listed, "wordings.yaml"))


def test_images_stay_before_the_question_and_the_rest_is_reworded() -> None:
    example = ask("1", "What is it?\nOne word.", "red", b"...")
    told = [
        Wording(text, other).reword(example).messages[0].content
        for text, other in (("Please: {question}", None), ("One word.", "A letter."), ("What is it?\n", ""))
    ]
    assert told == [
        "<image>\nPlease: What is it?\nOne word.",
        "<image>\nWhat is it?\nA letter.",
        "<image>\nOne word.",
    ]
    assert Wording("{question}!").reword(ask("2", "why?", "so")).messages[0].content == "why?!"
    assert Wording("{question}!").reword(example).references == ("red",)


def test_the_words_to_replace_must_be_in_every_question() -> None:
    with pytest.raises(UserError, match=r"'Who' is not in question 'colour-test-0'|'Who' is not in question"):
        worded(get_benchmark("colour"), Wording("Who", "What")).load()[0]


def test_a_wording_has_a_key_of_its_own_and_changes_none(tmp_path: Path) -> None:
    sweep, plain = sweep_with(tmp_path), load_sweep(write_sweep(tmp_path, ONE_TRIAL))
    assert set(plain.steps) < set(sweep.steps) and plain.trials[0].key == sweep.trials[0].key
    assert len(sweep.steps) - len(plain.steps) == 2 * 3, "two wordings at three stages"
    turned = sweep_with(tmp_path, "{colour: ['{question} Answer in one word.', {replace: What, with: Which}]}")
    assert {step.path for step in turned.steps.values()} == {step.path for step in sweep.steps.values()}
    colour = get_benchmark("colour")
    made = worded(colour, Wording("What", "Which"))
    assert made.identity() == {**colour.identity(), "wording": {"replace": "What", "with": "Which"}}
    again = pickle.loads(pickle.dumps(made))
    assert again.identity() == made.identity() and again.load()[0].prompt[0].content.startswith("<image>\nWhich")
    limited = [example.id for example in made.take(8)]
    assert limited == [example.id for example in colour.take(8)], "the same questions, pair by pair"


@pytest.mark.parametrize(
    ("wordings", "place", "why"),
    [
        ("{colours: ['{question}?']}", "benchmarks.wordings.colours", "did you mean 'colour'"),
        ("{counting: ['{question}?']}", "benchmarks.wordings.counting", "unknown held-out benchmark"),
        ("{colour: ['Say it.']}", "benchmarks.wordings.colour[0]", "no place for the question"),
        ("{colour: ['{question}', {replace: What}]}", "benchmarks.wordings.colour[1]", "a wording is a text with"),
        ("{colour: [{replace: a, with: a}]}", "benchmarks.wordings.colour[0]", "with itself"),
        ("{colour: [{replaces: a, with: b}]}", "benchmarks.wordings.colour[0]", "did you mean 'replace'"),
        ("{colour: ['{question}', '{question}']}", "benchmarks.wordings.colour[1]", "listed twice"),
        ("{colour: ['<image> {question}']}", "benchmarks.wordings.colour[0]", "images stay where they are"),
        ("{colour: [3]}", "benchmarks.wordings.colour[0]", "not 3"),
        ("{colour: []}", "benchmarks.wordings.colour", "at least one value"),
    ],
)
def test_a_refusal_names_the_wording(tmp_path: Path, wordings: str, place: str, why: str) -> None:
    with pytest.raises(UserError) as refused:
        sweep_with(tmp_path, wordings)
    assert place in str(refused.value) and why in str(refused.value)


def test_forgetting_of_a_wording_is_told_apart_from_forgetting_of_a_skill() -> None:
    trial = make_trial(stages=1)
    base, last = trial.stages

    def asked(own: float, others: dict[str, float], stage: Any) -> Any:
        return replace(stage, scores={**stage.scores, "colour": own}, wordings={"colour": others})

    stages = [asked(80.0, {"w": 78.0, "v": 76.0}, base), asked(50.0, {"w": 77.0, "v": 79.0}, last)]
    trial = replace(trial, stages=stages)
    [found] = spreads(trial)
    assert found.benchmark == "colour" and found.changes == {"w": -1.0, "v": 3.0}
    assert (found.as_asked, found.best) == (-30.0, -1.0), "the skill is there in another wording"
    assert found.mean == pytest.approx(-28 / 3) and found.spread == pytest.approx(18.01, abs=0.01)
    results = SweepResults("s", [trial])
    assert "| colour | -30.0 | -9.3 | 18.0 | -1.0 |" in wordings_markdown(results)
    assert wordings_table(results) is not None and wordings_table(SweepResults("s", [make_trial(stages=1)])) is None
    assert as_dict(results)["trials"][0]["wordings"][0]["best"] == -1.0


def test_no_measure_counts_other_wordings(tmp_path: Path) -> None:
    sweep, plain = sweep_with(tmp_path), load_sweep(write_sweep(tmp_path, ONE_TRIAL))
    fill(sweep, tmp_path / "store", questions=20, updates=2)
    with_wordings, without = (collect(each, Ledger(str(tmp_path / "store"))).trials[0] for each in (sweep, plain))
    for one, other in zip(with_wordings.stages, without.stages, strict=True):
        assert one.measures == other.measures and one.scores == other.scores
    labels = {"What → Which", "{question} Answer in one word."}
    assert all(set(stage.wordings["colour"]) == labels for stage in with_wordings.stages)


def test_a_run_asks_all_wordings_and_tells_of_them(tmp_path: Path) -> None:
    sweep = sweep_with(
        tmp_path, "{colour: [{replace: What, with: Which}]}", ONE_TRIAL.replace("examples: 64", "examples: 32")
    )
    store = str(tmp_path / "store")
    done = CliRunner().invoke(app, ["run", sweep.file, "--store", store, "--inline", "--mlflow", "off"])
    assert done.exit_code == 0, done.output
    assert "Wordings of held-out benchmarks" in done.output
    told = CliRunner().invoke(app, ["report", sweep.file, "--store", store, "--format", "json"])
    [spread] = json.loads(told.stdout)["trials"][0]["wordings"]
    assert spread["benchmark"] == "colour" and set(spread["changes"]) == {"What → Which"}
    results = lmmcl.results(sweep, store=store)
    assert list(results.wordings()["wording"]) == ["", "What → Which"] * 3
    name = sweep.trials[0].wordings[0].name
    assert results.samples(name)["question"].str.contains("Which colour").all()
