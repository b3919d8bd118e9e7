"""Questions about photographs and book covers: OKVQA and OCR-VQA (skills), GQA, POPE, VizWiz, VQAv2.

Model Tailor (arXiv 2402.12048): OKVQA is one of the tasks taught, the others are among the original tasks. Asked in the
words of lmms-eval. OCR-VQA's training questions are mixed into stages of data-hybrid training (arXiv 2603.14493).

Example row: "<image> What fruit comes from these trees? Answer the question using a single word or phrase." → "banana"
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from lmmcl.tasks.examples import Example
from lmmcl.tasks.hub.hub_data import HubSource, Row, hub_benchmark, hub_skill
from lmmcl.tasks.papers.prompts import PHRASE, SEE_PAGE, make_example, most_common, short_answers, with_image

if TYPE_CHECKING:
    from lmmcl.tasks.hub.client import Hub

UNANSWERABLE = f"When the provided information is insufficient, respond with 'Unanswerable'.\n{PHRASE}"


def read_annotated(row: Row) -> Example:
    """A question with the answers of ten people, as texts or as {"answer": …}."""
    answers = [item["answer"] if isinstance(item, dict) else item for item in row["answers"]]
    question = f"{row['question']}\n{PHRASE}"
    return make_example(row["question_id"], question, most_common(answers), row["image"], answers)


def read_vizwiz(row: Row) -> Example:
    """A question of a blind person, which the photograph need not answer."""
    answers = list(row["answers"])
    question = f"{row['question'].capitalize()}\n{UNANSWERABLE}"
    return make_example(row["question_id"], question, most_common(answers), row["image"], answers)


def gqa_rows(hub: Hub, source: HubSource) -> Iterator[Row]:
    """The balanced questions with their images, which are another configuration of the data set."""
    config = (source.config or "").replace("_instructions", "_images")
    pictures = hub.rows(source.hub, source.split, config=config, revision=source.revision)
    images = {row["id"]: row["image"] for row in pictures}
    for row in replace(source, rows=None).all_rows(hub):
        yield with_image(row, images.get(row["imageId"]))


def read_gqa(row: Row) -> Example:
    """A question with its short answer."""
    return make_example(row["id"], f"{row['question']}\n{PHRASE}", row["answer"], row["image"])


def read_pope(row: Row) -> Example:
    """Is a thing in the image; `category` tells how absent things were chosen."""
    text = f"{row['question'].strip()}\n{PHRASE}"
    return make_example(row["id"], text, row["answer"], row["image"], category=row["category"])


def ocr_vqa_rows(hub: Hub, source: HubSource) -> Iterator[Row]:
    """A row for each question; the data set has one for each book."""
    for book in replace(source, rows=None).all_rows(hub):
        for number, (question, answer) in enumerate(zip(book["questions"], book["answers"], strict=True)):
            id = f"{book['image_id']}-{number}"
            yield {"id": id, "question": question, "answer": answer, "image": book["image"]}


def read_ocr_vqa(row: Row) -> Example:
    """The bare question, as it is mixed into training (arXiv 2603.14493, data/processors/multi-task/ocrvqa.py)."""
    return make_example(row["id"], row["question"], row["answer"], row["image"])


OCR_VQA = hub_benchmark(
    "ocr_vqa",
    1,
    "exact_match",
    HubSource("howard-hou/OCR-VQA", "test", read_gqa, licence=SEE_PAGE, rows=ocr_vqa_rows),
    max_new_tokens=32,
    description="OCR-VQA: book covers (test)",
)
BENCHMARK = short_answers(
    "okvqa",
    1,
    "vqa_soft",
    HubSource("lmms-lab/OK-VQA", "val2014", read_annotated, licence=SEE_PAGE),
    "OKVQA: questions that need outside knowledge (5,046)",
)
SKILLS = (
    hub_skill(
        "okvqa",
        1,
        HubSource(
            "Multimodal-Fatima/OK-VQA_train",
            "train",
            read_annotated,
            revision="78e937b0afc333cfe8fee21c4d56aa405b4d0682",
            licence=SEE_PAGE,
            note="its columns are taken to be those of lmms-lab/OK-VQA",
        ),
        BENCHMARK,
        "questions that need outside knowledge (9,009)",
    ),
    hub_skill(
        "ocr_vqa",
        1,
        HubSource("howard-hou/OCR-VQA", "train", read_ocr_vqa, licence=SEE_PAGE, rows=ocr_vqa_rows),
        OCR_VQA,
        "book covers, for data-hybrid training (about 802 k questions)",
    ),
)
BENCHMARKS = (
    short_answers(
        "gqa",
        1,
        "exact_match",
        HubSource(
            "lmms-lab/GQA",
            "testdev",
            read_gqa,
            config="testdev_balanced_instructions",
            licence="CC BY 4.0",
            rows=gqa_rows,
        ),
        "GQA: compositional questions (balanced testdev)",
    ),
    OCR_VQA,
    short_answers(
        "pope",
        1,
        "yes_no",
        HubSource("lmms-lab/POPE", "test", read_pope, licence=SEE_PAGE),
        "POPE: is a thing in the photograph (COCO; accuracy)",
    ),
    short_answers(
        "vizwiz",
        1,
        "vqa_soft",
        HubSource("lmms-lab/VizWiz-VQA", "val", read_vizwiz, licence="CC BY 4.0"),
        "VizWiz: photographs by blind people (validation)",
    ),
    short_answers(
        "vqav2",
        1,
        "vqa_soft",
        HubSource("lmms-lab/VQAv2", "validation", read_annotated, licence="CC BY 4.0"),
        "VQAv2 (validation)",
    ),
)
