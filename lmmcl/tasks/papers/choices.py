"""Held-out benchmarks answered by an option's letter: AI2D, SEED-Bench, ScienceQA, MMStar; and RealWorldQA, which mixes.

LMM-CL (arXiv 2510.08564), held-out benchmarks. Asked in the words of lmms-eval's tasks of the same names.
"""

from __future__ import annotations

from lmmcl.tasks.base import Example
from lmmcl.tasks.hub_data import HubSource, Row, hub_benchmark
from lmmcl.tasks.papers.asking import LETTER, LETTERS, clean, numbered_rows, options, pictured

AI2D = "c83a9b9692933aff8349157c88a413df9d02c4e5"
MMSTAR = "bc98d668301da7b14f648724866e57302778ab27"
REALWORLDQA = "907c4e5228fd1703c710ed937601cb5f89ab8d5c"


def read_ai2d(row: Row) -> Example:
    """A question about a diagram; `answer` is the number of the right option, from 0."""
    text = f"{row['question']}\n{options(row['options'])}\n{LETTER}"
    return pictured(row["id"], text, LETTERS[int(row["answer"])], row["image"])


def read_seedbench(row: Row) -> Example | None:
    """A question about an image; those about videos are not asked."""
    if row["data_type"] != "image":
        return None
    choices = [row[f"choice_{letter}"] for letter in "abcd"]
    text = f"{row['question']}\n{options(choices)}\n{LETTER}"
    kind = str(row["question_type_id"])
    return pictured(row["question_id"], text, row["answer"], row["image"], question_type=kind)


def read_scienceqa(row: Row) -> Example | None:
    """A school question with its hint, where it has one; only those with an image are asked."""
    if row["image"] is None:
        return None
    context = f"Context: {row['hint']}\n" if row["hint"] else ""
    text = f"{context}{row['question']}\n{options(row['choices'])}\n{LETTER}"
    return pictured(row["id"], text, LETTERS[int(row["answer"])], row["image"], subject=row["subject"])


def read_mmstar(row: Row) -> Example:
    """A question that holds its options."""
    text = f"{clean(row['question'])}\n{LETTER}"
    kinds = {"category": row["category"], "l2_category": row["l2_category"]}
    return pictured(row["index"], text, row["answer"], row["image"], **kinds)


def read_realworldqa(row: Row) -> Example:
    """A question that says itself how it wants to be answered: a letter, a word or a number."""
    return pictured(row["id"], row["question"], row["answer"], row["image"])


BENCHMARKS = (
    hub_benchmark(
        "ai2d",
        1,
        "letter",
        HubSource("lmms-lab/ai2d", "test", read_ai2d, revision=AI2D, licence="CC BY-SA 4.0", rows=numbered_rows),
        max_new_tokens=16,
        description="diagrams of school science",
    ),
    hub_benchmark(
        "seedbench",
        1,
        "letter",
        HubSource("lmms-lab/SEED-Bench", "test", read_seedbench, licence="CC BY-NC 4.0"),
        max_new_tokens=16,
        description="SEED-Bench, its questions about single images",
    ),
    hub_benchmark(
        "scienceqa_img",
        1,
        "letter",
        HubSource(
            "lmms-lab/ScienceQA",
            "test",
            read_scienceqa,
            revision="69dd4d6b67373d38f96a5badd5d24d0eb5bcdc50",
            config="ScienceQA-IMG",
            licence="CC BY-NC-SA 4.0",
            rows=numbered_rows,
        ),
        max_new_tokens=16,
        description="ScienceQA, its questions with an image",
    ),
    hub_benchmark(
        "mmstar",
        1,
        "letter",
        HubSource("Lin-Chen/MMStar", "val", read_mmstar, revision=MMSTAR, licence="see the data set's page"),
        max_new_tokens=16,
        balance="l2_category",
        description="MMStar: mean over its second-level categories",
    ),
    hub_benchmark(
        "realworldqa",
        1,
        "letter_or_text",
        HubSource(
            "lmms-lab/RealWorldQA",
            "test",
            read_realworldqa,
            revision=REALWORLDQA,
            licence="CC BY 4.0",
            rows=numbered_rows,
        ),
        max_new_tokens=16,
        description="what a driver or passer-by sees",
    ),
)
