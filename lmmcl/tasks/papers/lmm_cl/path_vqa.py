"""PathVQA: questions about pathology images, answered by yes, no or a few words.

LMM-CL (arXiv 2510.08564), target skill 3. Its evaluation scores the share of words that match; here an answer is right or
wrong, as the paper's tables call it: exact match.
"""

from __future__ import annotations

from lmmcl.tasks.examples import Example
from lmmcl.tasks.hub.hub_data import HubSource, Row, hub_benchmark, hub_skill
from lmmcl.tasks.papers.prompts import make_example, numbered_rows

AFTER = (
    "If the question can be answered with yes or no, answer yes or no. Otherwise answer with a medical word or phrase."
)


def read(row: Row) -> Example:
    """One question; `kind` tells yes/no questions from open ones."""
    kind = "yes_no" if row["answer"].strip().lower() in ("yes", "no") else "open"
    return make_example(row["id"], f"{row['question']}\n{AFTER}", row["answer"], row["image"], kind=kind)


def source(split: str) -> HubSource:
    """A split of PathVQA."""
    return HubSource("flaviagiammarino/path-vqa", split, read, licence="MIT", rows=numbered_rows)


BENCHMARK = hub_benchmark(
    "path_vqa",
    1,
    "exact_match",
    source("test"),
    max_new_tokens=64,
    description="pathology: yes, no or a few words (6,719 questions)",
)
SKILLS = (hub_skill("path_vqa", 1, source("train"), BENCHMARK, "questions about pathology images (19,654)"),)
