"""Data of the hub is prepared once and then read offline; what is not prepared is said before anything starts."""

from __future__ import annotations

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hub_fixtures import FixtureHub
from typer.testing import CliRunner

from lmmcl.cli import app
from lmmcl.errors import UserError
from lmmcl.tasks import get_benchmark, get_skill
from lmmcl.tasks.files.check import check_file
from lmmcl.tasks.files.formats import read_examples
from lmmcl.tasks.files.prepared import PreparedExamples, about
from lmmcl.tasks.hub.client import Hub, fetch, unpack
from lmmcl.tasks.hub.hub_data import check_prepared, prepared_file
from lmmcl.tasks.hub.prepare import parts_of, prepare


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LMMCL_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def prepared(folder: Path, *names: str, **more: bool) -> list[str]:
    said: list[str] = []
    prepare(names, FixtureHub(folder / "downloads"), folder, say=said.append, **more)
    return said


def test_what_was_prepared_is_what_is_taught_and_asked(folder: Path) -> None:
    prepared(folder, "text_vqa")
    skill = get_skill("text_vqa")
    taught, asked = skill.load(), skill.benchmark.load()
    assert (len(taught), len(asked)) == (4, 4)
    assert taught[0].target == "dakota"
    assert len(asked[-1].answers) == 10
    assert asked[0].metadata["image_id"] == "003a8ae2ef43b903"
    assert [image.size for image in taught[1].open_images()] == [(12, 10)]
    assert [example.id for example in taught[1:3]] == [taught[1].id, taught[2].id]
    with pytest.raises(IndexError):
        taught[4]


def test_a_prepared_file_is_a_data_file_like_any_other(folder: Path) -> None:
    prepared(folder, "mmstar")
    file = prepared_file("mmstar", "test")
    assert check_file(file).problems == []
    assert [example.id for example in read_examples(file)] == [example.id for example in PreparedExamples(file)]


def test_a_prepared_file_says_what_it_was_made_from(folder: Path) -> None:
    prepared(folder, "pixmo_count")
    facts = about(prepared_file("pixmo_count", "train"))
    assert facts["hub"] == "allenai/pixmo-count"
    assert len(facts["commit"]) == 40
    assert (facts["rows"], facts["left_out"]) == (3, {"dead link": 1, "image was replaced": 1})


def test_dead_links_are_reported(folder: Path) -> None:
    said = prepared(folder, "pixmo_count")
    assert "1 left out: dead link, 1 left out: image was replaced" in said[0]


def test_what_is_prepared_is_not_made_again(folder: Path) -> None:
    prepared(folder, "ai2d")
    before = prepared_file("ai2d", "test").stat().st_mtime_ns
    assert "prepared already" in prepared(folder, "ai2d")[0]
    assert prepared_file("ai2d", "test").stat().st_mtime_ns == before
    prepared(folder, "ai2d", again=True)
    assert prepared_file("ai2d", "test").stat().st_mtime_ns != before


def test_a_branch_is_read_at_one_commit(folder: Path) -> None:
    hub = FixtureHub(folder)
    prepare(["seedbench"], hub, folder, say=lambda _: None)
    assert hub.asked == [f"lmms-lab/SEED-Bench@{'f' * 40}"]


def test_nothing_half_done_is_left_in_place(folder: Path) -> None:
    with pytest.raises(UserError, match=r"does not have the form expected of lmms-lab/ai2d.*its columns: id, text"):
        prepare(["ai2d"], OtherColumns(folder), folder, say=lambda _: None)
    assert not list(folder.rglob("*.parquet"))


class OtherColumns(FixtureHub):
    def rows(self, hub: str, split: str, **more: object):
        yield {"text": "another schema"}


def test_a_broken_image_stops_the_preparation_and_is_named(folder: Path) -> None:
    with pytest.raises(UserError, match="ai2d test: 4 problems after conversion: row 1, images"):
        prepare(["ai2d"], BrokenImages(folder), folder, say=lambda _: None)
    assert not list(folder.rglob("*.parquet"))


class BrokenImages(FixtureHub):
    def rows(self, hub: str, split: str, **more: object):
        for row in super().rows(hub, split):
            yield {**row, "image": {"bytes": b"no image", "path": None}}


