"""Which tokens count as numbers, letters, yes and no, or times, whatever the tokenizer's marks."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lmmcl.evaluation.probes.token_sets import reference_tokens, token_set
from lmmcl.models import get_model
from lmmcl.tasks.examples import ask

NUMBERS = [
    "7",
    "42",
    "3rd",
    "21st",
    "0.5",
    ".5",
    "1,234",
    "1,234,567.8",
    "seven",
    "Seven",
    "SEVEN",
    "twenty",
    "ninety",
    "hundred",
    "thousand",
    "Million",
    "billions",
    "twenty-one",
]
NO_NUMBERS = [
    "seventh",
    "tens",
    "often",
    "x2",
    "2x",
    "1,23",
    "zeroth",
    "oneself",
    "red",
    "",
    "third",
    "٣",
    "v1",
    "-",
    ".",
]
MARKS = {"Ġ": decoders.ByteLevel, "▁": decoders.Metaspace}


def made_up(mark: str, words: list[str]) -> PreTrainedTokenizerFast:
    """A vocabulary as BPE tokenizers have it: each word bare and with the mark of a leading space."""
    inner = [word.encode().decode("latin-1") if mark == "Ġ" and not word.isascii() else word for word in words]
    tokens = ["<end>", *dict.fromkeys(form for word in inner for form in (word, mark + word))]
    tokenizer = Tokenizer(models.WordLevel({token: at for at, token in enumerate(tokens)}, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = MARKS[mark]()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<end>")


def words_in(tokenizer: PreTrainedTokenizerFast, kind: str) -> list[str]:
    return tokenizer.convert_ids_to_tokens(token_set(tokenizer, kind))  # type: ignore[arg-type]


@pytest.mark.parametrize("mark", MARKS)
def test_numbers_are_found_with_and_without_the_mark_of_a_leading_space(mark: str) -> None:
    tokenizer = made_up(mark, [*NUMBERS, *(word for word in NO_NUMBERS if word)])
    assert set(words_in(tokenizer, "number")) == {form for word in NUMBERS for form in (word, mark + word)}


@pytest.mark.parametrize("mark", MARKS)
def test_letters_answers_and_times_are_found_with_and_without_the_mark(mark: str) -> None:
    both = lambda *words: {form for word in words for form in (word, mark + word)}  # noqa: E731
    tokenizer = made_up(
        mark, ["A", "H", "a", "AB", "yes", "Yes", "NO", "not", "know", ":", "7:30", "o'clock", "PM", "hours", "am", "7"]
    )
    assert set(words_in(tokenizer, "letter")) == both("A", "H")
    assert set(words_in(tokenizer, "yes_no")) == both("yes", "Yes", "NO")
    assert set(words_in(tokenizer, "time")) == both(":", "7:30", "o'clock", "PM", "hours")


@pytest.mark.parametrize("name", ["tiny-onevision", "tiny-qwen"])
def test_a_word_level_vocabulary_has_digits_inside_words_too_but_no_letters(name: str) -> None:
    tokenizer = get_model(name).load_processor().tokenizer
    numbers = words_in(tokenizer, "number")
    assert {*"0123456789", *(f"##{digit}" for digit in "0123456789")} <= set(numbers)
    assert set(words_in(tokenizer, "letter")) == set("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert {"yes", "no"} <= set(words_in(tokenizer, "yes_no"))
    assert ":" in words_in(tokenizer, "time")


def test_special_tokens_are_in_no_class() -> None:
    tokenizer = made_up("Ġ", ["7", "yes"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["8", "No"]})
    assert words_in(tokenizer, "number") == ["7", "Ġ7"]
    assert words_in(tokenizer, "yes_no") == ["yes", "Ġyes"]


def test_all_references_of_an_example_count() -> None:
    tokenizer = get_model("tiny-onevision").load_processor().tokenizer
    (tokens,) = reference_tokens(tokenizer, [ask("e", "what ?", "red", answers=("red", "no"))])
    assert tokens == set(tokenizer.convert_tokens_to_ids(["red", "no"]))
