"""Skills and benchmarks from local files: known by content wherever they lie, and safe to send to workers."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from own_data import write_receipts
from PIL import Image

from lmmcl.config.sweep_file import LocalSkillEntry
from lmmcl.errors import UserError
from lmmcl.tasks.files.content import content_digest, read_content
from lmmcl.tasks.files.local_files import LocalBenchmark, LocalSkill, local_benchmark, local_skill


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with train.json, test.json and their images."""
    folder = tmp_path / "receipts"
    write_receipts(folder, rows=4)
    write_receipts(folder, rows=4, name="test.json")
    return folder


def skill(folder: Path) -> LocalSkill:
    return local_skill("receipts", train=folder / "train.json", test=folder / "test.json", metric="anls")


def benchmark(folder: Path, **more: object) -> LocalBenchmark:
    return local_benchmark("receipts", test=folder / "test.json", **{"metric": "anls", **more})  # type: ignore[arg-type]


def change_a_pixel(image: Path) -> None:
    picture = Image.open(image).convert("RGB")
    picture.putpixel((0, 0), (1, 2, 3))
    picture.save(image)


def change_an_answer(path: Path) -> None:
    path.write_text(path.read_text().replace('"five"', '"fire"', 1))


def test_a_moved_folder_keeps_its_identity(data: Path) -> None:
    before = skill(data).identity(), skill(data).benchmark.identity()
    moved = data.parent / "elsewhere" / "bills"
    shutil.copytree(data, moved)
    shutil.rmtree(data)
    assert (skill(moved).identity(), skill(moved).benchmark.identity()) == before
    assert str(data) not in json.dumps(before)


def test_a_changed_pixel_or_answer_changes_the_identity_of_its_own_split_only(data: Path) -> None:
    before = skill(data)
    change_a_pixel(data / "images/train-0.png")
    pixel = skill(data)
    assert pixel.identity() != before.identity()
    assert pixel.benchmark.identity() == before.benchmark.identity()
    change_an_answer(data / "test.json")
    answer = skill(data)
    assert answer.identity() == pixel.identity()
    assert answer.benchmark.identity() != pixel.benchmark.identity()


def test_an_image_that_no_row_names_does_not_matter(data: Path) -> None:
    before = benchmark(data).identity()
    (data / "images/notes.png").write_bytes(b"draft")
    assert benchmark(data).identity() == before


def test_metric_and_length_of_the_answer_are_part_of_a_benchmark(data: Path) -> None:
    identities = [benchmark(data), benchmark(data, metric="exact_match"), benchmark(data, max_new_tokens=8)]
    assert len({json.dumps(one.identity(), sort_keys=True) for one in identities}) == 3


def test_one_declared_in_python_is_the_one_that_yaml_declares(data: Path) -> None:
    entry = LocalSkillEntry(train="train.json", test="test.json", metric="anls")
    assert skill(data).benchmark.max_new_tokens == benchmark(data).max_new_tokens == entry.max_new_tokens == 16


def test_a_skill_travels_with_its_digest(data: Path) -> None:
    travelled = pickle.loads(pickle.dumps(skill(data)))
    assert travelled.identity() == skill(data).identity()
    assert [example.target for example in travelled.load()] == ["five", "two", "nine", "four"]
    assert len(travelled.benchmark.load()[0].open_images()) == 1


def test_the_images_may_lie_elsewhere(data: Path) -> None:
    pictures = data.parent / "pictures"
    pictures.mkdir()
    shutil.move(data / "images", pictures / "images")
    own = local_skill(
        "receipts", train=data / "train.json", test=data / "test.json", images=pictures, metric="anls", max_new_tokens=4
    )
    assert own.load()[0].images == (pictures / "images/train-0.png",)
    assert own.benchmark.max_new_tokens == 4


@pytest.mark.parametrize("change", [change_an_answer, lambda path: change_a_pixel(path.parent / "images/test-1.png")])
def test_files_changed_since_they_were_declared_are_not_loaded(data: Path, change: Callable[[Path], None]) -> None:
    declared = benchmark(data)
    change(data / "test.json")
    with pytest.raises(UserError, match="changed since the sweep was read"):
        declared.load()


