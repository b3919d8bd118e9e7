"""ImageNet-VQA and its neighbours: wrong options look like the image (by a stand-in for CLIP), and the words are the authors'.

Source: data/processors/{imagenet,imagenetv2,flower102,caltech101,stanfordcars}_to_vqa_json.py of the code of arXiv 2603.14493.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_fixtures import FIXTURES, FixtureHub, SharedLetters
from PIL import Image

from lmmcl.errors import UserError
from lmmcl.tasks import get_benchmark, get_skill
from lmmcl.tasks.examples import Example
from lmmcl.tasks.hub.prepare import Outcome, Part, converted, parts_of
from lmmcl.tasks.images import TOO_LARGE
from lmmcl.tasks.papers.easier.classes import choices_of, imagenet_names
from lmmcl.tasks.papers.easier.clip_encoder import Clip
from lmmcl.tasks.papers.easier.similar_classes import SimilarClasses

LETTERED = " Please answer with a single letter (A, B, C or D)."
WORDS = {
    "imagenet_vqa": "What is the class of this image?",
    "imagenet_v2": "What is the class of this image?",
    "flowers102": "What is the class of this image?",
    "caltech101": "What is the object category in this image?",
    "stanford_cars": "What is the make and model of the car in this image?",
}
TAUGHT = ("imagenet_vqa", "imagenet_vqa.by_name", "flowers102")


def examples_of(part: Part, hub: FixtureHub) -> list[Example]:
    return list(converted(part.source, hub, part, Outcome(part, hub.downloads / "unused")))


def lines(example: Example) -> list[str]:
    return example.messages[0].content.splitlines()


@pytest.mark.parametrize("name", WORDS)
def test_the_question_is_the_authors_and_ends_in_its_options(name: str, tmp_path: Path) -> None:
    for part in parts_of(name):
        for example in examples_of(part, FixtureHub(tmp_path)):
            image, question, *options = lines(example)
            assert (image, question) == ("<image>", WORDS[name] + LETTERED)
            assert [option[:3] for option in options] == ["A. ", "B. ", "C. ", "D. "]
            assert options["ABCD".index(example.target)][3:] == example.metadata["class_name"]


@pytest.mark.parametrize("name", WORDS)
def test_wrong_options_are_three_of_the_five_wrong_classes_most_like_the_image(name: str, tmp_path: Path) -> None:
    hub, by_eye = FixtureHub(tmp_path), SharedLetters()
    for part in parts_of(name):
        names = part.source.rows.keywords["names"](hub)
        for example in examples_of(part, hub):
            alike = by_eye.images(list(example.open_images())) @ by_eye.texts(names).T
            right = example.metadata["class_name"]
            nearest = [names[at] for at in np.argsort(-alike[0], kind="stable") if names[at] != right][:5]
            wrong = {option[3:] for option in lines(example)[2:]} - {right}
            assert len(wrong) == 3 and wrong <= set(nearest)


def test_another_image_of_a_class_has_other_wrong_options(tmp_path: Path) -> None:
    names = imagenet_names(FixtureHub(tmp_path))
    found = SimilarClasses(SharedLetters(), names, tmp_path).of(
        [(FIXTURES / f"images/{colour}.png").read_bytes() for colour in ("red", "blue")]
    )
    assert found[0] != found[1]


def test_the_draw_and_the_order_follow_from_the_question_alone() -> None:
    similar = ["b", "c", "d", "e", "f"]
    drawn = [choices_of({"class": "a", "id": f"x-{number}", "similar": similar}) for number in range(200)]
    assert drawn == [choices_of({"class": "a", "id": f"x-{number}", "similar": similar}) for number in range(200)]
    assert {tuple(sorted(set(each) - {"a"})) for each in drawn} == {
        (x, y, z) for x in similar for y in similar for z in similar if x < y < z
    }
    assert {each.index("a") for each in drawn} == {0, 1, 2, 3}


def test_an_image_is_encoded_once_in_all_preparations(tmp_path: Path) -> None:
    part = parts_of("imagenet_vqa")[0]
    first, again = FixtureHub(tmp_path), FixtureHub(tmp_path)
    assert examples_of(part, first) == examples_of(part, again)
    assert (first.shared_letters.seen, again.shared_letters.seen) == (4, 0)
    other = FixtureHub(tmp_path)
    other.shared_letters.identity = "another encoder"
    examples_of(part, other)
    assert other.shared_letters.seen == 4


def test_an_image_that_cannot_be_shown_is_left_out_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = parts_of("caltech101")[0]

    class Broken(FixtureHub):
        def rows(self, *names: str, **more: object):
            yield from ({**row, "webp": {"bytes": b"no image", "path": None}} for row in super().rows(*names, **more))

    with pytest.raises(UserError, match=r"caltech101-0.*no known format"):
        examples_of(part, Broken(tmp_path))
    monkeypatch.setattr("lmmcl.tasks.images.MAX_PIXELS", 100)
    outcome = Outcome(part, tmp_path / "unused")
    assert list(converted(part.source, FixtureHub(tmp_path), part, outcome)) == []
    assert outcome.left_out == {TOO_LARGE: 4}


def test_two_classes_of_one_name_are_never_both_options(tmp_path: Path) -> None:
    class TwoCranes(FixtureHub):
        def labels(self, *names: str, **more: object) -> list[str]:
            birds = ["crane", "cock", "hen", "tench"]
            return ["crane, machine", "crab", "stingray", "crane, bird", *birds[1:], "shark"]

    for example in examples_of(parts_of("imagenet_vqa")[1], TwoCranes(tmp_path)):
        assert len({option[3:] for option in lines(example)[2:]}) == 4


@pytest.mark.parametrize("name", ["mmmu", "vmcbench", "image_wiki_qa"])
def test_other_text_ends_in_no_sentence_that_was_taught(name: str, tmp_path: Path) -> None:
    taught = {
        line
        for each in TAUGHT
        for example in examples_of(parts_of(each)[0], FixtureHub(tmp_path))
        for line in lines(example)
    }
    asked = [lines(example)[-1] for example in examples_of(parts_of(name)[0], FixtureHub(tmp_path))]
    assert asked and not taught & set(asked)
    assert {"text": "ood"}.items() <= {"text": get_benchmark(name).likeness("text", "imagenet_vqa")}.items()


def test_what_an_imagewiki_question_is_about_is_known(tmp_path: Path) -> None:
    found = [
        example.metadata["class_name"] for example in examples_of(parts_of("image_wiki_qa")[0], FixtureHub(tmp_path))
    ]
    assert found == ["stretcher", "Giant Schnauzer", "horse-drawn vehicle"]


def test_the_form_before_has_names_and_keys_of_its_own() -> None:
    now, before = get_skill("imagenet_vqa"), get_skill("imagenet_vqa.by_name")
    assert (now.version, before.version) == (2, 1)
    assert now.identity() != before.identity()
    assert before.benchmark.name == "imagenet_vqa.by_name"
    assert before.benchmark.likeness("text", "imagenet_vqa.by_name") == "id"


def test_clips_vectors_are_those_of_its_own_forward(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast

    words = ["<pad>", "<end>", "a", "photo", "of", "tench", "shark", "hen"]
    tokens = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<pad>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="<pad>", eos_token="<end>")
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    ends = {"eos_token_id": 1, "pad_token_id": 0, "bos_token_id": 0}
    text = {**small, **ends, "vocab_size": len(words), "max_position_embeddings": 16}
    vision = {**small, "image_size": 4, "patch_size": 2}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=4)).eval()
    images = CLIPImageProcessorPil(size={"shortest_edge": 4}, crop_size=4)
    for part in (model, tokenizer, images):
        part.save_pretrained(tmp_path)
    colours = [Image.new("RGB", (9, 7), colour) for colour in ("red", "blue", "white")]
    prompts = ["a photo of tench", "a photo of shark"]
    clip = Clip(str(tmp_path))
    alike = clip.images(colours) @ clip.texts(prompts).T
    read = {**tokenizer(prompts, padding=True, return_tensors="pt"), **images(colours, return_tensors="pt")}
    with torch.inference_mode():
        logits = model(**read).logits_per_image / model.logit_scale.exp()
    np.testing.assert_allclose(alike, logits.numpy(), atol=1e-5)
    assert alike.shape == (3, 2)
    assert json.dumps(clip.identity)


def test_a_clip_that_is_not_there_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"CLIP cannot be loaded; fetch it with `hf download"):
        Clip(str(tmp_path / "none")).texts(["a photo of tench"])
