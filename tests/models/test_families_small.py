"""Every family in small, from a local directory: it trains, answers in batches as one by one, is exported and loads again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models.small_families import FAMILIES, save
from PIL import Image

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.settings import Training
from lmmcl.evaluation.generate import answer
from lmmcl.ledger import Ledger
from lmmcl.methods.recipes.recipe import get_recipe
from lmmcl.models import get_model
from lmmcl.models.processing.encode import encode, end_of_turn
from lmmcl.models.processing.padding import IGNORED, pad
from lmmcl.steps import Finetune, Pretrained
from lmmcl.tasks.examples import IMAGE_PLACEHOLDER, Example, Message, ask
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.training.finetune import finetune
from lmmcl.weights.checkpoint import ensure_pretrained, export, load_checkpoint, named_tensors
from lmmcl.weights.delta import DELTA

FAST = ("llava_onevision", "qwen3_vl", "instructblip")
TRAINED = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in FAMILIES]
EACH = list(FAMILIES)
ENDS = {
    "smolvlm": "<end_of_utterance>",
    "gemma3": "<end_of_turn>",
    "qwen2_5_vl": "<|im_end|>",
    "qwen3_vl": "<|im_end|>",
}
ENDS |= {"llava_onevision": "<|im_end|>", "internvl": "<|im_end|>"}


def picture(seed: int, wide: int = 32, high: int = 32) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (high, wide, 3), dtype=np.uint8))


def questions() -> list:
    return [
        ask("a", "What colour is the circle?", "red", picture(0)),
        ask("b", "How many rings are in this image, all in all?", "12", picture(1, 100, 40)),
        ask("c", "Which letter?", "B", picture(2, 20, 64)),
        ask("d", "What time does the clock show?", "12:45", picture(3, 64, 64)),
    ]


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The directory of a family, made when first asked for."""
    made: dict[str, Path] = {}

    def directory(family: str) -> Path:
        if family not in made:
            made[family] = save(tmp_path_factory.mktemp(family), *FAMILIES[family]())
        return made[family]

    return directory


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("family", TRAINED)
def test_a_family_trains_answers_is_exported_and_loads_again(family, directories, tmp_path, cache):
    ledger = Ledger(str(tmp_path / "store"))
    model = get_model(str(directories(family)))
    assert model.family == family
    base = Pretrained(model)
    ensure_pretrained(base, ledger)
    benchmark = Benchmark("asked", 1, "exact_match", load=questions, max_new_tokens=4)
    skill = Skill("taught", 1, load=questions, benchmark=benchmark)
    parent: Any = base
    for recipe in ("sa_proj", "gate_up"):
        settings = Training(learning_rate=1e-2, global_batch_size=4, max_steps=2, precision="fp32")
        step = Finetune(parent, get_recipe(recipe), None, skill, settings, seed=0)
        record = finetune(step, ledger, TrainingPlacement())
        chosen = [n for role, n in model.role_counts().items() if trains(recipe, role)]
        assert record["trained_parameters"] == sum(chosen)
        assert record["updates"] == 2
        assert record["total_parameters"] == sum(model.role_counts().values())
        parent = step
    tuned, processor = load_checkpoint(parent, ledger, precision="fp32"), model.load_processor()
    together = answer(tuned, processor, benchmark, limit=None, batch_size=4)
    alone = answer(tuned, processor, benchmark, limit=None, batch_size=1)
    assert [sample.prediction for sample in together] == [sample.prediction for sample in alone]

    exported = export(ledger.checkpoint(parent.key), ledger, tmp_path / "exported")
    again = get_model(str(exported))
    assert again.family == family
    weights, reloaded = named_tensors(tuned), named_tensors(again.load_model())
    assert weights.keys() == reloaded.keys()
    assert all(torch.equal(weights[name], reloaded[name]) for name in weights)
    one, other = (encode(each, questions()[1], with_answer=True) for each in (processor, again.load_processor()))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    with ledger.opened(parent.path, DELTA) as delta:
        assert delta.is_file()


