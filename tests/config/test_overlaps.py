"""Rows that are taught and asked are refused, or allowed by a key that says so; what skills share is reported."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from own_data import llava_row, write_receipts
from PIL import Image
from typer.testing import CliRunner

from lmmcl.cli import app
from lmmcl.config.overlaps import Overlap, check_overlaps, find_overlaps
from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.planning.plan import make_plan
from lmmcl.reports.collect import collect
from lmmcl.reports.page.page_data import page_data

BASE = {
    "name": "own",
    "orders": {"main": ["bills"]},
    "skills": {"bills": {"train": "train.json", "test": "test.json", "images": ".", "metric": "anls"}},
    "training": {"learning_rate": 1e-3, "epochs": 1, "global_batch_size": 4, "precision": "fp32"},
    "grids": [{"model": ["tiny-onevision"], "recipe": ["sa_proj"]}],
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("train", "test", "other"):
        write_receipts(tmp_path, rows=6, name=f"{name}.json")
    return tmp_path


def sweep(folder: Path, **more: Any) -> Sweep:
    (folder / "sweep.yaml").write_text(json.dumps({**BASE, **more}))
    return load_sweep(folder / "sweep.yaml")


def held_out(file: str, **more: Any) -> dict[str, Any]:
    own = {"mine": {"test": file, "images": ".", "metric": "anls"}}
    return {"held_out": ["mine"], "own": own, **more}


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    return json.loads((folder / name).read_text())


def overlaps_with(folder: Path, rows: list[dict[str, Any]]) -> list[Overlap]:
    """The overlaps of a held-out benchmark of these rows with the skill."""
    (folder / "asked.json").write_text(json.dumps(rows))
    return find_overlaps(sweep(folder, benchmarks=held_out("asked.json")))


def test_files_that_share_no_row_have_no_overlap(folder: Path) -> None:
    assert find_overlaps(sweep(folder, benchmarks=held_out("other.json"))) == []


def test_a_held_out_benchmark_that_holds_a_taught_row_is_refused(folder: Path) -> None:
    mixed = [*rows_of(folder, "other.json"), rows_of(folder, "train.json")[4]]
    assert overlaps_with(folder, mixed) == [Overlap("asked", "mine", "bills", 1, 7, 7, 5, allowed=False)]
    with pytest.raises(UserError) as refused:
        check_overlaps(load_sweep(folder / "sweep.yaml"))
    assert "1 of the 7 rows of benchmark 'mine' are also taught by 'bills' (row 7 is row 5 there)" in str(refused.value)
    assert "benchmarks: {allow_overlap: [mine]}" in str(refused.value)


def test_a_test_file_that_is_the_training_file_is_refused_by_plan_and_by_run(folder: Path) -> None:
    same = {"bills": {**BASE["skills"]["bills"], "test": "train.json"}}  # type: ignore[index]
    sweep(folder, skills=same)
    for words in (["plan"], ["run", "--inline", "--mlflow", "off"]):
        ran = CliRunner().invoke(
            app, [words[0], str(folder / "sweep.yaml"), *words[1:], "--store", str(folder / "store")]
        )
        assert isinstance(ran.exception, UserError), ran.output
        assert "6 of the 6 rows of benchmark 'bills' are also taught by 'bills'" in str(ran.exception)


def test_rows_are_the_same_by_their_images_bytes_and_their_question(folder: Path) -> None:
    [taught] = [row for row in rows_of(folder, "train.json") if row["id"] == "train-2"]
    shutil.copy(folder / taught["image"], folder / "renamed.jpeg")
    shouted = llava_row("a", "renamed.jpeg", "  HOW much\nis ｉｔ? ", "another answer")
    [found] = overlaps_with(folder, [shouted])
    assert (found.rows, found.same) == (1, 3)
    assert overlaps_with(folder, [llava_row("a", taught["image"], "what colour is the paper?", "grey")]) == []
    other_picture = rows_of(folder, "other.json")[0]["image"]
    assert overlaps_with(folder, [llava_row("a", other_picture, "how much is it?", "two")]) == []


def test_a_question_inside_a_longer_dialogue_counts_where_its_image_is_shown(folder: Path) -> None:
    picture = rows_of(folder, "other.json")[0]["image"]
    long = llava_row("long", picture, "what is this?", "a bill")
    long["conversations"] += [{"from": "human", "value": "which colour?"}, {"from": "gpt", "value": "red"}]
    (folder / "train.json").write_text(json.dumps([*rows_of(folder, "train.json"), long]))
    [found] = overlaps_with(folder, [llava_row("a", picture, "Which colour?", "red")])
    assert found.same == 7


def words(id: str, *turns: str) -> dict[str, Any]:
    speakers = ("human", "gpt")
    return {"id": id, "conversations": [{"from": speakers[at % 2], "value": turn} for at, turn in enumerate(turns)]}


def test_without_images_the_whole_dialogue_before_the_answer_counts(folder: Path) -> None:
    taught = [words("t", "Is a bill paper?", "yes", "Why?", "it is printed")]
    (folder / "train.json").write_text(json.dumps([*rows_of(folder, "train.json"), *taught]))
    assert overlaps_with(folder, [words("a", "Is gold paper?", "no", "Why?", "it is metal")]) == []
    assert overlaps_with(folder, [words("a", "is a bill paper?", "no")])[0].same == 7


def test_embedded_images_are_compared_with_files(folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    taught = rows_of(folder, "train.json")[1]
    data = (folder / taught["image"]).read_bytes()
    turns = [{"role": "user", "content": "how much is it?"}, {"role": "assistant", "content": "two"}]
    row = {"image": {"bytes": data, "path": None}, "messages": turns}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), folder / "asked.parquet")
    [found] = find_overlaps(sweep(folder, benchmarks=held_out("asked.parquet")))
    assert found.same == 2


def mixing(file: str) -> list[dict[str, Any]]:
    source = {"train": file, "images": "."}
    return [{**BASE["grids"][0], "mitigation": [{"data_hybrid": {"auxiliary": [source]}}]}]  # type: ignore[dict-item]


def test_mixed_in_data_must_hold_neither_taught_nor_asked_rows(folder: Path) -> None:
    assert find_overlaps(sweep(folder, grids=mixing("other.json"))) == []
    [found] = find_overlaps(sweep(folder, grids=mixing("train.json")))
    assert (found.kind, found.name, found.other, found.refused) == ("mixed", "train", "bills", True)
    [found] = find_overlaps(sweep(folder, grids=mixing("test.json")))
    assert (found.kind, found.name, found.other, found.refused) == ("asked", "bills", "test", True)


def test_what_skills_share_is_told_and_not_refused(folder: Path) -> None:
    (folder / "more.json").write_text(json.dumps(rows_of(folder, "other.json") + rows_of(folder, "train.json")[:2]))
    more = {"train": "more.json", "test": "test2.json", "images": ".", "metric": "anls"}
    write_receipts(folder, rows=3, name="test2.json")
    both = sweep(folder, skills={**BASE["skills"], "more": more}, orders={"main": ["bills", "more"]})  # type: ignore[dict-item]
    [found] = find_overlaps(both)
    assert (found.kind, found.rows, found.refused) == ("taught", 2, False)
    check_overlaps(both)
    plan = make_plan(both, Ledger(str(folder / "store")))
    plan.refuse_overlaps()
    assert "2 of the 6 rows of skill 'bills' are also taught by 'more' (row 1 is row 7 there)" in plan.notes


def test_an_overlap_that_is_allowed_is_run_under_the_same_keys_and_said_on_the_page(folder: Path) -> None:
    refused = sweep(folder, benchmarks=held_out("train.json"))
    allowed = sweep(folder, benchmarks=held_out("train.json", allow_overlap=["mine"]))
    assert allowed.steps.keys() == refused.steps.keys()
    check_overlaps(allowed)
    plan = make_plan(allowed, Ledger(str(folder / "store")))
    plan.refuse_overlaps()
    said = "6 of the 6 rows of benchmark 'mine' are also taught by 'bills' (row 1 is row 1 there); allowed by benchmarks.allow_overlap"
    assert said in plan.notes
    assert ["note", said] in page_data(collect(allowed, Ledger(str(folder / "store"))))["facts"]


def test_only_names_of_what_is_asked_or_mixed_in_can_be_allowed(folder: Path) -> None:
    with pytest.raises(UserError, match=r"benchmarks\.allow_overlap\[0\]: unknown .* 'mina'; did you mean 'mine'"):
        sweep(folder, benchmarks=held_out("train.json", allow_overlap=["mina"]))


def test_drawn_skills_and_benchmarks_need_no_comparison(folder: Path) -> None:
    drawn = sweep(folder, skills={}, orders={"main": ["counting"]}, benchmarks={"held_out": ["colour"]})
    assert find_overlaps(drawn) == []


def test_a_second_look_reads_no_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = find_overlaps(sweep(folder, benchmarks=held_out("train.json")))
    monkeypatch.setattr("lmmcl.tasks.files.fingerprints.sound_rows", None)
    assert find_overlaps(load_sweep(folder / "sweep.yaml")) == first


def test_a_changed_image_is_another_row(folder: Path) -> None:
    rows = rows_of(folder, "train.json")[:1]
    assert len(overlaps_with(folder, rows)) == 1
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    (folder / "copy.png").write_bytes(file.getvalue())
    assert overlaps_with(folder, [{**rows[0], "image": "copy.png"}]) == []


def test_data_that_can_no_longer_be_read_hide_no_result(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = sweep(folder, benchmarks=held_out("train.json"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "no memory of it"))
    (folder / "train.json").unlink()
    [note] = collect(loaded, Ledger(str(folder / "store"))).notes
    assert note.startswith("could not check whether rows are both taught and asked") and "train.json" in note


def test_a_plan_says_what_is_done_to_images_of_all_files_that_are_taught_asked_and_mixed_in(folder: Path) -> None:
    for name in ("train", "test", "other"):
        Image.new("RGBA", (8, 8)).save(folder / f"images/{name}-1.png")
    notes = make_plan(sweep(folder, grids=mixing("other.json")), Ledger(str(folder / "store"))).notes
    said = "1 image with transparency, shown on white (first: row 2, image)"
    assert {f"bills: train.json: {said}", f"bills: test.json: {said}", f"other: {said}"} <= set(notes)
