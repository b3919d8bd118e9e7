from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from made import SWEEP, write_sweep
from synthetic_ledger import fill
from typer.testing import CliRunner

from lmmcl.cli import app
from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.reports.flips import sweep_flips
from lmmcl.reports.page.question_pictures import Pictures, Questions
from lmmcl.tasks import get_benchmark
from lmmcl.tasks.examples import Example, ask
from lmmcl.tasks.lmms_eval.benchmark import LmmsEvalBenchmark
from lmmcl.tasks.skills import Benchmark


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    loaded = load_sweep(write_sweep(tmp_path_factory.mktemp("flips"), SWEEP))
    fill(loaded, Path(loaded.file).parent / "store", questions=20)
    return loaded


@pytest.fixture(scope="module")
def ledger(sweep: Sweep) -> Ledger:
    return Ledger(str(Path(sweep.file).parent / "store"))


def test_lost_and_gained_are_exactly_the_questions_whose_answer_turned(sweep: Sweep, ledger: Ledger) -> None:
    trial = sweep.trials[0]
    (found,) = sweep_flips(sweep, ledger, "counting", [trial.key])
    steps = [next(e for e in trial.stages[n].evaluations if e.benchmark.name == "counting") for n in (0, -1)]
    before, after = (ledger.find(step)["sample_scores"] for step in steps)
    lost = {f"counting-{n}" for n, pair in enumerate(zip(before, after, strict=True)) if pair == (1.0, 0.0)}
    gained = {f"counting-{n}" for n, pair in enumerate(zip(before, after, strict=True)) if pair == (0.0, 1.0)}
    assert {flip.id for flip in found.lost} == lost and {flip.id for flip in found.gained} == gained
    assert lost | gained and found.questions == 20 and found.stage == 2
    assert all((flip.before, flip.after) == ("yes", "no") for flip in found.lost)


def test_without_a_trial_all_of_them_are_compared(sweep: Sweep, ledger: Ledger) -> None:
    assert [each.trial for each in sweep_flips(sweep, ledger, "colour")] == [trial.name for trial in sweep.trials]


def test_what_a_budget_ends_is_compared_after_the_last_stage_that_it_walks(sweep: Sweep, ledger: Ledger) -> None:
    ended = load_sweep(sweep.file, ["search.stop={learning: {below: 101}}"])
    assert [each.stage for each in sweep_flips(ended, ledger, "colour")] == [1] * 4
    assert [each.stage for each in sweep_flips(sweep, ledger, "colour")] == [2] * 4


def test_names_that_are_not_there_are_refused(sweep: Sweep, ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'colour'"):
        sweep_flips(sweep, ledger, "color")
    with pytest.raises(UserError, match="no answers to colour"):
        sweep_flips(sweep, Ledger(str(tmp_path)), "colour", [sweep.trials[0].key])
    assert sweep_flips(sweep, Ledger(str(tmp_path)), "colour") == []


def test_the_command_lists_the_questions(sweep: Sweep, ledger: Ledger) -> None:
    words = ["samples", sweep.file, "--store", ledger.store, "--benchmark", "counting", "--flipped"]
    whole = CliRunner().invoke(app, words)
    assert whole.exit_code == 0 and "Answered before, not after" in whole.stdout and "of 4" in whole.stdout
    one = CliRunner().invoke(app, [*words, "--trial", sweep.trials[0].key, "--json"])
    (found,) = json.loads(one.stdout)
    assert found["benchmark"] == "counting" and found["key"] == sweep.trials[0].key
    text = CliRunner().invoke(app, [*words, "--trial", sweep.trials[0].key]).stdout
    assert all(flip["id"] in text for flip in found["lost"] + found["gained"])
    wrong = CliRunner().invoke(app, [*words[:-1], "--trial", sweep.trials[0].key, "--wrong"]).stdout
    assert found["wrong"] and all(flip["id"] in wrong for flip in found["wrong"]) and "Answered" not in wrong


def test_pictures_stop_when_their_bytes_are_spent() -> None:
    benchmark = get_benchmark("colour")
    ids = [example.id for example in benchmark.load()][:3]
    one = Pictures(10_000_000).of(benchmark, ids[0])
    assert one is not None and one.startswith("data:image/png;base64,")
    few = Pictures(len(one) + 1)
    assert [few.of(benchmark, id) is not None for id in ids] == [True, False, False]
    assert Pictures(10_000).of(benchmark, "no such question") is None


def test_of_local_files_no_more_is_read_than_the_question_that_is_looked_for() -> None:
    read: list[int] = []

    def load() -> Iterator[Example]:
        for number in range(5):
            read.append(number)
            yield ask(str(number), "what?", "that")

    questions = Questions(Benchmark("made", 1, "exact_match", load=load))  # type: ignore[arg-type]
    found = questions.find("1")
    assert found is not None and found.id == "1"
    assert read == [0, 1]
    assert questions.find("0") is not None and read == [0, 1]
    assert questions.find("9") is None and read == [0, 1, 2, 3, 4]


def test_of_a_task_of_lmms_eval_nothing_is_loaded_for_a_report(tmp_path: Path) -> None:
    def load() -> Iterator[Example]:
        raise AssertionError("imports lmms-eval, and may download")

    task = LmmsEvalBenchmark(
        "lmms_eval/made", 1, "exact_match", load=load, task="made", release="0.3", file=tmp_path / "made.yaml"
    )  # type: ignore[arg-type]
    assert Questions(task).find("0") is None
    assert Pictures(10_000).of(task, "0") is None
