"""Held-out benchmarks about text in images: ChartQA, DocVQA, InfoVQA, OCRBench.

LMM-CL (arXiv 2510.08564), held-out benchmarks and an extra. Asked in the words of lmms-eval's tasks of the same names.

Example row: "<image> How many food item is shown in the bar graph? Answer the question with a single word." → "14"
"""

from __future__ import annotations

from lmmcl.tasks.examples import Example
from lmmcl.tasks.hub.hub_data import HubSource, Row, hub_benchmark
from lmmcl.tasks.papers.prompts import PHRASE, SEE_PAGE, WORD, make_example, numbered_rows, short_answers

CHARTQA = "9e63b7df1592a1c2158e735cc1725454aef0d6d9"
DOCVQA = "700643acd865ff3ede094825df884d69d4f7cc10"
OCRBENCH = "92a54bd1384387c178d5a07140a2d85e0a3d12e1"


def read_chartqa(row: Row) -> Example:
    """A question about a chart; `type` tells those that people wrote from those that were generated."""
    return make_example(row["id"], f"{row['question']}\n{WORD}", row["answer"], row["image"], type=row["type"])


def read_docvqa(row: Row) -> Example:
    """A question about a page or an infographic, with all answers that count."""
    answers = list(row["answers"])
    return make_example(row["questionId"], f"{row['question']}\n{PHRASE}", answers[0], row["image"], answers)


def read_ocrbench(row: Row) -> Example:
    """A question about text in an image, as it stands; `dataset` decides how spaces count."""
    answers = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
    kinds = {"dataset": row["dataset"], "question_type": row["question_type"]}
    return make_example(row["id"], row["question"], answers[0], row["image"], answers, **kinds)


def docvqa(config: str) -> HubSource:
    """The validation split of one of the two document data sets."""
    licence = "Apache-2.0 (as the data set's page has it)"
    return HubSource("lmms-lab/DocVQA", "validation", read_docvqa, revision=DOCVQA, config=config, licence=licence)


BENCHMARKS = (
    short_answers(
        "chartqa",
        2,
        "relaxed_accuracy",
        HubSource("lmms-lab/ChartQA", "test", read_chartqa, revision=CHARTQA, licence="GPL-3.0", rows=numbered_rows),
        "charts, numbers within 5 %",
    ),
    hub_benchmark(
        "docvqa",
        1,
        "anls",
        docvqa("DocVQA"),
        max_new_tokens=32,
        description="scanned pages (validation)",
    ),
    hub_benchmark(
        "infovqa",
        1,
        "anls",
        docvqa("InfographicVQA"),
        max_new_tokens=32,
        description="infographics (validation)",
    ),
    hub_benchmark(
        "ocrbench",
        1,
        "ocr_contains",
        HubSource(
            "echo840/OCRBench",
            "test",
            read_ocrbench,
            revision=OCRBENCH,
            licence=SEE_PAGE,
            rows=numbered_rows,
        ),
        max_new_tokens=128,
        description="OCRBench: reading words, documents, formulas",
    ),
)
