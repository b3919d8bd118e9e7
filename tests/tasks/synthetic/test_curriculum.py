"""The drawn skills and held-out benchmarks: fixed, disjoint, answerable, and covered by the tiny vocabulary."""

from __future__ import annotations

import hashlib
import itertools
import json
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmmcl.tasks.examples import Example
from lmmcl.tasks.metrics.metric import get_metric
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.tasks.synthetic import (
    birds,
    clock,
    digits,
    draw,
    draw_scenes,
    draw_streams,
    drawn_counting,
    general,
    held_out,
    microscopy,
    vocabulary,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "curriculum.json"
SKILLS: dict[str, Skill] = {
    skill.name: skill
    for module in (birds, drawn_counting, microscopy, digits, clock, general)
    for skill in module.SKILLS
}
ASKED: dict[str, Benchmark] = {
    **{name: skill.benchmark for name, skill in SKILLS.items()},
    **{benchmark.name: benchmark for benchmark in held_out.BENCHMARKS},
}
EVERYTHING = [*SKILLS.values(), *ASKED.values()]
IDS = [f"{type(each).__name__.lower()}-{each.name}" for each in EVERYTHING]


def picture(example: Example) -> bytes:
    image = example.images[0]
    assert isinstance(image, Image.Image)
    return image.tobytes()


def summary(examples: list[Example]) -> dict[str, object]:
    """What must not change by accident: the first prompts and answers in words, the pictures of the first 40 by digest."""
    digest = hashlib.sha256(b"".join(picture(example) for example in examples)).hexdigest()
    first = [[each.id, each.prompt[0].content, each.target] for each in examples[:3]]
    return {"first": first, "pictures": digest}


def test_six_skills_and_eight_held_out_benchmarks_are_there() -> None:
    assert list(SKILLS) == ["birds", "counting", "microscopy", "digits", "clock", "general"]
    assert len(held_out.BENCHMARKS) == 8
    assert len(ASKED) == 14, "a skill's benchmark and a held-out one share a name"


def test_prompts_answers_and_pictures_are_those_of_the_golden_file() -> None:
    """Whoever changes them on purpose raises the versions of what changed and writes the file again."""
    found = {key: summary(list(each.load()[:40])) for key, each in zip(IDS, EVERYTHING, strict=True)}
    versions = {key: each.version for key, each in zip(IDS, EVERYTHING, strict=True)}
    assert {"versions": versions, "examples": found} == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("each", EVERYTHING, ids=IDS)
def test_every_example_is_one_question_about_one_small_picture_with_an_answer(each: Skill | Benchmark) -> None:
    for example in each.load()[:100]:
        assert [message.role for message in example.messages] == ["user", "assistant"]
        assert example.prompt[0].content.startswith("<image>\n")
        assert example.target
        (image,) = example.open_images()
        assert (image.size, image.mode) == ((draw.SIZE, draw.SIZE), "RGB")


@pytest.mark.parametrize("each", EVERYTHING, ids=IDS)
def test_ids_are_unique_and_the_order_does_not_depend_on_who_asks_first(each: Skill | Benchmark) -> None:
    examples = each.load()
    assert len({example.id for example in examples[:300]}) == min(300, len(examples))
    copied = pickle.loads(pickle.dumps(examples))
    assert [copied[5], copied[0]] == [examples[5], examples[0]]


@pytest.mark.parametrize("benchmark", ASKED.values(), ids=list(ASKED))
def test_the_reference_answer_gets_full_marks_and_fits_the_generation_limit(benchmark: Benchmark) -> None:
    metric = get_metric(benchmark.metric)
    for example in benchmark.load():
        assert metric.score(example.target, example) == 1.0
        assert len(vocabulary.tokens(example.target)) <= benchmark.max_new_tokens


@pytest.mark.parametrize("benchmark", ASKED.values(), ids=list(ASKED))
def test_no_constant_answer_scores_well(benchmark: Benchmark) -> None:
    answers = [example.target for example in benchmark.load()]
    most = max(answers.count(answer) for answer in set(answers)) / len(answers)
    assert most <= {"size": 0.6, "presence": 0.6}.get(benchmark.name, 0.4)


@pytest.mark.parametrize("skill", SKILLS.values(), ids=list(SKILLS))
def test_training_and_test_pictures_lie_on_different_sides(skill: Skill) -> None:
    taught, asked = skill.load()[:1500], skill.benchmark.load()
    assert {draw.side_of(example.images[0]) for example in taught} == {"train"}
    assert {draw.side_of(example.images[0]) for example in asked} == {"test"}
    assert not {picture(example) for example in taught} & {picture(example) for example in asked}


def test_pre_training_never_shows_a_picture_that_a_benchmark_asks_about() -> None:
    shown = [scene.image for scene in itertools.islice(draw_streams.pretraining(0), 1000)]
    assert {draw.side_of(image) for image in shown} == {"train"}
    for benchmark in ASKED.values():
        assert {draw.side_of(example.images[0]) for example in benchmark.load()} == {"test"}


def test_handwriting_for_testing_is_never_trained_on() -> None:
    taught = {index for example in SKILLS["digits"].load()[:1500] for index in example.metadata["handwriting"]}
    asked = {index for example in ASKED["digits"].load() for index in example.metadata["handwriting"]}
    assert max(taught) < digits.TRAIN <= min(asked)


def test_all_words_of_prompts_answers_tags_and_captions_are_in_the_vocabulary() -> None:
    said: set[str] = set()
    for each in EVERYTHING:
        for example in each.load()[:1500]:
            said.update(
                vocabulary.tokens(example.prompt[0].content.removeprefix("<image>")), vocabulary.tokens(example.target)
            )
    for scene in itertools.islice(draw_streams.pretraining(1), 2000):
        said.update(vocabulary.tokens(scene.caption))
        said.update(word for _, tagged in scene.tags for word in tagged)
        said.update(
            token for _, question, answer in scene.questions() for token in vocabulary.tokens(f"{question} {answer}")
        )
    assert said == set(vocabulary.vocabulary())


def test_each_kind_of_bird_looks_different_and_those_of_one_body_differ_in_two_parts() -> None:
    for one, other in itertools.combinations(birds.KINDS.values(), 2):
        differing = sum(a != b for a, b in zip(one, other, strict=True))
        assert differing >= (2 if one[0] == other[0] else 1)


def test_the_letter_of_an_option_names_the_kind_that_was_drawn() -> None:
    for example in SKILLS["birds"].load()[:200]:
        lines = example.prompt[0].content.split("\n")[2:]
        assert len(lines) == len({line.split(". ")[1] for line in lines}) == len(birds.NAMES)
        assert f"{example.target}. {example.metadata['kind']}" in lines


def test_a_crowd_holds_as_many_things_as_its_answer_says() -> None:
    for count in range(1, 10):
        scene = drawn_counting.crowd(np.random.default_rng(count), "ring", count, "square", 2)
        assert sum("ring" in said for _, said in scene.tags) == count
        assert len({box for box, _ in scene.tags}) == count + 2


@pytest.mark.parametrize("module", [birds, drawn_counting, microscopy, digits, clock])
def test_pictures_in_a_skills_style_ask_nothing(module: object) -> None:
    scene = module.picture(np.random.default_rng(0))  # type: ignore[attr-defined]
    assert scene.tags
    assert scene.questions() == ()


def test_tags_say_which_patches_show_a_thing() -> None:
    scene = draw.Scene(Image.new("RGB", (32, 32)), tags=(((8, 0, 24, 8), ("red",)), ((25, 25, 29, 29), ("dark",))))
    patches = scene.patch_words()
    assert [at for at, said in enumerate(patches) if said == ("red",)] == [1, 2]
    assert [at for at, said in enumerate(patches) if said == ("dark",)] == [15]


def test_the_highest_bar_of_a_chart_is_the_one_that_is_asked_for() -> None:
    for seed in range(50):
        scene = draw_scenes.chart(np.random.default_rng(seed))
        heights = {said[0]: box[3] - box[1] for box, said in scene.tags}
        ((_, _, answer),) = scene.questions()
        others = [height for colour, height in heights.items() if colour != answer]
        assert heights[answer] >= max(others) + 3


def test_a_no_to_presence_is_true_of_the_picture() -> None:
    for seed in range(100):
        scene = draw_scenes.scene(np.random.default_rng(seed))
        things = {f"{said[1]} {said[3]}" for _, said in scene.tags}
        for benchmark, question, answer in scene.questions():
            if benchmark == "presence":
                assert (question.removesuffix("?").split(maxsplit=3)[3] in things) == (answer == "yes")


def test_loading_costs_nothing_and_drawing_little() -> None:
    SKILLS["clock"].load()[:200]
    started = time.process_time()
    for _ in range(1000):
        SKILLS["clock"].load()[:5]
    assert time.process_time() - started < 5  # loading draws nothing: drawing a thousand times all rows takes minutes


def test_an_example_is_found_by_its_id_without_drawing_others() -> None:
    examples = draw.Examples("birds", "test", 300, birds.make)
    assert examples.find("birds-test-17") == SKILLS["birds"].benchmark.load()[17]
    assert list(examples._made) == [17]
    for id in ("birds-test-300", "birds-test--1", "birds-train-1", "17", ""):
        assert examples.find(id) is None


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="circle, square"):
        draw.shape_mask("blob", 8)
    with pytest.raises(IndexError, match="300 examples"):
        ASKED["clock"].load()[300]
