"""CUB200: fine-grained birds, one of 26 lettered species (truth and 25 random ones).

LMM-CL (arXiv 2510.08564), target skill 1. The test questions are the paper's own, options and wording included; the
training questions are made here in the same form from the images of the official training split.

Example row: "<image> What species is the bird in this photo? … A. Indigo Bunting B. Least Auklet … Z. …" → "V"
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from lmmcl.tasks.examples import Example
from lmmcl.tasks.hub.hub_data import HubSource, Row, hub_skill
from lmmcl.tasks.papers.prompts import (
    LETTER,
    LETTERS,
    deterministic_shuffle,
    make_example,
    numbered_rows,
    options,
    short_answers,
)

if TYPE_CHECKING:
    from lmmcl.tasks.hub.client import Hub

QUESTIONS = (  # the ten of the authors' utils/cub200_to_llava.py
    "What species is the bird in this photo?",
    "Can you identify the bird species in this image?",
    "Which bird species is shown in this picture?",
    "What type of bird is depicted in this photograph?",
    "Identify the species of the bird in this image.",
    "What is the bird species presented in this photo?",
    "Which of the following species does this bird belong to?",
    "What would you classify this bird as?",
    "From the options below, what species is this bird?",
    "Looking at this bird, what species would you say it is?",
)
IMAGES = "c1492c7cfd03de0c6b57b19f1d89cefd446e41fb"
OPTIONS = 26


def species(label: str) -> str:
    """`001.Black_footed_Albatross` as words: Black footed Albatross."""
    number, dot, name = label.partition(".")
    return (name if dot and number.isdigit() else label).replace("_", " ").strip()


def training_rows(hub: Hub, source: HubSource) -> Iterator[Row]:
    """The images with all species beside them, which the wrong options are drawn from."""
    names = [species(label) for label in hub.labels(source.hub, source.split, "label", revision=source.revision)]
    for number, row in enumerate(replace(source, rows=None).all_rows(hub)):
        yield {**row, "number": number, "species": names}


def read_training(row: Row) -> Example:
    """A question whose wording, wrong options and their order follow from the row's number."""
    right, key = species(row["label"]), f"cub200/{row['number']}"
    wrong = deterministic_shuffle((name for name in row["species"] if name != right), key)[: OPTIONS - 1]
    choices = deterministic_shuffle([right, *wrong], f"{key}/order")
    text = f"{deterministic_shuffle(QUESTIONS, key)[0]}\n{LETTER}\n{options(choices)}"
    return make_example(row["number"], text, LETTERS[choices.index(right)], row["image"], species=right)


def read_test(row: Row) -> Example:
    """A question as the paper's test set holds it: options included."""
    text = row["question"]
    return make_example(row.get("id", ""), text if LETTER in text else f"{text}\n{LETTER}", row["answer"], row["image"])


LICENCE = "images of CUB-200-2011: non-commercial research and education"
BENCHMARK = short_answers(
    "cub200",
    1,
    "letter",
    HubSource("Jessemel/cub200-test", "train", read_test, licence=LICENCE, rows=numbered_rows),
    "species of a bird among 26 lettered ones (5,794 questions)",
)
SKILLS = (
    hub_skill(
        "cub200",
        2,
        HubSource(
            "bentrevett/caltech-ucsd-birds-200-2011",
            "train",
            read_training,
            revision=IMAGES,
            licence=LICENCE,
            rows=training_rows,
        ),
        BENCHMARK,
        "fine-grained birds, 26 lettered options (5,994 images)",
    ),
)
