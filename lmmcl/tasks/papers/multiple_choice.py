"""Held-out benchmarks answered by an option's letter: AI2D, SEED-Bench, ScienceQA, MMStar, MMBench; and RealWorldQA, which mixes.

LMM-CL (arXiv 2510.08564), held-out benchmarks. Asked in the words of lmms-eval's tasks of the same names. MMBench is among the
original tasks of Model Tailor (arXiv 2402.12048) and asked as there (llava/eval/model_vqa_mmbench.py). Each rotation of its
options is a question of its own here; MMBench's server counts a question as right only where all rotations are.

Example row: "<image> How many towels are in the image? A. One B. Two C. Three D. Four Answer with the option's letter …" → "A"
"""

from __future__ import annotations

from functools import partial
from itertools import takewhile

from lmmcl.tasks.examples import Example
from lmmcl.tasks.hub.hub_data import HubSource, Row, hub_benchmark
from lmmcl.tasks.papers.prompts import (
    LETTER,
    LETTERS,
    SEE_PAGE,
    clean,
    make_example,
    multiple_choice,
    numbered_rows,
    options,
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
    """A question that holds its options; its sentence ends without a point in lmms-eval."""
    text = f"{clean(row['question'])}\n{LETTER.removesuffix('.')}"
    kinds = {"category": row["category"], "l2_category": row["l2_category"]}
    return make_example(row["index"], text, row["answer"], row["image"], **kinds)


def read_realworldqa(row: Row) -> Example:
    """A question that says itself how it wants to be answered: a letter, a word or a number."""
    return make_example(row["id"], row["question"], row["answer"], row["image"])


CHINESE_LETTER = "请直接回答选项字母。"


def read_mmbench(row: Row, sentence: str) -> Example:
    """A question with its hint, where it has one, and two to four options."""
    letters = list(takewhile(lambda letter: _is_text(row[letter]), "ABCD"))
    hint = f"{row['hint']}\n" if _is_text(row["hint"]) else ""
    text = f"{hint}{row['question']}\n{options([row[letter] for letter in letters])}\n{sentence}"
    return make_example(row["index"], text, row["answer"], row["image"], category=row["category"])


def _is_text(value: object) -> bool:
    """Its tables write nothing as an empty cell, or as the word."""
    return value is not None and value == value and str(value).lower() not in ("nan", "none", "")


def mmbench(config: str, sentence: str) -> HubSource:
    """The development split in English (`en`) or Chinese (`cn`)."""
    read = partial(read_mmbench, sentence=sentence)
    return HubSource("lmms-lab/MMBench", "dev", read, config=config, licence=SEE_PAGE)


BENCHMARKS = (
    short_answers("mmbench", 1, "letter", mmbench("en", LETTER), "MMBench in English (dev)"),
    short_answers("mmbench_cn", 1, "letter", mmbench("cn", CHINESE_LETTER), "MMBench in Chinese (dev)"),
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
    hub_benchmark(
        "mmstar",
        2,
        "letter",
        HubSource("Lin-Chen/MMStar", "val", read_mmstar, revision=MMSTAR, licence=SEE_PAGE),
        max_new_tokens=32,
        description="MMStar: mean over its second-level categories",
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
