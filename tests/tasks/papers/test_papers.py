"""Every skill and benchmark of the papers, from rows in its data set's own schema to questions that score as they should."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hub_fixtures import FixtureHub, SharedLetters

from lmmcl.evaluation.evaluate import balanced
from lmmcl.evaluation.samples import Sample
from lmmcl.tasks import benchmark_names, get_benchmark, get_skill, skill_names
from lmmcl.tasks.examples import IMAGE_PLACEHOLDER, Example
from lmmcl.tasks.hub.hub_data import TEST, TRAIN, HubBenchmark, HubSkill
from lmmcl.tasks.hub.prepare import Outcome, Part, converted, parts_of
from lmmcl.tasks.metrics.metric import get_metric
from lmmcl.tasks.papers.easier import by_name
from lmmcl.tasks.papers.easier.similar_classes import nearest
from lmmcl.tasks.skills import Benchmark

GOLDEN = Path(__file__).parents[2] / "golden" / "prompts.json"
TARGETS = ("cub200", "pixmo_count", "path_vqa", "text_vqa", "time_clock")
HELD_OUT = ("ai2d", "chartqa", "docvqa", "infovqa", "realworldqa", "seedbench", "scienceqa_img", "mmstar")
EXTRAS = ("ocrbench", "countbench", "coco_clock", "openimg_clock")
JUNK = "a purple giraffe plays the tuba"

FROM_THE_HUB = [name for name in skill_names() if isinstance(get_skill(name), HubSkill)]
FROM_THE_HUB += [name for name in benchmark_names() if isinstance(get_benchmark(name), HubBenchmark)]
PARTS = list(dict.fromkeys(part for name in FROM_THE_HUB for part in parts_of(name)))
TAUGHT = {part.name for part in PARTS if part.part == TRAIN} & {part.name for part in PARTS if part.part == TEST}


def label(part: Part) -> str:
    return f"{part.name}-{part.part}"


def examples_of(part: Part, tmp_path: Path) -> tuple[list[Example], Counter[str]]:
    outcome = Outcome(part, tmp_path / "unused")
    return list(converted(part.source, FixtureHub(tmp_path), part, outcome)), outcome.left_out


def test_all_that_the_papers_name_is_there() -> None:
    assert set(TARGETS) <= set(skill_names())
    assert {*HELD_OUT, *EXTRAS} <= set(benchmark_names())
    assert len(PARTS) >= 45


@pytest.mark.parametrize("part", PARTS, ids=label)
def test_rows_become_well_formed_examples(part: Part, tmp_path: Path) -> None:
    examples, _ = examples_of(part, tmp_path)
    assert len(examples) >= 2
    assert len({example.id for example in examples}) == len(examples)
    for example in examples:
        assert [message.role for message in example.messages][-2:] == ["user", "assistant"]
        assert all(message.content == message.content.strip() != "" for message in example.messages)
        shown = sum(message.content.count(IMAGE_PLACEHOLDER) for message in example.messages)
        assert shown == len(example.images)
        assert all(image.size == (12, 10) for image in example.open_images())
        assert None not in example.metadata.values()


@pytest.mark.parametrize("part", [part for part in PARTS if part.part == TEST], ids=label)
def test_gold_answers_are_right_and_junk_is_not(part: Part, tmp_path: Path) -> None:
    assert part.metric is not None
    examples, _ = examples_of(part, tmp_path)
    for example in examples:
        assert part.metric.score(JUNK, example) == 0 or part.metric.name == "cider"
        if part.metric.name == "vqa_soft":  # ten people need not agree
            assert part.metric.score(example.target, example) > 0.5
        else:
            assert part.metric.score(example.target, example) == pytest.approx(1)
    if part.metric.together is not None:
        right = part.metric.together([(example.target, example) for example in examples])
        junk = part.metric.together([(JUNK, example) for example in examples])
        assert min(right) > 1 > 0.1 > max(junk)


RAW = {"pixmo_count", "path_vqa", "text_vqa", "ocr_vqa"}
"""Skills whose authors teach the bare question."""


@pytest.mark.parametrize("name", sorted(name for name in TAUGHT - RAW if not name.startswith("mllm_cl")))
def test_a_skill_is_taught_in_the_words_it_is_asked_in(name: str, tmp_path: Path) -> None:
    asked = [instructions(part, tmp_path) for part in PARTS if part.name == name]
    assert len(asked) == 2 and asked[0] == asked[1] != set()


def instructions(part: Part, tmp_path: Path) -> set[str]:
    """The lines that say how to answer."""
    said = ("Answer", "For questions", "Provide", "What is the class")
    return {line for line in lines(part, tmp_path) if line.startswith(said)}


@pytest.mark.parametrize("name", sorted(RAW))
def test_bare_questions_are_taught_where_the_authors_do_so_and_asked_with_how_to_answer(
    name: str, tmp_path: Path
) -> None:
    """LMM-CL: utils/download_pixmocount_and_convert_to_llava.py, pathvqa_to_llava.py, textvqa_to_llava.py (0affbdc)."""
    taught, asked = (part for part in PARTS if part.name == name)
    assert (taught.part, asked.part) == (TRAIN, TEST)
    assert instructions(taught, tmp_path) == set() != instructions(asked, tmp_path)
    for example in examples_of(taught, tmp_path)[0]:
        image, question = example.messages[0].content.split("\n")
        assert image == IMAGE_PLACEHOLDER and question.endswith("?")


def test_counting_is_answered_by_a_sentence_whose_number_counts(tmp_path: Path) -> None:
    """LMM-CL, utils/download_pixmocount_and_convert_to_llava.py."""
    taught = examples_of(parts_of("pixmo_count")[0], tmp_path)[0]
    assert [example.target for example in taught[:2]] == [
        "There are 4 people in this image.",
        f"There is 1 {taught[1].metadata['label']} in this image.",
    ]
    asked = examples_of(parts_of("pixmo_count")[1], tmp_path)[0][0]
    assert get_metric("integer").score(taught[0].target, asked) == 1


def test_target_skills_are_asked_as_the_evaluation_asks_them(tmp_path: Path) -> None:
    """LMM_CL, lmms-eval/lmms_eval/tasks/{pixmocount,countbench,pathvqa,timeclock,openimgclock,mmstar}/*.yaml (0affbdc)."""
    ends = {
        "pixmo_count": "Answer with integer and nothing else. For example, if the answer is 1, you should output 1.",
        "countbench": "Answer the question with number only.",
        "path_vqa": "For questions that can be answered with a yes or no, just answer yes or no. Otherwise, provide an answer in "
        "the medical domain.",
        "time_clock": "Answer with the time in HH:MM format. For example, if it's 3:45, output 3:45.",
        "openimg_clock": "Answer with the time in HH:MM format. For example, if it's 3:45, output 3:45.",
        "mmstar": "Answer with the option's letter from the given choices directly",
    }
    for name, end in ends.items():
        asked_part = parts_of(name)[-1]
        for example in examples_of(asked_part, tmp_path)[0]:
            assert example.messages[0].content.splitlines()[-1] == end
    question = examples_of(parts_of("path_vqa")[1], tmp_path)[0][0].messages[0].content.splitlines()[1]
    assert question.startswith("Look at the medical image and answer the following question: ")
    tokens = {"pixmo_count": 16, "countbench": 16, "path_vqa": 64, "time_clock": 32, "mmstar": 32}
    assert {name: asked(name).max_new_tokens for name in tokens} == tokens


def test_charts_and_documents_are_asked_as_lmms_eval_does(tmp_path: Path) -> None:
    """lmms-eval, tasks/chartqa/chartqa.yaml (post_prompt) and tasks/docvqa (max_new_tokens 32)."""
    assert instructions(parts_of("chartqa")[0], tmp_path) == {"Answer the question with a single word."}
    assert get_benchmark("docvqa").max_new_tokens == get_benchmark("infovqa").max_new_tokens == 32


def lines(part: Part, tmp_path: Path) -> list[str]:
    return [line for example in examples_of(part, tmp_path)[0] for line in example.messages[0].content.splitlines()]


def test_prompts_are_as_written_down(tmp_path: Path) -> None:
    found = {}
    for part in PARTS:
        example = examples_of(part, tmp_path)[0][0]
        turns = [f"{message.role}: {message.content}" for message in example.messages]
        found[label(part)] = {"version": part.version, "turns": turns, "answers": list(example.answers)}
    assert found == json.loads(GOLDEN.read_text(encoding="utf-8")), (
        "A prompt changed. If that is meant, raise the version of its skill or benchmark and write the new prompt to "
        "tests/golden/prompts.json."
    )


def test_each_data_set_says_where_it_comes_from_and_its_licence() -> None:
    for part in PARTS:
        source = part.source
        assert source.licence, part
        assert source.pinned or source.revision == "main", part
    assert sum(part.source.pinned for part in PARTS) >= 10


def test_an_image_that_is_gone_or_was_replaced_is_left_out_and_counted(tmp_path: Path) -> None:
    train = parts_of("pixmo_count")[0]
    examples, left_out = examples_of(train, tmp_path)
    assert left_out == {"dead link": 1, "image was replaced": 1}
    assert [example.target.split()[2] for example in examples] == ["4", "1", "12"]


def test_birds_are_asked_among_26_different_species(tmp_path: Path) -> None:
    for example in examples_of(parts_of("cub200")[0], tmp_path)[0]:
        options = [line for line in example.messages[0].content.splitlines() if line[1:3] == ". "]
        assert [line[0] for line in options] == list("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
        assert len({line[3:] for line in options}) == 26
        right = next(line for line in options if line[0] == example.target)
        assert right[3:] == example.metadata["species"]


def test_questions_about_videos_and_without_images_are_not_asked(tmp_path: Path) -> None:
    for name in ("seedbench", "scienceqa_img"):
        examples, left_out = examples_of(parts_of(name)[0], tmp_path)
        assert (len(examples), left_out) == (3, {"not asked": 1})


def test_classes_of_similar_names_are_asked_where_a_sweep_names_that_form(tmp_path: Path) -> None:
    names = by_name.IMAGENET(FixtureHub(tmp_path))
    similar = nearest(SharedLetters(), names, 5)
    for example in examples_of(parts_of("imagenet_vqa.by_name")[0], tmp_path)[0]:
        right = example.metadata["class_name"]
        shown = set(options_of(example))
        assert len(shown) == 4 and shown - {right} <= set(similar[right])
        assert example.messages[0].content.splitlines()[1] == "What is shown in this image?"


def options_of(example: Example) -> list[str]:
    return [line[3:] for line in example.messages[0].content.splitlines() if line[1:3] == ". "]


def asked(name: str) -> Benchmark:
    return get_skill(name).benchmark if name in skill_names() else get_benchmark(name)


def test_the_2x2_is_told_by_tags() -> None:
    cells = Counter()
    for benchmark in {part.name: asked(part.name) for part in PARTS}.values():
        if benchmark.likeness("image", "imagenet_vqa"):
            cells[(benchmark.likeness("image", "imagenet_vqa"), benchmark.likeness("text", "imagenet_vqa"))] += 1
    assert cells == {("id", "id"): 2, ("ood", "id"): 3, ("id", "ood"): 1, ("ood", "ood"): 2}


def test_every_second_level_category_of_mmstar_counts_the_same(tmp_path: Path) -> None:
    examples, _ = examples_of(parts_of("mmstar")[0], tmp_path)
    letter = get_metric("letter")
    said = ["A", "D", "C", "D"]  # right: one topic; one emotion of two; no geometry
    samples = [
        Sample(example.id, "", (), answer, letter.score(answer, example), example.metadata)
        for example, answer in zip(examples, said, strict=True)
    ]
    scores = balanced(samples, get_benchmark("mmstar").balance)
    assert sum(scores) / len(scores) == pytest.approx((1 + 0.5 + 0) / 3)
    assert get_benchmark("mmstar").identity()["balance"] == "l2_category"
    assert "balance" not in get_benchmark("ai2d").identity()


def test_a_key_depends_on_the_data_set_and_its_revision() -> None:
    identity = get_skill("cub200").identity()
    assert identity["data"]["hub"] == "bentrevett/caltech-ucsd-birds-200-2011"
    assert identity["data"]["revision"] == get_skill("cub200").source.revision
    assert get_benchmark("docvqa").identity()["data"] != get_benchmark("infovqa").identity()["data"]


def test_every_name_that_the_main_study_asks_is_pinned_or_says_that_it_follows_a_branch() -> None:
    followed = {part.source.hub for name in (*TARGETS, *HELD_OUT) for part in parts_of(name) if not part.source.pinned}
    assert followed == {
        "Jessemel/cub200-test",
        "Jessemel/pixmocount-test",
        "flaviagiammarino/path-vqa",
        "lmms-lab/textvqa",
        "AvaXiao/clockreading-time",
        "gpiosenka/time-image-datasetclassification",
        "lmms-lab/SEED-Bench",
    }, "what follows a branch is read at the commit of the day, which the prepared file records"
