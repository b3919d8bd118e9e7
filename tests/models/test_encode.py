"""What a model reads and is taught: the same text in training and generation, for each family."""

import pytest
import torch

from lmmcl.errors import UserError
from lmmcl.models.processing import control_tokens
from lmmcl.models.processing.control_tokens import forget
from lmmcl.models.processing.encode import dialogue_of, encode
from lmmcl.models.processing.padding import IGNORED, pad
from lmmcl.models.processing.rendering import Renderer
from lmmcl.tasks.examples import IMAGE_PLACEHOLDER, Example, Message, ask


def mixed(picture):
    """Examples of different lengths, with and without a picture, one of them not square."""
    return [
        ask("a", "What colour is the circle?", "red", picture()),
        ask("b", "How many rings are in this image, all in all?", "12", picture(100, 40)),
        ask("c", "Hello", "hello you there"),
        ask("d", "Which letter?", "B", picture(20, 64)),
    ]


def test_only_the_answer_and_the_end_of_its_turn_are_taught(tiny, picture):
    _, _, processor = tiny
    encoded = encode(processor, ask("a", "What time does the clock show?", "12:45", picture()), with_answer=True)
    taught = encoded["labels"] != IGNORED
    assert processor.decode(encoded["labels"][taught]) == "12:45 <end>"
    assert torch.equal(encoded["labels"][taught], encoded["input_ids"][taught])
    assert encoded["labels"].shape == encoded["input_ids"].shape == encoded["attention_mask"].shape


def test_training_reads_before_the_answer_what_generation_reads(tiny, picture):
    _, _, processor = tiny
    for example in mixed(picture):
        asked, taught = (encode(processor, example, with_answer=flag) for flag in (False, True))
        length = len(asked["input_ids"])
        assert torch.equal(taught["input_ids"][:length], asked["input_ids"])
        assert (taught["labels"][:length] == IGNORED).all()
        assert (taught["labels"][length:] != IGNORED).all()
        assert "labels" not in asked


def test_the_prompt_is_what_the_processor_itself_makes(tiny, picture):
    _, _, processor = tiny
    image = picture(50, 32)
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
    text = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    official = processor(text=[text], images=[[image]], return_tensors="pt")
    ours = pad(processor, [encode(processor, ask("a", "What is this?", "ring", image), with_answer=False)])
    assert set(official) == set(ours)
    for key, value in official.items():
        assert torch.equal(ours[key], value), key


def test_every_assistant_turn_of_a_dialogue_is_taught(tiny, picture):
    _, _, processor = tiny
    messages = (
        Message("system", "Answer with one word."),
        Message("user", f"{IMAGE_PLACEHOLDER}\nWhat colour?"),
        Message("assistant", "red"),
        Message("user", f"{IMAGE_PLACEHOLDER}{IMAGE_PLACEHOLDER} And these?"),
        Message("assistant", "blue"),
    )
    example = Example("d", messages, (picture(), picture(), picture()))
    encoded = encode(processor, example, with_answer=True)
    taught = encoded["labels"][encoded["labels"] != IGNORED]
    assert processor.decode(taught) == "red <end> blue <end>"
    asked = encode(processor, example, with_answer=False)
    assert torch.equal(encoded["input_ids"][: len(asked["input_ids"])], asked["input_ids"])


def test_a_padded_batch_gives_the_scores_of_single_examples(tiny, picture):
    _, model, processor = tiny
    encoded = [encode(processor, each, with_answer=True) for each in mixed(picture)]
    with torch.inference_mode():
        together = model(**pad(processor, encoded)).logits
        for row, one in zip(together, encoded, strict=True):
            alone = model(**pad(processor, [one])).logits[0]
            torch.testing.assert_close(row[-len(alone) :], alone, atol=2e-4, rtol=1e-4)


def test_a_batch_generates_what_single_examples_generate(tiny, picture):
    _, model, processor = tiny
    encoded = [encode(processor, each, with_answer=False) for each in mixed(picture)]
    with torch.inference_mode():
        batch = pad(processor, encoded)
        together = model.generate(**batch, max_new_tokens=4, min_new_tokens=4)[:, batch["input_ids"].shape[1] :]
        for row, one in zip(together, encoded, strict=True):
            alone = model.generate(**pad(processor, [one]), max_new_tokens=4, min_new_tokens=4)
            assert torch.equal(row, alone[0, len(one["input_ids"]) :])


