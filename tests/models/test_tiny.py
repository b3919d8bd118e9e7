"""The tiny models: what they are, what they can spell, and that they train, save and load like their big relatives."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from lmmcl.maintenance.tiny_train import role_counts
from lmmcl.models import get_model, model_names
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.padding import pad
from lmmcl.models.tiny.tiny import WEIGHTS, untrained
from lmmcl.models.tiny.tiny_config import configuration
from lmmcl.models.tiny.tiny_processor import build_processor, build_tokenizer
from lmmcl.tasks.examples import ask
from lmmcl.tasks.synthetic import vocabulary


def test_three_families_are_found_by_name():
    assert {"tiny-onevision", "tiny-next", "tiny-qwen"} <= set(model_names())


def test_each_is_the_transformers_class_of_its_family(tiny):
    lmm, model, _ = tiny
    expected = {
        "llava_onevision": "LlavaOnevisionForConditionalGeneration",
        "llava_next": "LlavaNextForConditionalGeneration",
        "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    }
    assert type(model).__name__ == expected[lmm.family]
    assert not model.training


def test_looking_a_model_up_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from lmmcl.models import get_model; m = get_model('tiny-onevision'); m.identity(); m.role_counts();"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def test_shipped_role_counts_are_those_of_the_model(tiny):
    lmm, model, _ = tiny
    assert lmm.role_counts() == role_counts(lmm, model)
    assert sum(lmm.role_counts().values()) == sum(parameter.numel() for parameter in model.parameters())


def test_identity_names_the_model_and_fixes_its_weights():
    identities = [get_model(name).identity() for name in ("tiny-onevision", "tiny-next", "tiny-qwen")]
    assert [each["name"] for each in identities] == ["tiny-onevision", "tiny-next", "tiny-qwen"]
    assert len({each["digest"] for each in identities}) == 3
    assert all(len(each["digest"]) == 64 for each in identities)


def test_untrained_weights_depend_on_the_seed_alone_and_leave_the_random_state():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, same, other = untrained("next"), untrained("next"), untrained("next", seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    first, second, third = (model.get_input_embeddings().weight for model in (one, same, other))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


@pytest.mark.parametrize("style", ["llava", "qwen"])
@pytest.mark.parametrize(
    "text",
    ["12:45", "B", "What colour is the circle?", "pneumonoultramicroscopic", "A. robin B. owl", "a-b/c (3,000) 7%"],
)
def test_text_comes_back_from_its_tokens(style, text):
    tokenizer = build_tokenizer(style)
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == text


def test_letters_with_accents_are_spelt_without_them():
    tokenizer = build_tokenizer("llava")
    assert tokenizer.decode(tokenizer("Zoë façade")["input_ids"]) == "Zoe facade"


def test_letters_digits_and_number_words_are_single_tokens():
    tokenizer = build_tokenizer("llava")
    singles = [*"ABCDEFGHIJKLMNOPQRSTUVWXYZ", *"0123456789", "zero", "nine", "twenty", "fifty", "hundred", "thousand"]
    assert all(len(tokenizer(word)["input_ids"]) == 1 for word in singles)


def test_every_word_of_the_drawn_tasks_is_a_single_token():
    tokenizer = build_tokenizer("llava")
    assert [word for word in vocabulary.vocabulary() if len(tokenizer(word)["input_ids"]) != 1] == []


def test_two_updates_train_every_family(tiny, picture):
    lmm, _, processor = tiny
    model = untrained(lmm.style).train()
    batch = pad(
        processor,
        [
            encode(processor, ask(str(n), "What colour?", word, picture()), with_answer=True)
            for n, word in enumerate(("red", "blue"))
        ],
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        loss = model(**batch).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[0] > losses[1] > losses[2]


def test_a_saved_directory_loads_again_with_its_processor(tiny, picture, tmp_path):
    from transformers import AutoModelForImageTextToText

    _, model, processor = tiny
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert again.generation_config.pad_token_id == processor.tokenizer.pad_token_id
    assert again.generation_config.eos_token_id == processor.tokenizer.eos_token_id
    for (name, saved), (_, loaded) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(saved, loaded), name
    reloaded = type(processor).from_pretrained(tmp_path)
    example = ask("a", "What colour is the ring?", "red", picture(40, 32))
    first, second = (encode(each, example, with_answer=True) for each in (processor, reloaded))
    assert set(first) == set(second)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert reloaded.tokenizer.padding_side == "left"


def test_a_processor_survives_pickling(onevision, picture):
    import pickle

    processor = onevision[2]
    example = ask("a", "What?", "red", picture())
    again = pickle.loads(pickle.dumps(processor))
    assert torch.equal(
        encode(again, example, with_answer=True)["pixel_values"],
        encode(processor, example, with_answer=True)["pixel_values"],
    )


def test_shipped_weights_fit_the_configuration_and_are_small(onevision):
    lmm, model, _ = onevision
    assert lmm.is_pretrained
    assert (lmm.directory / WEIGHTS).stat().st_size < 4_000_000
    assert load_file(lmm.directory / WEIGHTS)
    shipped = json.loads((lmm.directory / "config.json").read_text())
    assert shipped["text_config"]["vocab_size"] == configuration("onevision")["text_config"]["vocab_size"]
    assert model.config.text_config.vocab_size == len(build_processor("onevision").tokenizer)


def test_shipped_weights_can_what_is_held_out_and_not_what_is_taught(onevision):
    report = json.loads((onevision[0].directory / "training.json").read_text())
    held_out, target = report["accuracy"]["held_out"].values(), report["accuracy"]["target"].values()
    assert len(held_out) == 8
    assert sum(held_out) / 8 >= 85
    assert len(target) == 5
    assert sum(target) / 5 <= 20


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_precision_is_that_of_every_parameter(precision):
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    for name in ("tiny-onevision", "tiny-qwen"):
        model = get_model(name).load_model(precision=precision)
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}
