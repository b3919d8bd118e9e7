"""LLaVA-665K: the mixture that LLaVA-1.5 was instructed with, as diverse data to mix into a stage.

"Fine-tuning MLLMs Without Forgetting Is Easier Than You Think" (arXiv 2603.14493), data-hybrid training. The mixture names
its images (COCO, GQA, OCR-VQA, TextVQA, Visual Genome) and holds none: `--images` names a folder with them in LLaVA's own
layout (coco/train2017, gqa/images, ocr_vqa/images, textvqa/train_images, vg/VG_100K, vg/VG_100K_2). What is not there is
left out and counted. Its benchmark is MMStar's questions: the mixture has no test of its own.

Example row: "<image> What are the colors of the bus in the image?" → "The bus in the image is white and red."
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lmmcl.tasks.examples import Example, Message
from lmmcl.tasks.hub.hub_data import HubSource, Row, hub_skill
from lmmcl.tasks.layouts.dialogue import ROLES
from lmmcl.tasks.papers import multiple_choice
from lmmcl.tasks.papers.prompts import picture, with_image

if TYPE_CHECKING:
    from lmmcl.tasks.hub.client import Hub

FILE = "llava_v1_5_mix665k.json"


def mixture_rows(hub: Hub, source: HubSource) -> Iterator[Row]:
    """The dialogues with their images."""
    file = hub.file(source.hub, FILE, revision=source.revision)
    for row in json.loads(file.read_text(encoding="utf-8")):
        named = row.get("image")
        yield with_image(row, hub.named_image(named)) if named else {**row, "image": None}


def read_dialogue(row: Row) -> Example:
    """A dialogue of the LLaVA form, about one image or none."""
    messages = tuple(Message(ROLES[turn["from"]], turn["value"]) for turn in row["conversations"])
    images = () if row["image"] is None else (picture(row["image"]),)
    return Example(id=str(row["id"]), messages=messages, images=images)


MMSTAR = next(one for one in multiple_choice.BENCHMARKS if one.name == "mmstar")
SKILLS = (
    hub_skill(
        "llava_665k",
        1,
        HubSource(
            "liuhaotian/LLaVA-Instruct-150K",
            "train",
            read_dialogue,
            licence="CC BY-NC 4.0; images by their own licences",
            rows=mixture_rows,
        ),
        MMSTAR,
        "LLaVA's instruction mixture, for data-hybrid training (665 k dialogues)",
    ),
)
