"""Held-out benchmarks answered by an option's letter: AI2D, SEED-Bench, ScienceQA, MMStar; and RealWorldQA, which mixes.

LMM-CL (arXiv 2510.08564), held-out benchmarks. Asked in the words of lmms-eval's tasks of the same names.
"""

from __future__ import annotations

from lmmcl.tasks.examples import Example
from lmmcl.tasks.hub.hub_data import HubSource, Row
from lmmcl.tasks.papers.prompts import (
    LETTER,
    LETTERS,
    SEE_PAGE,
    clean,
    make_example,
    multiple_choice,
    numbered_rows,
    short_answers,
)

AI2D = "c83a9b9692933aff8349157c88a413df9d02c4e5"
MMSTAR = "bc98d668301da7b14f648724866e57302778ab27"
SCIENCEQA = "69dd4d6b67373d38f96a5badd5d24d0eb5bcdc50"
REALWORLDQA = "907c4e5228fd1703c710ed937601cb5f89ab8d5c"


def read_ai2d(row: Row) -> Example:
    """A question about a diagram; `answer` is the number of the right option, from 0."""
    text = multiple_choice(row["question"], row["options"])
    return make_example(row["id"], text, LETTERS[int(row["answer"])], row["image"])


def read_seedbench(row: Row) -> Example | None:
    """A question about an image; those about videos are not asked."""
    if row["data_type"] != "image":
        return None
    choices = [row[f"choice_{letter}"] for letter in "abcd"]
    text = multiple_choice(row["question"], choices)
    kind = str(row["question_type_id"])
    return make_example(row["question_id"], text, row["answer"], row["image"], question_type=kind)


def read_scienceqa(row: Row) -> Example | None:
    """A school question with its hint, where it has one; only those with an image are asked."""
    if row["image"] is None:
        return None
    context = f"Context: {row['hint']}\n" if row["hint"] else ""
    text = multiple_choice(f"{context}{row['question']}", row["choices"])
    return make_example(row["id"], text, LETTERS[int(row["answer"])], row["image"], subject=row["subject"])


def read_mmstar(row: Row) -> Example:
    """A question that holds its options."""
    text = f"{clean(row['question'])}\n{LETTER}"
    kinds = {"category": row["category"], "l2_category": row["l2_category"]}
    return make_example(row["index"], text, row["answer"], row["image"], **kinds)


def read_realworldqa(row: Row) -> Example:
    """A question that says itself how it wants to be answered: a letter, a word or a number."""
    return make_example(row["id"], row["question"], row["answer"], row["image"])


BENCHMARKS = (
    short_answers(
        "ai2d",
        1,
        "letter",
        HubSource("lmms-lab/ai2d", "test", read_ai2d, revision=AI2D, licence="CC BY-SA 4.0", rows=numbered_rows),
        "diagrams of school science",
    ),
    short_answers(
        "seedbench",
        1,
        "letter",
        HubSource("lmms-lab/SEED-Bench", "test", read_seedbench, licence="CC BY-NC 4.0"),
        "SEED-Bench, its questions about single images",
    ),
    short_answers(
        "scienceqa_img",
        1,
        "letter",
        HubSource(
            "lmms-lab/ScienceQA",
            "test",
            read_scienceqa,
            revision=SCIENCEQA,
            config="ScienceQA-IMG",
            licence="CC BY-NC-SA 4.0",
            rows=numbered_rows,
        ),
        "ScienceQA, its questions with an image",
    ),
    short_answers(
        "mmstar",
        1,
        "letter",
        HubSource("Lin-Chen/MMStar", "val", read_mmstar, revision=MMSTAR, licence=SEE_PAGE),
        "MMStar: mean over its second-level categories",
        balance="l2_category",
    ),
    short_answers(
        "realworldqa",
        1,
        "letter_or_text",
        HubSource(
            "lmms-lab/RealWorldQA", "test", read_realworldqa, REALWORLDQA, licence="CC BY 4.0", rows=numbered_rows
        ),
        "what a driver or passer-by sees",
    ),
)
