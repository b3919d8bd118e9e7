"""Questions of other words than the training: ImageWikiQA (on ImageNet's images), MMMU and VMCBench (on others).

"Fine-tuning MLLMs Without Forgetting Is Easier Than You Think" (arXiv 2603.14493), the lower row of its 2×2: other text. So
MMMU and VMCBench end in VLMEvalKit's sentence, which no form of ImageNet-VQA ends in.

Example row: "<image> Where is this object carried? A. By hand B. On a shelf C. In a lake D. Nowhere Choose A, B, C, or D."
→ "A"
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lmmcl.tasks.examples import Example
from lmmcl.tasks.hub.hub_data import HubSource, Row
from lmmcl.tasks.papers.prompts import (
    PHRASE,
    SEE_PAGE,
    make_example,
    options,
    short_answers,
    with_image,
)

if TYPE_CHECKING:
    from lmmcl.tasks.hub.client import Hub

WIKI = "yuhui-zh15/VLMClassifier"
_WIKI_ID = re.compile(r"(?P<class>.+)_[A-D]_question\d+_image\d+")
FROM_ABOVE = "Please select the correct answer from the options above."


def wiki_rows(hub: Hub, source: HubSource) -> Iterator[Row]:
    """The questions of ImageWikiQA with their images, which are ImageNet's."""
    folder = hub.folder(source.hub, f"git clone https://github.com/{source.hub}")
    for line in (folder / "data" / f"{source.split}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield with_image(row, hub.named_image(row["image"]))


def read_wiki(row: Row) -> Example:
    """A fact about "this object"; the text holds its options and how to answer. Its id begins with what the object is."""
    named = _WIKI_ID.fullmatch(row["question_id"])
    if named is None:
        raise ValueError(f"question_id {row['question_id']!r} does not begin with a class and a letter")
    return make_example(row["question_id"], row["text"], row["label"], row["image"], class_name=named["class"])


def read_mmmu(row: Row) -> Example:
    """A college question. Its images stand before the text, which names them `<image 1>` …, as lmms-eval has it."""
    choices = ast.literal_eval(row["options"]) if isinstance(row["options"], str) else list(row["options"])
    several = row["question_type"] == "multiple-choice"
    text = f"{row['question']}\n{options(choices)}\n{FROM_ABOVE}" if several else f"{row['question']}\n{PHRASE}"
    shown = sorted({int(number) for number in re.findall(r"<image (\d)>", text)}) or [1]
    images = [row[f"image_{number}"] for number in shown]
    answers = accepted(row["answer"])
    subject = "_".join(row["id"].split("_")[1:-1])
    return make_example(row["id"], text, answers[0], images, answers, subject=subject)


def accepted(answer: str) -> list[str]:
    """The answers that count: open questions write several as a list."""
    if answer.startswith("["):
        return [str(item) for item in ast.literal_eval(answer)]
    return [answer]


def read_vmcbench(row: Row) -> Example:
    """A question of one of twenty benchmarks, made multiple choice."""
    text = f"Question: {row['question']}\nOptions:\n{options([row[letter] for letter in 'ABCD'])}\n{FROM_ABOVE}"
    return make_example(row["index"], text, row["answer"], row["image"], category=row["category"])


IMAGE_WIKI_QA = short_answers(
    "image_wiki_qa",
    2,
    "letter",
    HubSource(
        WIKI,
        "imagewikiqa",
        read_wiki,
        licence="questions MIT; images of ImageNet",
        elsewhere=True,
        note="a repository of code; images by `--images`, a folder with ImageNet's val/<class>/<file>",
        rows=wiki_rows,
    ),
    "ImageWikiQA: facts about what an ImageNet image shows (2,000 questions)",
    tags={skill: {"image": "id", "text": "ood"} for skill in ("imagenet_vqa", "imagenet_vqa.by_name")},
)
BENCHMARKS = (
    IMAGE_WIKI_QA,
    short_answers(
        "mmmu",
        2,
        "letter_or_text",
        HubSource("lmms-lab/MMMU", "validation", read_mmmu, licence="Apache-2.0"),
        "MMMU validation: college questions",
        tags={"image": "ood", "text": "ood"},
    ),
    short_answers(
        "vmcbench",
        2,
        "letter",
        HubSource("suyc21/VMCBench", "dev", read_vmcbench, licence=SEE_PAGE),
        "VMCBench dev: twenty benchmarks as multiple choice",
        tags={"image": "ood", "text": "ood"},
    ),
)
