"""What a perfect answer would score, found before anything runs: cut references, and those that a tokenizer spells otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from models import small_families
from models.word_pieces import word_pieces

from lmmcl.errors import UserError
from lmmcl.evaluation.attainable import attainable
from lmmcl.models import get_model
from lmmcl.models.processing.answers import answer_text, without_thought
from lmmcl.models.processing.encode import answer_ids
from lmmcl.tasks import benchmark_names, get_benchmark, get_skill, skill_names
from lmmcl.tasks.examples import Example, Message, ask
from lmmcl.tasks.skills import Benchmark


@pytest.fixture(scope="module")
def tiny() -> Any:
    return get_model("tiny-qwen").load_processor()


@pytest.fixture
def qwen(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Qwen3-VL's template with a tokenizer that cuts words as Qwen's, and a grounding mark."""
    made = word_pieces("byte_level")
    monkeypatch.setattr(small_families, "tokenizer", lambda *marks, **more: made("<|box_start|>", *marks, **more))
    return small_families.FAMILIES["qwen3_vl"]()[1]


def asking(*answers: str, metric: str = "exact_match", tokens: int = 8) -> Benchmark:
    rows = [ask(f"q{number}", "What?", answer) for number, answer in enumerate(answers)]
    return Benchmark("asked", 1, metric, load=lambda: rows, max_new_tokens=tokens)


def test_all_that_ships_can_be_answered_right_by_the_tiny_models() -> None:
    found = [get_benchmark(name) for name in benchmark_names()] + [get_skill(name).benchmark for name in skill_names()]
    drawn = [benchmark for benchmark in found if not benchmark.missing() and type(benchmark) is Benchmark]
    assert len(drawn) >= 10
    for name in ("tiny-onevision", "tiny-qwen"):
        processor = get_model(name).load_processor()
        assert [each.name for each in drawn if attainable(name, processor, each, 40).short] == []


def test_a_reference_that_is_longer_than_an_answer_may_be_is_counted_and_shown(tiny: Any) -> None:
    result = attainable("m", tiny, asking("red", "b l u e", "green", tokens=3), None)
    assert result.lost == 1
    (note,) = result.notes()
    assert note == (
        "asked: a perfect answer of m scores less than 1 for 1 of 3 questions: the reference is longer than "
        "max_new_tokens (3), such as 'q1' ('b l u e' becomes 'b l u')"
    )
    result.check()


def test_a_reference_that_the_tokenizer_gives_back_otherwise_is_counted(tiny: Any) -> None:
    result = attainable("m", tiny, asking("red", "naïve café", "赤", tokens=16), None)
    assert result.lost == 2
    assert all("its tokenizer decodes the reference to another text" in note for note in result.notes())


def test_most_questions_that_no_answer_can_get_right_are_refused(tiny: Any) -> None:
    result = attainable("m", tiny, asking("b l u e", "r e d s", "red", tokens=3), None)
    with pytest.raises(
        UserError, match=r"benchmark asked: most questions cannot be answered correctly:\n- .*2 of 3"
    ) as told:
        result.check()
    assert "Raise max_new_tokens" in str(told.value)


def test_any_of_several_references_is_enough(tiny: Any) -> None:
    example = Example("a", (Message("user", "?"), Message("assistant", "赤")), answers=("赤", "red"))
    benchmark = Benchmark("asked", 1, "exact_match", load=lambda: [example])
    assert attainable("m", tiny, benchmark, None).short == {}


def test_a_metric_that_no_reference_satisfies_is_told(tiny: Any) -> None:
    answers = tuple(f"{number}" for number in range(10))
    example = Example("a", (Message("user", "?"), Message("assistant", "0")), answers=answers)
    benchmark = Benchmark("asked", 1, "vqa_soft", load=lambda: [example])
    assert list(attainable("m", tiny, benchmark, None).short) == ["vqa_soft scores the reference itself below 1"]


def test_captions_are_held_against_what_the_references_themselves_score(tiny: Any) -> None:
    whole = asking("a red ring", "a blue star", metric="cider")
    assert attainable("m", tiny, whole, None).short == {}
    cut = asking("a red ring", "a blue star on a white wall", metric="cider", tokens=3)
    assert attainable("m", tiny, cut, None).lost == 1


@pytest.mark.parametrize("answer", ["<|box_start|>1,2", "the bird <|box_start|>3", "<|box_start|> 4"])
def test_grounding_marks_are_words_of_an_answer(qwen: Any, answer: str) -> None:
    assert answer_text(qwen, answer_ids(qwen, [Message("user", "?")], answer)) == answer


def test_a_tokenizer_without_spaces_says_marks_beside_their_words(tiny: Any) -> None:
    answer = "<|vision_start|>red<|vision_end|>"
    assert answer_text(tiny, answer_ids(tiny, [Message("user", "?")], answer)) == answer
    assert attainable("m", tiny, asking(answer), None).short == {}


def test_what_ends_or_pads_an_answer_is_no_word_of_it(qwen: Any, tiny: Any) -> None:
    for processor in (qwen, tiny):
        ids = answer_ids(processor, [Message("user", "?")], "red")
        assert answer_text(processor, [*ids, processor.tokenizer.pad_token_id]) == "red"


@pytest.mark.parametrize(
    ("text", "is_open", "answer"),
    [
        ("red", False, "red"),
        ("<think>so it is</think>\n\nred", False, "red"),
        ("so it is</think>red", True, "red"),
        ("so it is", True, ""),
        ("<think>so it is", False, ""),
        ("a < b </think> c", False, "a < b </think> c"),
    ],
)
def test_a_thought_is_no_part_of_an_answer(text: str, is_open: bool, answer: str) -> None:
    assert without_thought(text, is_open=is_open).strip() == answer


def test_questions_that_are_known_are_not_made_again(tiny: Any) -> None:
    benchmark = Benchmark("asked", 1, "exact_match", load=lambda: pytest.fail("loaded"), max_new_tokens=3)
    known = [ask("q0", "What?", "red"), ask("q1", "What?", "b l u e")]
    assert attainable("m", tiny, benchmark, None, known).lost == 1