def trains(recipe: str, role: str) -> bool:
    parts = {"sa_proj": (".attention.",), "gate_up": (".mlp.gate", ".mlp.up")}[recipe]
    return role.startswith("llm.blocks.") and any(part in role for part in parts)


@pytest.mark.parametrize("family", EACH)
def test_a_batch_scores_as_single_examples_do(family, directories, cache):
    model = get_model(str(directories(family)))
    loaded, processor = model.load_model(), model.load_processor()
    encoded = [encode(processor, each, with_answer=True) for each in questions()]
    with torch.inference_mode():
        together = loaded(**pad(processor, encoded)).logits
        for row, one in zip(together, encoded, strict=True):
            single = loaded(**pad(processor, [one])).logits[0]
            torch.testing.assert_close(row[-len(single) :], single, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("family", EACH)
def test_a_model_reads_what_the_family_s_own_processor_makes(family, directories, cache):
    processor: Any = get_model(str(directories(family))).load_processor()
    example = questions()[1]
    for other in questions():  # what a processor is asked once must serve every example alike
        encode(processor, other, with_answer=True)
    ours = pad(processor, [encode(processor, example, with_answer=False)])
    turns = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": example.messages[0].content[8:]}]}
    ]
    text = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    if family == "instructblip":  # its own call wants the image token as an object
        from transformers import AddedToken

        processor.image_token = AddedToken("<image>", special=True)
    begun = text.startswith(processor.tokenizer.bos_token or "\0")
    official = processor(
        text=[text], images=[example.open_images()], return_tensors="pt", text_kwargs={"add_special_tokens": not begun}
    )
    official.pop("token_type_ids", None) if "token_type_ids" not in ours else None
    assert set(official) == set(ours)
    for key, value in official.items():
        assert torch.equal(ours[key], value), key


@pytest.mark.parametrize("family", EACH)
def test_the_answer_and_the_end_of_its_turn_are_taught(family, directories, cache):
    processor: Any = get_model(str(directories(family))).load_processor()
    encoded = encode(processor, questions()[0], with_answer=True)
    taught = processor.tokenizer.convert_ids_to_tokens(encoded["labels"][encoded["labels"] != IGNORED])
    end = ENDS.get(family, "</s>")
    assert taught == ["red", end]
    assert end_of_turn(processor) == processor.tokenizer.convert_tokens_to_ids(end)


def test_instructblip_is_asked_about_one_image_at_a_time(directories, cache):
    from lmmcl.errors import UserError

    processor = get_model(str(directories("instructblip"))).load_processor()
    with pytest.raises(UserError, match="one image per question, not 0"):
        encode(processor, ask("a", "What colour?", "red"), with_answer=True)


def mixed() -> list:
    """Rows without a picture, with one and with two in different turns."""
    messages = (
        Message("user", f"{IMAGE_PLACEHOLDER}\nWhat colour?"),
        Message("assistant", "red"),
        Message("user", f"{IMAGE_PLACEHOLDER}\nAnd this one, which is wide?"),
        Message("assistant", "blue"),
    )
    two = Example("two", messages, (picture(5), picture(6, 100, 40)))
    return [ask("none", "Hello, what is a ring?", "round"), two, questions()[1]]


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "instructblip"])
def test_rows_with_no_and_with_several_pictures_are_batched_like_any(family, directories, cache):
    model = get_model(str(directories(family)))
    loaded, processor = model.load_model(), model.load_processor()
    encoded = [encode(processor, each, with_answer=True) for each in mixed()]
    with torch.inference_mode():
        together = loaded(**pad(processor, encoded)).logits
        for row, one in zip(together, encoded, strict=True):
            single = loaded(**pad(processor, [one])).logits[0]
            torch.testing.assert_close(row[-len(single) :], single, atol=2e-4, rtol=1e-3)
