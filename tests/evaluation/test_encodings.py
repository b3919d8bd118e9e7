"""A process that asks the same questions of many checkpoints prepares them once, in bounded memory."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from lmmcl.errors import UserError
from lmmcl.evaluation.encodings import EncodingCache, processor_token, windows
from lmmcl.evaluation.question_cache import QuestionCache
from lmmcl.models import get_model
from lmmcl.tasks.examples import Example, ask
from lmmcl.tasks.skills import Benchmark


class Counted:
    """A benchmark that counts how often its questions are loaded."""

    def __init__(self, name: str = "counted", rows: int = 5) -> None:
        self.loads = 0
        self.rows = rows
        self.benchmark = Benchmark(name, 1, "exact_match", load=self.load)

    def load(self) -> list[Example]:
        self.loads += 1
        return [ask(f"q{i}", "What is it?", "red", Image.new("RGB", (32, 32), (i, 0, 0))) for i in range(self.rows)]


@pytest.fixture(scope="module")
def processor():
    return get_model("tiny-onevision").load_processor()


def ids(found) -> list[list[str]]:
    return [[example.id for example, _ in window] for window in found]


def test_the_second_checkpoint_finds_the_questions_prepared(processor) -> None:
    counted, cache = Counted(), EncodingCache(1 << 20)
    first = [row for window in windows(processor, counted.benchmark, None, 2, cache) for row in window]
    again = get_model("tiny-onevision").load_processor()  # another checkpoint brings another object
    second = [row for window in windows(again, counted.benchmark, None, 3, cache) for row in window]
    assert counted.loads == 1
    assert [example for example, _ in first] == [example for example, _ in second]
    assert all(
        torch.equal(one["pixel_values"], other["pixel_values"])
        for (_, one), (_, other) in zip(first, second, strict=True)
    )
    assert all(example.images == () for example, _ in first)


def test_windows_keep_the_order_and_the_limit(processor) -> None:
    counted, cache = Counted(), EncodingCache(1 << 20)
    for _ in range(2):
        assert ids(windows(processor, counted.benchmark, None, 2, cache)) == [["q0", "q1"], ["q2", "q3"], ["q4"]]
        assert ids(windows(processor, counted.benchmark, 3, 2, cache)) == [["q1", "q3"], ["q4"]]
    assert counted.loads == 2


def test_another_version_metric_limit_or_processor_is_prepared_anew(processor) -> None:
    counted, cache = Counted(), EncodingCache(1 << 20)
    other = get_model("tiny-next").load_processor()
    asked = [
        (processor, counted.benchmark, None),
        (processor, dataclasses.replace(counted.benchmark, version=2), None),
        (processor, dataclasses.replace(counted.benchmark, metric="anls"), None),
        (processor, counted.benchmark, 2),
        (other, counted.benchmark, None),
    ]
    for processor_, benchmark, limit in asked * 2:
        list(windows(processor_, benchmark, limit, 10, cache))
    assert counted.loads == len(asked)


def test_a_processor_with_other_words_or_another_picture_size_is_another(processor) -> None:
    tokens = {processor_token(processor)}
    template = get_model("tiny-onevision").load_processor()
    template.chat_template = template.chat_template + " "
    larger = get_model("tiny-onevision").load_processor()
    larger.image_processor.size = {"height": 48, "width": 48}
    worded = get_model("tiny-onevision").load_processor()
    worded.tokenizer.add_tokens(["hitherto"])
    tokens |= {processor_token(template), processor_token(larger), processor_token(worded)}
    assert len(tokens) == 4


def test_a_benchmark_larger_than_the_limit_is_asked_without_being_kept(processor) -> None:
    counted, cache = Counted(), EncodingCache(100)
    for _ in range(2):
        assert ids(windows(processor, counted.benchmark, None, 4, cache)) == [["q0", "q1", "q2", "q3"], ["q4"]]
    assert counted.loads == 2 and cache.size == 0


def test_the_longest_unused_goes_first_when_memory_is_short(processor) -> None:
    one = Counted("one")
    probe = EncodingCache(1 << 30)
    list(windows(processor, one.benchmark, None, 10, probe))
    cache = EncodingCache(probe.size * 2)
    one, two, three = Counted("one"), Counted("two"), Counted("three")
    for counted in (one, two, one, three, one):
        list(windows(processor, counted.benchmark, None, 10, cache))
    assert (one.loads, two.loads, three.loads) == (1, 1, 1)
    assert cache.size <= cache.limit_bytes
    list(windows(processor, two.benchmark, None, 10, cache))
    assert two.loads == 2


def test_a_benchmark_left_half_read_is_not_taken_for_the_whole(processor) -> None:
    counted, cache = Counted(), EncodingCache(1 << 20)
    next(windows(processor, counted.benchmark, None, 2, cache))
    assert len(list(windows(processor, counted.benchmark, None, 2, cache))) == 3
    with pytest.raises(UserError, match="no questions"):
        list(windows(processor, Counted("none", rows=0).benchmark, None, 2, cache))


class Lazy(Sequence):  # type: ignore[type-arg]
    """Questions that are decoded when they are taken; the third cannot be."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, at):
        if at == 2:
            Image.open(io.BytesIO(b"no image"))
        return ask(f"q{at}", "What is it?", "red", Image.new("RGB", (32, 32)))


def test_a_question_that_is_decoded_late_and_cannot_be_is_told_with_its_benchmark(processor) -> None:
    lazy = Benchmark("lazy", 1, "exact_match", load=Lazy)
    with pytest.raises(UserError, match="benchmark lazy: example at row 2: cannot be read: cannot identify image"):
        list(windows(processor, lazy, None, 2, EncodingCache(1 << 20)))
    assert ids(windows(processor, lazy, 2, 2, EncodingCache(1 << 20))) == [["q1", "q3"]]


def test_questions_that_are_asked_once_displace_none_that_are_remembered(processor, tmp_path: Path) -> None:
    counted, cache = Counted("once"), EncodingCache(1 << 20)
    disk = QuestionCache(tmp_path, 1 << 20)
    assert len(list(windows(processor, counted.benchmark, None, 9, cache, remember=False, disk=disk))) == 1
    assert cache.size == 0 and not list(tmp_path.iterdir())


def test_some_rows_are_taken_from_what_is_remembered_of_all_and_else_encoded_alone(processor) -> None:
    counted, cache = Counted("some"), EncodingCache(1 << 20)
    assert ids(windows(processor, counted.benchmark, None, 9, cache, rows=[1, 4])) == [["q1", "q4"]]
    assert cache.size == 0
    list(windows(processor, counted.benchmark, None, 9, cache))
    loads = counted.loads
    assert ids(windows(processor, counted.benchmark, None, 9, cache, rows=[4, 0, 2], skip=1)) == [["q0", "q2"]]
    assert counted.loads == loads