def test_mistakes_are_told_when_declared(data: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'anls'"):
        benchmark(data, metric="anl")
    with pytest.raises(UserError, match="max_new_tokens is 0"):
        benchmark(data, max_new_tokens=0)
    with pytest.raises(UserError, match=r"none\.json: no such file"):
        local_benchmark("receipts", test=data / "none.json", metric="anls")
    with pytest.raises(UserError, match="elsewhere: no such folder of images"):
        benchmark(data, images=data / "elsewhere")
    (data / "images/test-2.png").unlink()
    with pytest.raises(UserError, match=r"test\.json: row 3, image: .*test-2\.png: No such file"):
        benchmark(data)


def test_ids_may_repeat_in_the_training_file_only(data: Path) -> None:
    rows = json.loads((data / "train.json").read_text())
    (data / "train.json").write_text(json.dumps(rows + rows[:1]))
    assert len(skill(data).load()) == 5
    with pytest.raises(UserError, match="row 5, id"):
        local_benchmark("receipts", test=data / "train.json", metric="anls")


def test_a_second_look_reads_no_file(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmmcl.tasks.files.digest.SETTLED", -1)
    first = content_digest(data / "test.json")

    def refuse(*_: object) -> None:
        raise AssertionError("a file was read")

    monkeypatch.setattr("lmmcl.tasks.files.digest.hash_file", refuse)
    monkeypatch.setattr("lmmcl.tasks.files.content.sound_rows", refuse)
    monkeypatch.setattr("lmmcl.tasks.files.content.inspect_image", refuse)
    assert content_digest(data / "test.json") == first


def test_an_image_replaced_within_one_tick_of_the_clock_is_noticed(data: Path) -> None:
    for path in data.rglob("*.*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    image = data / "images/test-0.png"
    now = time.time_ns()
    os.utime(image, ns=(now, now))
    before = content_digest(data / "test.json")
    changed = bytearray(image.read_bytes())
    changed[-20] ^= 1
    image.write_bytes(changed)
    os.utime(image, ns=(now, now))
    assert content_digest(data / "test.json") != before


def test_only_images_that_are_shown_otherwise_than_before_change_the_identity_of_a_file(data: Path) -> None:
    """Plain images keep the digest that earlier versions gave them; the rule for turned ones entered with it."""
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in data.glob("images/*.png")}
    named = sorted((f"images/{name}", digest) for name, digest in digests.items() if name.startswith("test"))
    rows = hashlib.sha256((data / "test.json").read_bytes()).hexdigest()
    assert content_digest(data / "test.json") == sha([rows, named])
    assert read_content(data / "test.json").notes() == []

    tags = Image.Exif()
    tags[0x0112] = 6
    Image.open(data / "images/test-2.png").save(data / "images/test-2.png", exif=tags)
    turned = hashlib.sha256((data / "images/test-2.png").read_bytes()).hexdigest()
    named = [(name, turned if name == "images/test-2.png" else digest) for name, digest in named]
    assert content_digest(data / "test.json") == sha([rows, named, 2])
    [note] = benchmark(data).notes()
    assert note == "test.json: 1 image turned upright by the EXIF orientation (first: row 3, image)"


def sha(value: object) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()


def test_an_image_that_cannot_be_shown_is_refused_when_it_is_declared(data: Path) -> None:
    (data / "images/test-1.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"test\.json: row 2, image: .*test-1\.png: is not a readable image"):
        benchmark(data)


def test_what_is_done_to_embedded_images_is_part_of_the_file(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    def declared(mode: str) -> LocalBenchmark:
        file = io.BytesIO()
        Image.new(mode, (8, 8)).save(file, "PNG")
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "a"}]
        row = {"image": {"bytes": file.getvalue(), "path": None}, "messages": turns}
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "rows.parquet")
        return local_benchmark("own", test=tmp_path / "rows.parquet", metric="anls")

    rgb = declared("RGB")
    assert rgb.data.identity() == sha([hashlib.sha256((tmp_path / "rows.parquet").read_bytes()).hexdigest(), []])
    rgba = declared("RGBA")
    assert rgba.data.identity() == sha([hashlib.sha256((tmp_path / "rows.parquet").read_bytes()).hexdigest(), [], 2])
    assert rgba.notes() == ("rows.parquet: 1 image with transparency, shown on white (first: row 1, image)",)


def test_a_look_at_many_images_takes_time_in_proportion_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty thousand images: what was found is not copied once for each of them."""
    from lmmcl.tasks.files import content
    from lmmcl.tasks.files.digest import DigestCache, FileState

    count = 20_000
    names = [content._Named(f"row {number}, image", f"{number}.png") for number in range(count)]
    states = [FileState(f"/{number}.png", 1, 1, 1, number, f"/{number}.png") for number in range(count)]
    monkeypatch.setattr(content, "_inspect", lambda *_: [])
    started = time.process_time()
    found = content._kinds(tmp_path, names, states, [str(number) for number in range(count)], DigestCache(tmp_path))
    assert found == [[]] * count
    assert time.process_time() - started < 3