def test_padding_is_on_the_left_and_is_neither_seen_nor_taught(onevision, picture):
    _, _, processor = onevision
    encoded = [encode(processor, each, with_answer=True) for each in mixed(picture)]
    batch = pad(processor, encoded)
    for row, one in enumerate(encoded):
        empty = batch["input_ids"].shape[1] - len(one["input_ids"])
        assert (batch["input_ids"][row, :empty] == processor.tokenizer.pad_token_id).all()
        assert not batch["attention_mask"][row, :empty].any()
        assert (batch["labels"][row, :empty] == IGNORED).all()
        assert torch.equal(batch["input_ids"][row, empty:], one["input_ids"])


def test_an_answer_that_spells_the_image_token_takes_no_image(tiny, picture):
    _, _, processor = tiny
    mark = processor.image_token
    encoded = encode(processor, ask("a", "What?", f"{mark} red", picture()), with_answer=True)
    plain = encode(processor, ask("a", "What?", "red", picture()), with_answer=True)
    shown = [int((each["input_ids"] == processor.image_token_id).sum()) for each in (encoded, plain)]
    assert shown[0] == shown[1] > 0
    taught = encoded["labels"][encoded["labels"] != IGNORED]
    assert processor.decode(taught, skip_special_tokens=True) == f"{mark} red"


def test_placeholders_and_images_must_be_equally_many(onevision, picture):
    _, _, processor = onevision
    example = Example("odd", (Message("user", "no mark"), Message("assistant", "x")), (picture(),))
    with pytest.raises(UserError, match="'odd' has 0 <image> for 1 images"):
        encode(processor, example, with_answer=True)


def test_nothing_cannot_be_padded(onevision):
    with pytest.raises(ValueError, match="nothing to pad"):
        pad(onevision[2], [])


def test_an_image_processor_is_looked_over_once_whatever_the_number_of_examples(tiny, picture, monkeypatch):
    calls = []
    monkeypatch.setattr("lmmcl.models.processing.encode.pin_resizing", calls.append)
    processor = tiny[0].load_processor()
    for number in range(3):
        encode(processor, ask(str(number), "What is this?", "ring", picture()), with_answer=True)
    assert calls == [processor.image_processor]


def test_examples_of_one_text_are_rendered_and_read_once_each_with_its_own_picture(tiny, picture, monkeypatch):
    _, _, processor = tiny
    forget(processor)
    examples = [ask(str(number), "What colour is the circle?", "red", picture()) for number in range(3)]
    plain = []
    for example in examples:
        plain.append(encode(processor, example, with_answer=True))
        forget(processor)
    rendered = []
    monkeypatch.setattr(Renderer, "dialogue", counted(Renderer.dialogue, rendered))
    encoded = [encode(processor, example, with_answer=True) for example in examples]
    assert len(rendered) == 1
    assert not torch.equal(encoded[0]["pixel_values"], encoded[1]["pixel_values"])
    for ours, alone in zip(encoded, plain, strict=True):
        assert ours.keys() == alone.keys()
        assert all(torch.equal(ours[name], alone[name]) for name in ours)


def test_what_changes_a_dialogues_text_makes_it_another_one(onevision, picture, monkeypatch):
    _, _, processor = onevision
    example = ask("a", "What colour is the circle?", "red", picture())
    texts = {dialogue_of(processor, example, with_answer=flag).text for flag in (False, True)}
    monkeypatch.setattr(processor, "thinking", True, raising=False)
    rendered = []
    monkeypatch.setattr(Renderer, "dialogue", counted(Renderer.dialogue, rendered))
    dialogue_of(processor, example, with_answer=True)
    assert len(texts) == 2
    assert len(rendered) == 1, "thinking was turned on"


def test_long_texts_and_more_than_a_thousand_are_not_remembered(onevision, monkeypatch):
    _, _, processor = onevision
    forget(processor)
    monkeypatch.setattr(control_tokens, "RECENT", 3)
    for number in range(5):
        encode(processor, ask("a", f"What is {number}?", "red"), with_answer=True)
    known = control_tokens._KNOWN[processor]
    assert len(known["dialogues"]) == len(known["tokens"]) == 3
    encode(processor, ask("a", "red " * 600, "blue"), with_answer=True)
    assert len(known["dialogues"]) == 3
    assert max(len(text) for text in known["tokens"]) < 100
    forget(processor)


def counted(function, calls):
    """The function, which notes its calls."""

    def call(*arguments, **more):
        calls.append(arguments)
        return function(*arguments, **more)

    return call