def test_missing_data_is_said_with_the_command_that_fetches_it(folder: Path) -> None:
    skill = get_skill("cub200")
    assert "fetch it with `lmmcl data prepare cub200`" in (skill.missing() or "")
    with pytest.raises(UserError, match="lmmcl data prepare cub200"):
        skill.load()
    assert get_skill("counting").missing() is None
    with pytest.raises(
        UserError, match=r"2 skills and benchmarks is not prepared: cub200, ai2d; .*prepare cub200 ai2d`"
    ):
        check_prepared([skill, skill.benchmark, get_benchmark("ai2d"), get_skill("counting")])
    prepared(folder, "cub200", "ai2d")
    check_prepared([skill, skill.benchmark, get_benchmark("ai2d")])


def test_data_of_another_version_of_the_prompts_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(folder, "ai2d")
    newer = get_benchmark("ai2d").__class__(**{**vars(get_benchmark("ai2d")), "version": 2})
    assert "made by version 1 of its prompts, this is version 2" in (newer.missing() or "")


def test_prepared_examples_travel_to_processes_and_threads(folder: Path) -> None:
    prepared(folder, "path_vqa")
    examples = get_skill("path_vqa").load()
    assert [each.id for each in pickle.loads(pickle.dumps(examples))] == [each.id for each in examples]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda at: examples[at % 4].target, range(40))) == [each.target for each in examples] * 10


def test_names_without_data_to_prepare_are_answered() -> None:
    with pytest.raises(UserError, match="counting ships with the package"):
        parts_of("counting")
    with pytest.raises(UserError, match="did you mean 'cub200'"):
        parts_of("cub20")


def test_data_list_and_prepare_on_the_command_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmmcl.tasks.hub.client.Hub", lambda downloads, copies, images: FixtureHub(downloads))
    answer = CliRunner().invoke(app, ["data", "prepare", "ai2d", "cub200", "--to", str(folder)])
    assert answer.exit_code == 0, answer.output
    assert "cub200 train: 5 rows" in answer.output
    rows = json.loads(CliRunner().invoke(app, ["data", "list", "--json"]).output)
    states = {(row["name"], row["part"]): row["rows"] for row in rows}
    assert states[("ai2d", "test")] == 4
    assert states[("mmstar", "test")] is None


def test_the_real_client_reads_a_local_copy_without_decoding_images(tmp_path: Path) -> None:
    import datasets
    from hub_fixtures import FIXTURES

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["001.One_bird", "002.Other_bird"])}
    )
    red = {"bytes": (FIXTURES / "images/red.png").read_bytes(), "path": "red.png"}
    table = datasets.Dataset.from_dict({"image": [red, red], "label": [1, 0]}, features=features)
    copy = tmp_path / "copies/owner/birds/data"
    copy.mkdir(parents=True)
    table.to_parquet(str(copy / "train-00000-of-00001.parquet"))
    hub = Hub(tmp_path, copies=tmp_path / "copies")
    rows = list(hub.rows("owner/birds", "train"))
    assert [(row["label"], row["label_id"]) for row in rows] == [("002.Other_bird", 1), ("001.One_bird", 0)]
    assert rows[0]["image"]["bytes"] == red["bytes"]
    assert hub.labels("owner/birds", "train", "label") == ["001.One_bird", "002.Other_bird"]
    assert hub.commit("owner/birds", "main") is None


def test_offline_the_hub_is_not_asked_and_the_remedy_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="bring a copy made with `hf download lmms-lab/ai2d"):
        list(Hub(tmp_path).rows("lmms-lab/ai2d", "test"))


def test_an_image_once_fetched_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([b"bytes", None])
    monkeypatch.setattr("lmmcl.tasks.hub.client.fetch", lambda url: next(answers))
    hub = Hub(tmp_path)
    assert [hub.image("https://a.invalid/1"), hub.image("https://a.invalid/1")] == [b"bytes", b"bytes"]
    assert hub.image("https://a.invalid/2") is None
    assert fetch("file:///etc/hostname") is None


def test_an_archive_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    import io
    import tarfile

    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        member = tarfile.TarInfo("../outside.txt")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"bad"))
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(tmp_path / "bad.tar", tmp_path / "folder")
    assert not (tmp_path / "outside.txt").exists()
