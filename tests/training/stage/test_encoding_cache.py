"""Examples are encoded once a node, ahead of the model, and never cut inside an image; none of it changes what is learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import SafetensorError

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.settings import Training
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods.recipes.recipe import get_recipe
from lmmcl.models import get_model
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.padding import IGNORED
from lmmcl.steps import Finetune, Pretrained
from lmmcl.tasks.examples import IMAGE_PLACEHOLDER, Example, Message, ask
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.training.finetune import finetune
from lmmcl.training.stage import collate
from lmmcl.training.stage.encoding_cache import DiskCache
from lmmcl.weights.checkpoint import load_checkpoint, named_tensors
from lmmcl.weights.tensor_folder import size_of

BASE = Pretrained(get_model("tiny-onevision"))


def picture(shade: int) -> Image.Image:
    return Image.new("RGB", (32, 32), (shade, 90, 120))


def examples() -> list[Example]:
    return [ask(f"e{n}", "What colour is this?", "red" if n % 2 else "blue", picture(20 * n)) for n in range(8)]


def stage(load: Any = examples, **settings: Any) -> Finetune:
    training = {"learning_rate": 1e-3, "global_batch_size": 4, "max_steps": 3, "precision": "fp32", **settings}
    skill = Skill("shades", 1, load=load, benchmark=Benchmark("shades", 1, "exact_match", load=list))
    return Finetune(BASE, get_recipe("sa_proj"), None, skill, Training(**training), 0)


def trained(folder: Path, monkeypatch: pytest.MonkeyPatch, step: Finetune | None = None, **placement: Any) -> dict:
    monkeypatch.setattr(collate, "CACHE", collate.EncodingCache())  # a process that has encoded nothing yet
    ledger, step = Ledger(str(folder)), step or stage()
    finetune(step, ledger, TrainingPlacement(**placement))
    return {
        name: tensor.clone() for name, tensor in named_tensors(load_checkpoint(step, ledger, precision="fp32")).items()
    }


def same(one: dict, other: dict) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_loader_processes_and_the_disk_change_nothing_that_is_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = str(tmp_path / "encodings")
    plain = trained(tmp_path / "plain", monkeypatch)
    assert same(plain, trained(tmp_path / "ahead", monkeypatch, loader_workers=2))
    assert same(plain, trained(tmp_path / "kept", monkeypatch, encodings=cache, loader_workers=1))
    assert len(list(Path(cache).rglob("*.safetensors"))) == 8

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("was encoded again")

    monkeypatch.setattr(collate, "encode_row", never)
    assert same(plain, trained(tmp_path / "read", monkeypatch, encodings=cache))


def test_a_broken_row_is_told_alike_from_a_loader_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")

    def broken() -> list[Example]:
        return [*examples()[:3], ask("torn", "What colour is this?", "red", tmp_path / "broken.png")]

    for workers in (0, 1):
        with pytest.raises(UserError) as told:
            trained(tmp_path / str(workers), monkeypatch, stage(broken), loader_workers=workers)
        assert str(told.value).endswith("broken.png: is not a readable image: no known format")
        assert str(told.value).startswith("skill shades: row 'torn': /")
        assert "Traceback" not in str(told.value)


def test_the_folder_of_encodings_is_bounded_and_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    made: list[int] = []

    def make(row: int) -> dict[str, torch.Tensor]:
        made.append(row)
        return {"x": torch.full((1000,), float(row))}

    def ask_for(cache: DiskCache, row: int) -> float:
        return float(cache.get("key", row, lambda: make(row))["x"][0])

    cache = DiskCache(tmp_path, 9_000 / 1e9)
    assert [ask_for(cache, row) for row in (1, 2, 3, 1, 2, 3)] == [1, 2, 3, 1, 2, 3]
    assert made == [1, 2, 3, 3], "two of 4,000 bytes fit"
    assert size_of(tmp_path) < 9_000
    [first] = tmp_path.rglob("1.safetensors")
    first.write_bytes(b"torn")
    assert ask_for(DiskCache(tmp_path, 1.0), 1) == 1.0
    assert made == [1, 2, 3, 3, 1]
    assert float(DiskCache(tmp_path, 1.0).get("other", 1, lambda: make(7))["x"][0]) == 7, "another skill or model"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error: no space left")])
def test_a_full_disk_ends_the_keeping_and_no_stage(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[Any] = []

    def full(_: Any, path: Any) -> None:
        asked.append(path)
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr("safetensors.torch.save_file", full)
    cache = DiskCache(tmp_path, 1.0)
    for row in range(3):
        assert float(cache.get("key", row, lambda row=row: {"x": torch.full((1000,), float(row))})["x"][0]) == row
    assert len(asked) == 1 and len(caplog.records) == 1, "told once, and not tried again"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_a_killed_process_half_wrote_counts_as_taken(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.part").write_bytes(b"12345")
    assert size_of(tmp_path) == 5 and size_of(tmp_path / "none") == 0


# --- long examples -------------------------------------------------------------------------------------------------

PROCESSOR = BASE.model.load_processor()


def dialogue(turns: int, pictures: int = 1) -> Example:
    messages: list[Message] = []
    for turn in range(turns):
        shown = f"{IMAGE_PLACEHOLDER}\n" if turn < pictures else ""
        messages += [Message("user", f"{shown}how many ?"), Message("assistant", f"{turn + 1} red square")]
    return Example("long", tuple(messages), tuple(picture(30 * n) for n in range(min(pictures, turns))))


def image_tokens(encoded: dict[str, torch.Tensor]) -> int:
    mark = PROCESSOR.tokenizer.convert_tokens_to_ids(PROCESSOR.image_token)
    return int((encoded["input_ids"] == mark).sum())


@pytest.mark.parametrize("pictures", [0, 1, 3])
def test_a_long_dialogue_loses_turns_with_their_images_then_the_end_of_its_answer(pictures: int) -> None:
    whole = encode(PROCESSOR, dialogue(3, pictures), with_answer=True)
    lengths = [len(encode(PROCESSOR, dialogue(n, pictures), with_answer=True)["input_ids"]) for n in (1, 2, 3)]
    for limit in range(lengths[0] - 2, lengths[2] + 1):
        cut = encode(PROCESSOR, dialogue(3, pictures), with_answer=True, max_tokens=limit)
        assert len(cut["input_ids"]) <= limit
        assert {len(cut[name]) for name in ("input_ids", "attention_mask", "labels")} == {len(cut["input_ids"])}
        turns = sum(length <= limit for length in lengths) or 1
        assert len(cut["input_ids"]) == min(limit, lengths[turns - 1])
        exact = encode(PROCESSOR, dialogue(turns, pictures), with_answer=True)
        assert image_tokens(cut) == image_tokens(exact), "no image is cut"
        if "pixel_values" in exact:
            assert len(cut["pixel_values"]) == len(exact["pixel_values"])
        assert bool((cut["labels"] != IGNORED).any())
    assert whole["input_ids"].tolist() == cut["input_ids"].tolist()


def test_a_question_is_never_cut_but_refused_by_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"alone take \d+ tokens, and max_length is 12"):
        encode(PROCESSOR, dialogue(2), with_answer=True, max_tokens=12)
    with pytest.raises(UserError, match=r"skill shades: row 'e\d': example .* max_length is 12"):
        trained(tmp_path, monkeypatch, stage(max_length=12))


def test_a_limit_is_part_of_the_key_only_where_it_is_set() -> None:
    assert "max_length" not in Training().identity()
    assert stage().key != stage(max_length=64).key
