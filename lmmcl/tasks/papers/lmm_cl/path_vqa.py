"""PathVQA: questions about pathology images, answered by yes, no or a few words.

LMM-CL (arXiv 2510.08564), target skill 3: taught as the bare question (utils/pathvqa_to_llava.py), asked with how to answer, and
scored by the share of matching words, which its evaluation calls exact match (tasks/pathvqa of its lmms-eval). Its five other
metrics (F1, BLEU, yes/no accuracy) are not computed; the samples hold the answers that they would be computed from.

Example row: "<image> where are liver stem cells (oval cells) located?" → "in the canals of hering"
"""

from __future__ import annotations

from functools import partial

from lmmcl.tasks.examples import Example
from lmmcl.tasks.hub.hub_data import HubSource, Row, hub_benchmark, hub_skill
from lmmcl.tasks.papers.prompts import make_example, numbered_rows

BEFORE = "Look at the medical image and answer the following question: "
AFTER = (
    "For questions that can be answered with a yes or no, just answer yes or no. "
    "Otherwise, provide an answer in the medical domain."
)
"""Around the question in the evaluation's pathvqa task."""


def read(row: Row, form: str) -> Example:
    """One question; `kind` tells yes/no questions from open ones."""
    kind = "yes_no" if row["answer"].strip().lower() in ("yes", "no") else "open"
    return make_example(row["id"], form.format(row["question"]), row["answer"], row["image"], kind=kind)


def source(split: str, form: str) -> HubSource:
    """A split of PathVQA, each question written in a form such as `{}`."""
    read_row = partial(read, form=form)
    return HubSource("flaviagiammarino/path-vqa", split, read_row, licence="MIT", rows=numbered_rows)


BENCHMARK = hub_benchmark(
    "path_vqa",
    2,
    "matching_words",
    source("test", f"{BEFORE}{{}}\n{AFTER}"),
    max_new_tokens=64,
    description="pathology: yes, no or a few words (6,719 questions)",
)
SKILLS = (hub_skill("path_vqa", 2, source("train", "{}"), BENCHMARK, "questions about pathology images (19,654)"),)
