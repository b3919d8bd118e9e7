"""Your own data in a sweep: columns, questions, several sources with weights, patterns, and a part held back for the test."""

from __future__ import annotations

import csv
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from own_data import PRICES, write_receipt, write_receipts

from lmmcl.config.overlaps import find_overlaps
from lmmcl.config.own_data import hub_pieces_of
from lmmcl.config.sweep import Sweep, build_sweep
from lmmcl.config.sweep_file import SweepFile
from lmmcl.errors import UserError
from lmmcl.jobs.package import files_of
from lmmcl.tasks.files.local_files import LocalSkill

GRID = [{"model": ["tiny-onevision"], "recipe": ["sa_proj"]}]
TRAINING = {"learning_rate": 1e-3, "epochs": 1, "global_batch_size": 4, "precision": "fp32"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("LMMCL_DATA", raising=False)


def sweep(folder: Path, **skill: Any) -> Sweep:
    data = {
        "name": "own",
        "orders": {"main": ["bills"]},
        "skills": {"bills": {"metric": "exact_match", **skill}},
        "training": TRAINING,
        "grids": GRID,
    }
    return build_sweep(data, file="sweep.yaml", folder=folder)


def skill_of(folder: Path, **skill: Any) -> LocalSkill:
    found = sweep(folder, **skill).trials[0].skills[0]
    assert isinstance(found, LocalSkill)
    return found


def ids(examples: Any) -> list[str]:
    return [example.id for example in examples]


def table(folder: Path, rows: int, *, pictures: int = 0) -> Path:
    """rows.csv with the columns photo, q, a, shop; pictures are shown by several rows where there are fewer of them."""
    draw = random.Random(rows)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(rows):
        price = list(PRICES)[number % 4]
        name = f"{number % (pictures or rows)}.png"
        write_receipt(folder / "pictures" / name, PRICES[price], draw)
        lines.append({"photo": name, "q": f"how much is {number}?", "a": price, "shop": f"s{number % 5}"})
    with (folder / "rows.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return folder / "rows.csv"


COLUMNS = {"image": "photo", "question": "q", "answer": "a"}
TABLE: dict[str, Any] = {"train": "rows.csv", "images": "pictures", "columns": COLUMNS}


def test_a_share_of_the_training_rows_is_asked_and_not_taught(tmp_path: Path) -> None:
    table(tmp_path, 20)
    own = skill_of(tmp_path, **TABLE, test=0.1)
    taught, asked = ids(own.load()), ids(own.benchmark.load())
    assert (len(taught), len(asked)) == (18, 2) == (own.known_rows(), own.benchmark.known_rows())
    assert sorted([*taught, *asked], key=int) == [str(number) for number in range(2, 22)]
    again = skill_of(tmp_path, **TABLE, test={"share": 0.1})
    assert ids(again.benchmark.load()) == asked
    assert again.identity() == own.identity()
    other = skill_of(tmp_path, **TABLE, test={"share": 0.1, "seed": 1})
    assert ids(other.benchmark.load()) != asked
    assert other.identity() != own.identity() != own.benchmark.identity()
    assert find_overlaps(sweep(tmp_path, **TABLE, test=0.1)) == []


def test_rows_that_show_one_picture_or_share_a_value_stay_together(tmp_path: Path) -> None:
    table(tmp_path, 24, pictures=6)
    for by, of in (("picture", lambda each: each.images), ("shop", lambda each: each.metadata["shop"])):
        own = skill_of(tmp_path, **TABLE, test={"share": 0.3, "by": by})
        taught, asked = own.load(), own.benchmark.load()
        assert not {of(each) for each in taught} & {of(each) for each in asked}
        assert len(taught) + len(asked) == 24
        assert len(asked) >= 7
    with pytest.raises(UserError, match=r"skills.bills.test: .*row 1 has no value in 'shopp'.*: shop"):
        skill_of(tmp_path, **TABLE, test={"share": 0.3, "by": "shopp"})


def test_pictures_are_the_same_by_their_bytes_and_over_rows_with_several(tmp_path: Path) -> None:
    table(tmp_path, 4)
    shutil.copy(tmp_path / "pictures/0.png", tmp_path / "pictures/copy.png")
    rows = [
        {"images": names, "question": f"{number}?", "answer": "a"}
        for number, names in enumerate([["0.png"], ["copy.png", "1.png"], ["1.png"], ["2.png"], ["3.png"]])
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for seed in range(6):
        test = {"share": 0.2, "by": "picture", "seed": seed}
        asked = ids(skill_of(tmp_path, train="rows.jsonl", images="pictures", test=test).benchmark.load())
        assert asked in (["1", "2", "3"], ["4"], ["5"])


def test_a_file_that_cannot_be_divided_is_refused(tmp_path: Path) -> None:
    table(tmp_path, 3, pictures=1)
    with pytest.raises(UserError, match=r"skills.bills.test: .*all 3 rows are one group by 'picture'"):
        skill_of(tmp_path, **TABLE, test={"share": 0.3, "by": "picture"})
    for share in (0, 1, 1.5):
        with pytest.raises(UserError, match=r"skills.bills.test.share"):
            skill_of(tmp_path, **TABLE, test=share)


def test_weights_say_how_often_rows_count(tmp_path: Path) -> None:
    write_receipts(tmp_path, rows=4, name="a.json")
    write_receipts(tmp_path, rows=6, name="b.json")
    write_receipts(tmp_path, rows=2, name="test.json")
    own = skill_of(tmp_path, train=["a.json", {"file": "b.json", "weight": 1.5}], test="test.json")
    taught = ids(own.load())
    assert taught[:10] == [*(f"a-{n}" for n in range(4)), *(f"b-{n}" for n in range(6))]
    assert len(set(taught[10:])) == 3
    assert own.known_rows() == 13 == len(taught)
    half = skill_of(tmp_path, train=["a.json", {"file": "b.json", "weight": 0.5}], test="test.json")
    assert len(half.load()) == 7
    assert half.identity() != own.identity()


def test_one_file_as_it_is_keeps_the_key_that_it_had_whatever_the_form(tmp_path: Path) -> None:
    write_receipts(tmp_path, rows=4)
    write_receipts(tmp_path, rows=4, name="test.json")
    plain = skill_of(tmp_path, train="train.json", test="test.json")
    assert isinstance(plain.identity()["data"], str)
    for train in ({"file": "train.json"}, ["train.json"], "trai?.json"):
        assert skill_of(tmp_path, train=train, test="test.json").identity() == plain.identity()


def test_a_pattern_stands_for_all_files_of_its_form(tmp_path: Path) -> None:
    for number in range(3):
        write_receipts(tmp_path, rows=4, name=f"part-{number}.json")
    write_receipts(tmp_path, rows=4, name="test.json")
    own = skill_of(tmp_path, train="part-*.json", test="test.json")
    assert [piece.name for piece, _ in own.data.pieces] == ["part-0.json", "part-1.json", "part-2.json"]
    assert own.known_rows() == 12
    with pytest.raises(UserError, match=r"skills.bills.train: no file is called .*shard-\*\.json"):
        skill_of(tmp_path, train="shard-*.json", test="test.json")
    sent = files_of({"train": ["part-*.json", {"file": "test.json"}], "test": "test.json"}, tmp_path)
    assert sorted(path.name for path, _ in sent) == [*(f"part-{n}.json" for n in range(3)), "test.json", "test.json"]


def test_rows_of_several_files_are_asked_under_names_of_their_own(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "answer": "a"} for n in range(2)]
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
    own = skill_of(tmp_path, train="a.jsonl", test=["a.jsonl", "b.jsonl"])
    assert ids(own.benchmark.load()) == ["1", "2", "1#2", "2#2"]


def test_a_source_may_have_columns_and_images_of_its_own(tmp_path: Path) -> None:
    table(tmp_path / "one", 4)
    write_receipts(tmp_path, rows=4)
    source = {"file": "one/rows.csv", "images": "one/pictures", "columns": COLUMNS}
    own = skill_of(tmp_path, train=["train.json", source], test=source)
    assert own.known_rows() == 8
    assert own.load()[4].prompt[0].content == "<image>\nhow much is 0?"


def test_columns_and_question_are_part_of_the_key(tmp_path: Path) -> None:
    table(tmp_path, 4)
    base = skill_of(tmp_path, **TABLE, test="rows.csv")
    assert base.identity() == skill_of(tmp_path, **TABLE, test="rows.csv").identity()
    swapped = skill_of(tmp_path, **{**TABLE, "columns": {**COLUMNS, "answer": "shop"}}, test="rows.csv")
    asked = skill_of(
        tmp_path,
        train="rows.csv",
        images="pictures",
        test="rows.csv",
        columns={"image": "photo", "answer": "a"},
        question="?",
    )
    assert len({json.dumps(each.identity(), sort_keys=True) for each in (base, swapped, asked)}) == 3


@pytest.mark.parametrize(
    ("skill", "message"),
    [
        ({"train": {"file": "rows.csv", "hub": "a/b"}, "test": 0.1}, "skills.bills.train.*one of file and hub"),
        ({"train": {"hub": "a/b"}, "test": 0.1}, "split is missing"),
        (
            {"train": {"hub": "a", "split": "train"}, "test": 0.1},
            r"train: hub: the id of a data set .* has the form owner/name",
        ),
        ({"train": {"file": "rows.csv", "revision": "main"}, "test": 0.1}, "revision is of data sets of the hub"),
        ({"train": {"fil": "rows.csv"}, "test": 0.1}, "unknown key 'fil'; did you mean 'file'"),
        ({"train": [], "test": 0.1}, "skills.bills.train: must list at least one value"),
        ({"train": "rows.csv", "test": 0.1, "columns": {"picture": "photo"}}, "unknown column 'picture'"),
        ({"train": {"file": "rows.csv", "weight": 0}, "test": 0.1}, "weight"),
        ({"train": "rows.csv", "test": {"share": 0.1, "seeds": 1}}, "unknown key 'seeds'; did you mean 'seed'"),
        ({"train": "rows.csv", "test": 0.1, "columns": {"image": "foto", "question": "q", "answer": "a"}}, "'foto'"),
    ],
)
def test_an_entry_that_cannot_be_meant_is_refused_where_it_stands(tmp_path: Path, skill: Any, message: str) -> None:
    table(tmp_path, 4)
    with pytest.raises(UserError, match=message):
        sweep(tmp_path, images="pictures", **skill)


def test_the_published_form_takes_all_that_is_taken() -> None:
    import jsonschema

    schema = SweepFile.model_json_schema()
    sources: list[Any] = [
        "a.json",
        {"file": "a.json", "weight": 2},
        {"hub": "a/b", "split": "train"},
        ["a.json", {"file": "b"}],
    ]
    for train in sources:
        for test in (*sources, 0.1, {"share": 0.1, "by": "picture"}):
            skills = {"own": {"train": train, "test": test, "metric": "anls", "columns": {"image": ["a", "b"]}}}
            jsonschema.validate({"name": "n", "orders": {"main": ["own"]}, "skills": skills, "grids": GRID}, schema)
    with pytest.raises(jsonschema.ValidationError):
        skills = {"own": {"train": {"file": 3}, "test": 0.1, "metric": "anls"}}
        jsonschema.validate({"name": "n", "orders": {"main": ["own"]}, "skills": skills, "grids": GRID}, schema)


def test_only_data_of_the_hub_are_prepared(tmp_path: Path) -> None:
    pinned = {"hub": "own/er", "split": "train", "revision": "a" * 40}
    skills = {
        "bills": {"train": pinned, "test": {**pinned, "split": "test"}, "metric": "anls"},
        "own": {"train": "a", "test": "b", "metric": "anls"},
    }
    data = {"name": "n", "orders": {"main": ["bills"]}, "skills": skills, "grids": GRID}
    (tmp_path / "sweep.yaml").write_text(json.dumps(data))
    assert [piece.split for piece in hub_pieces_of(tmp_path / "sweep.yaml")] == ["train", "test"]


def test_a_second_plan_reads_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmmcl.ledger import Ledger
    from lmmcl.planning.plan import make_plan

    table(tmp_path, 8)
    monkeypatch.setattr("lmmcl.tasks.files.digest.SETTLED", -1)
    first = make_plan(sweep(tmp_path, **TABLE, test=0.25), Ledger(str(tmp_path / "store")))

    def refuse(*_: object) -> None:
        raise AssertionError("rows were read")

    monkeypatch.setattr("lmmcl.tasks.files.formats.read_rows", refuse)
    assert make_plan(sweep(tmp_path, **TABLE, test=0.25), Ledger(str(tmp_path / "store"))).to_dict() == first.to_dict()
