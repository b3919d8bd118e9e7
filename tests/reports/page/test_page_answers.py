"""The page has every question with every answer, each picture once, in one file or with a folder beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from answered_store import answered_sweep
from test_page import EVIL, Scripts

from lmmcl.config.sweep import Sweep
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.reports.collect import collect_results
from lmmcl.reports.page import page as page_module
from lmmcl.reports.page.page import write_page
from lmmcl.reports.page.page_answers import LONGEST, shortened
from lmmcl.reports.page.page_extras import PageExtras, page_extras
from lmmcl.reports.results import SweepResults
from lmmcl.reports.tables.compare import compare_trials
from lmmcl.search.run_context import RunContext
from lmmcl.steps import Evaluate


def gathered(sweep: Sweep, store: Path) -> tuple[SweepResults, PageExtras]:
    context = RunContext.resolve(sweep, Ledger(str(store)))
    results = collect_results(context)
    return results, page_extras(context, results)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("answered")


@pytest.fixture(scope="module")
def sweep(folder: Path) -> Sweep:
    return answered_sweep(folder)


@pytest.fixture(scope="module")
def shown(sweep: Sweep, folder: Path) -> tuple[SweepResults, PageExtras]:
    return gathered(sweep, folder / "store")


def test_every_question_has_the_answer_of_every_stage_of_every_trial(
    sweep: Sweep, folder: Path, shown: tuple[SweepResults, PageExtras]
) -> None:
    answers = shown[1].answers
    assert answers.trials == [trial.key for trial in sweep.trials]
    assert {block["name"] for block in answers.blocks} == {"counting", "birds", "colour", "shape"}
    for block in answers.blocks:
        for run in block["runs"]:
            trial = sweep.trials[run["trial"]]
            assert [number for number, _, _ in run["stages"]] == [0, 1, 2]
            for number, skill, place in run["stages"]:
                stage = trial.stages[number]
                assert skill == (stage.skill.name if stage.skill else None)
                step = next(step for step in stage.evaluations if step.benchmark.name == block["name"])
                rows = map(json.loads, (folder / "store" / step.path / "samples.jsonl").read_text().splitlines())
                column = block["columns"][place]
                for row in rows:
                    question = block["ids"].index(row["id"])
                    assert block["texts"][column["predictions"][question]] == row["prediction"]
                    assert column["scores"][question] == row["score"]
                    assert block["texts"][block["questions"][question]] == row["question"]
                    assert [block["texts"][text] for text in block["references"][question]] == row["references"]


def test_checkpoints_and_pictures_that_are_shared_are_there_once(shown: tuple[SweepResults, PageExtras]) -> None:
    answers = shown[1].answers
    for block in answers.blocks:
        assert len(block["columns"]) == 1 + 2 * 4, "the model before the first stage, and two stages of four trials"
    used = [digest for block in answers.blocks for pictures in block["pictures"] for digest in pictures]
    assert set(used) == set(answers.pictures) and len(used) == 4 * 24
    contents = [content for content, _ in answers.pictures.values()]
    assert len(set(contents)) == len(contents)


def test_pairs_are_those_of_the_compare_command(
    sweep: Sweep, folder: Path, shown: tuple[SweepResults, PageExtras]
) -> None:
    pairs = shown[1].pairs
    assert len(pairs["trials"]) == 4 and len(pairs["pairs"]) == 6
    for pair in pairs["pairs"]:
        keys = [pairs["trials"][place]["key"] for place in pair["trials"]]
        comparison = compare_trials(sweep, Ledger(str(folder / "store")), *keys)
        for kind in ("measures", "benchmarks"):
            rows = {row[0]: row[2:7] for row in pair[kind]}
            assert rows == {
                row.name: pytest.approx([row.first, row.second, row.value, row.low, row.high], rel=1e-4, abs=1e-9)
                for row in getattr(comparison, kind)
            }


def test_over_seeds_pairs_are_of_grid_points_and_distributions_have_every_seed(tmp_path: Path) -> None:
    sweep = answered_sweep(tmp_path, 8, seeds=(0, 1, 2))
    results, extras = gathered(sweep, tmp_path / "store")
    assert len(extras.pairs["trials"]) == 4 and {pair["seeds"] for pair in extras.pairs["pairs"]} == {3}
    assert len(extras.answers.trials) == 4, "one seed of each grid point"
    groups = [group for group in page_module._data(results, extras)["spread"] if group["measure"] == "learning"]
    assert len(groups) == 4
    for group in groups:
        values = [value for _, value in group["values"]]
        assert len(values) == 3 and group["mean"] == pytest.approx(sum(values) / 3)
        assert group["low"] < group["mean"] < group["high"]


def test_damaged_answers_are_left_out_alone(tmp_path: Path) -> None:
    sweep = answered_sweep(tmp_path, 6)
    step = next(
        step for step in sweep.trials[0].stages[2].evaluations if isinstance(step, Evaluate) and step.label == "colour"
    )
    record = tmp_path / "store" / step.path / "record.json"
    files = {"samples.jsonl": {"sha256": "0" * 64, "bytes": 1}}
    record.write_text(json.dumps({**json.loads(record.read_text()), "files": files}))
    block = next(each for each in gathered(sweep, tmp_path / "store")[1].answers.blocks if each["name"] == "colour")
    assert [[number for number, _, _ in run["stages"]] for run in block["runs"]] == [[0, 1], *[[0, 1, 2]] * 3]


def test_a_large_page_has_a_folder_beside_it_and_a_small_one_takes_it_away(
    shown: tuple[SweepResults, PageExtras], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, extras = shown
    assert write_page(results, tmp_path / "report.html", extras) == [tmp_path / "report.html"]
    alone = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'id="answers-3"' in alone and 'id="pictures"' in alone
    monkeypatch.setattr(page_module, "LARGEST", 100_000)
    assert write_page(results, tmp_path / "report.html", extras) == [
        tmp_path / "report.html",
        tmp_path / "report_files",
    ]
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'id="answers-3"' not in text and 'id="pictures"' not in text and "'self' file:" in text
    data = json.loads(Scripts(text).scripts[0])
    named = [block["file"] for block in data["answers"]["blocks"]] + list(data["answers"]["pictures"].values())
    assert len(named) == 4 + len(extras.answers.pictures) and all((tmp_path / name).is_file() for name in named)
    monkeypatch.undo()
    write_page(results, tmp_path / "report.html", extras)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_folder_of_somebody_else_is_left_alone(
    shown: tuple[SweepResults, PageExtras], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report_files").mkdir()
    (tmp_path / "report_files" / "mine.txt").write_text("mine")
    write_page(shown[0], tmp_path / "report.html", shown[1])
    before = (tmp_path / "report.html").read_bytes()
    monkeypatch.setattr(page_module, "LARGEST", 100_000)
    with pytest.raises(UserError, match="report_files holds files that do not belong to this page"):
        write_page(shown[0], tmp_path / "report.html", shown[1])
    assert (tmp_path / "report_files" / "mine.txt").read_text() == "mine"
    assert (tmp_path / "report.html").read_bytes() == before


def test_no_string_of_an_answer_can_become_markup(tmp_path: Path) -> None:
    sweep = answered_sweep(tmp_path, 4, hostile=EVIL)
    results, extras = gathered(sweep, tmp_path / "store")
    text = page_module.page(results, extras)
    (tmp_path / "plain").mkdir()
    plain = answered_sweep(tmp_path / "plain", 4)
    assert Scripts(text).tags == Scripts(page_module.page(*gathered(plain, tmp_path / "plain" / "store"))).tags
    block = json.loads(Scripts(text).scripts[3])
    assert any(answer.endswith(EVIL) for answer in block["texts"])


def test_a_text_longer_than_a_page_shows_is_cut() -> None:
    assert shortened("a" * LONGEST) == "a" * LONGEST
    assert shortened("a" * (LONGEST + 1)) == "a" * (LONGEST - 1) + "…"
