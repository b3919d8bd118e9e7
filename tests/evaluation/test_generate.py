"""Answers do not depend on how they were computed: batch, padding, order, cache, or what a checkpoint was shipped with."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import GenerationConfig

from lmmcl.errors import UserError
from lmmcl.evaluation import generate
from lmmcl.evaluation.encodings import CACHE, windows
from lmmcl.evaluation.evaluate import score_benchmarks
from lmmcl.evaluation.generate import answer
from lmmcl.models import get_model
from lmmcl.models.generation.decoding import answering, greedy, new_tokens
from lmmcl.models.processing.padding import pad
from lmmcl.tasks import benchmark_names, get_benchmark, get_skill, skill_names
from lmmcl.tasks.examples import Example, Message, ask
from lmmcl.tasks.hub.hub_data import HubBenchmark
from lmmcl.tasks.skills import Benchmark

FAMILIES = ["tiny-onevision", "tiny-next", "tiny-qwen"]
QUESTIONS = ["What is it?", "Which of the two?", "What colour is the ring on the left of the red square?", "Word"]


@pytest.fixture(scope="module")
def loaded() -> dict[str, tuple[Any, Any]]:
    return {name: (get_model(name).load_model(), get_model(name).load_processor()) for name in FAMILIES}


@pytest.fixture(autouse=True)
def _empty_cache() -> None:
    CACHE.clear()  # benchmarks of these tests share names


def every_benchmark() -> list[Benchmark]:
    found = [get_benchmark(name) for name in benchmark_names()] + [get_skill(name).benchmark for name in skill_names()]
    return [benchmark for benchmark in found if not isinstance(benchmark, HubBenchmark)]


def asking(*examples: Example, name: str = "asked", **more: Any) -> Benchmark:
    return Benchmark(name, 1, "exact_match", load=lambda: list(examples), **more)


def picture(seed: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(pixels.to(torch.uint8).numpy())


def mixed(count: int = 9) -> Benchmark:
    """Questions of different lengths, with pictures of different shapes."""
    sizes = [(32, 32), (64, 32), (32, 64)]
    return asking(
        *(ask(f"q{i}", QUESTIONS[i % 4], "red", picture(i, sizes[i % 3]), metadata={"i": i}) for i in range(count)),
        name="mixed",
    )


def test_every_benchmark_is_answered_the_same_in_a_batch_and_one_by_one(loaded: dict) -> None:
    model, processor = loaded["tiny-onevision"]
    benchmarks = every_benchmark()
    assert len(benchmarks) >= 13
    together = score_benchmarks(model, processor, benchmarks, limit=6, batch_size=4)
    alone = score_benchmarks(model, processor, benchmarks, limit=6, batch_size=1)
    assert together == alone
    assert list(together) == [benchmark.name for benchmark in benchmarks]
    for benchmark in benchmarks:
        assert [sample.id for sample in together[benchmark.name]] == [row.id for row in benchmark.load()[:6]]


@pytest.mark.parametrize("name", FAMILIES)
def test_padding_leaves_the_probabilities_of_every_position_alone(loaded: dict, name: str) -> None:
    """Words could agree by luck (an untrained model repeats itself); logits cannot."""
    model, processor = loaded[name]
    rows = [row for window in windows(processor, mixed(), None, 100) for row in window]
    assert len({len(encoded["input_ids"]) for _, encoded in rows}) >= 4
    with answering(model, processor):
        batch = pad(processor, [encoded for _, encoded in rows])
        together = greedy(model, batch, 3, output_logits=True)
        for index, (_, encoded) in enumerate(rows):
            one = pad(processor, [encoded])
            alone = greedy(model, one, 3, output_logits=True)
            length = new_tokens(alone, one).shape[1]
            assert torch.equal(new_tokens(together, batch)[index, :length], new_tokens(alone, one)[0])
            for padded, single in zip(together.logits[:length], alone.logits, strict=True):
                torch.testing.assert_close(padded[index], single[0], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("batch_size", [1, 2, 4, 64])
def test_answers_come_in_the_order_of_the_questions_whatever_their_lengths(
    loaded: dict, name: str, batch_size: int
) -> None:
    model, processor = loaded[name]
    samples = answer(model, processor, mixed(), limit=None, batch_size=batch_size)
    assert [(sample.id, sample.metadata["i"]) for sample in samples] == [(f"q{i}", i) for i in range(9)]
    for example, sample in zip(mixed().load(), samples, strict=True):
        assert answer(model, processor, asking(example, name=example.id), limit=None, batch_size=1) == [sample]


def test_a_cpu_reads_no_more_tokens_at_once_than_it_is_faster_for(
    loaded: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = loaded["tiny-next"]
    expected = answer(model, processor, mixed(), limit=None, batch_size=100)
    longest = max(len(encoded["input_ids"]) for rows in windows(processor, mixed(), None, 9) for _, encoded in rows)
    shapes: list[tuple[int, int]] = []

    def watched(model: Any, batch: dict[str, torch.Tensor], *more: Any) -> Any:
        shapes.append(tuple(batch["input_ids"].shape))
        return greedy(model, batch, *more)

    monkeypatch.setattr(generate, "greedy", watched)
    for most, batches in ((2 * longest, 2), (1, 9)):
        shapes.clear()
        monkeypatch.setattr(generate, "CPU_TOKENS", most)
        assert answer(model, processor, mixed(), limit=None, batch_size=100) == expected
        assert all(rows == 1 or rows * tokens <= most for rows, tokens in shapes)
        assert sum(rows for rows, _ in shapes) == 9 and len(shapes) >= batches


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_in_half_precision_is_given_pictures_of_its_own_type(name: str) -> None:
    lmm = get_model(name)
    samples = answer(lmm.load_model(precision="bf16"), lmm.load_processor(), mixed(), limit=None, batch_size=4)
    assert [sample.id for sample in samples] == [f"q{i}" for i in range(9)]


def test_the_limit_asks_a_fixed_sample_in_its_order(loaded: dict) -> None:
    model, processor = loaded["tiny-qwen"]
    assert len(answer(model, processor, mixed(), limit=100, batch_size=4)) == 9
    some = answer(model, processor, mixed(), limit=2, batch_size=4)
    assert [sample.id for sample in some] == ["q2", "q8"]


def test_a_sample_tells_question_references_and_metadata_and_is_scored_by_the_metric(loaded: dict) -> None:
    model, processor = loaded["tiny-next"]
    said = answer(model, processor, mixed(1), limit=None, batch_size=1)[0].prediction
    assert said
    example = ask("q", "What is it?", "red", picture(0), answers=("red", said), metadata={"source": "drawn"})
    sample = answer(model, processor, asking(example, name="right"), limit=None, batch_size=1)[0]
    assert (sample.question, sample.references, sample.score) == ("What is it?", ("red", said), 1.0)
    assert sample.metadata == {"source": "drawn"}


def test_generation_ends_at_the_end_of_turn_and_at_the_benchmarks_number_of_tokens(loaded: dict) -> None:
    model, processor = loaded["tiny-next"]
    batch = pad(processor, [encoded for window in windows(processor, mixed(1), None, 1) for _, encoded in window])
    with answering(model, processor):
        long, short = (new_tokens(greedy(model, batch, count), batch) for count in (6, 2))
    assert long.shape == (1, 6) and torch.equal(short, long[:, :2])
    shipped = model.generation_config
    model.generation_config = GenerationConfig(eos_token_id=long[0, 0].item())
    try:
        with answering(model, processor):
            assert new_tokens(greedy(model, batch, 6), batch).shape == (1, 1)
    finally:
        model.generation_config = shipped


def test_what_a_checkpoint_was_shipped_with_changes_no_answer_and_is_put_back(loaded: dict) -> None:
    model, processor = loaded["tiny-next"]
    expected = answer(model, processor, mixed(), limit=None, batch_size=4)
    plain = model.generation_config
    shipped = GenerationConfig(
        do_sample=True, temperature=9.0, repetition_penalty=9.0, num_beams=2, min_new_tokens=7, no_repeat_ngram_size=1
    )
    model.generation_config = shipped
    model.train()
    try:
        assert answer(model, processor, mixed(), limit=None, batch_size=4) == expected
        assert model.generation_config is shipped and model.training
    finally:
        model.generation_config = plain
        model.eval()


def test_questions_without_a_picture_and_with_earlier_turns_can_be_asked(loaded: dict) -> None:
    model, processor = loaded["tiny-next"]
    dialogue = (
        Message("user", "<image>\nWhat is it?"),
        Message("assistant", "red"),
        Message("user", "And what colour?"),
        Message("assistant", "red"),
    )
    benchmark = asking(
        Example("turns", dialogue, (picture(0),)),
        ask("blind", "What colour is it?", "red"),
        mixed(1).load()[0],
        name="any",
    )
    samples = answer(model, processor, benchmark, limit=None, batch_size=3)
    assert samples == answer(model, processor, benchmark, limit=None, batch_size=1)
    assert samples[0].question == "What is it?\nred\nAnd what colour?"


def broken_png(folder: Path) -> Path:
    path = folder / "broken.png"
    picture(0).save(path)
    path.write_bytes(path.read_bytes()[:200])
    return path


@pytest.mark.parametrize("fault", ["missing", "broken", "not an image", "no placeholder", "too many"])
def test_a_question_that_cannot_be_read_is_named_with_its_benchmark(loaded: dict, tmp_path: Path, fault: str) -> None:
    model, processor = loaded["tiny-onevision"]
    text = tmp_path / "words.png"
    text.write_text("no image")
    good = ask("row-1", "What is it?", "red", picture(0))
    bad = {
        "missing": ask("row-2", "What?", "red", tmp_path / "absent.png"),
        "broken": ask("row-2", "What?", "red", broken_png(tmp_path)),
        "not an image": ask("row-2", "What?", "red", text),
        "no placeholder": dataclasses.replace(ask("row-2", "What?", "red"), images=(picture(0),)),
        "too many": ask("row-2", "<image> What?", "red", picture(0)),
    }[fault]
    with pytest.raises(UserError, match=r"^benchmark faulty: example row-2: "):
        answer(model, processor, asking(good, bad, name="faulty"), limit=None, batch_size=2)


def test_a_reference_that_the_metric_cannot_read_is_named_with_its_benchmark(loaded: dict) -> None:
    model, processor = loaded["tiny-onevision"]
    benchmark = dataclasses.replace(asking(ask("row-2", "When?", "noon", picture(0)), name="times"), metric="clock")
    with pytest.raises(UserError, match=r"^benchmark times: example row-2: .*'noon'"):
        answer(model, processor, benchmark, limit=None, batch_size=2)


def test_what_cannot_be_asked_is_refused(loaded: dict) -> None:
    model, processor = loaded["tiny-onevision"]
    with pytest.raises(UserError, match="benchmark empty: has no questions"):
        answer(model, processor, asking(name="empty"), limit=None, batch_size=2)
    with pytest.raises(ValueError, match="different names: mixed, mixed"):
        score_benchmarks(model, processor, [mixed(), mixed()], limit=1, batch_size=1)
    for limit, batch_size in ((0, 1), (None, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            answer(model, processor, mixed(), limit=limit, batch_size=batch_size)
