"""TextVQA: reading the text in a photograph.

LMM-CL (arXiv 2510.08564), target skill 4. The answer most annotators gave is taught to the bare question
(utils/textvqa_to_llava.py); asked in the words of lmms-eval, all ten are references. Recognised characters are not part of
the prompt.

Example row: "<image> what is the brand of this camera?" → "dakota"
"""

from __future__ import annotations

from collections.abc import Callable

from lmmcl.tasks.examples import Example
from lmmcl.tasks.hub.hub_data import HubSource, Row, hub_benchmark, hub_skill
from lmmcl.tasks.papers.prompts import PHRASE, make_example, most_common


def read(row: Row) -> Example:
    """One question with its ten answers."""
    answers = list(row["answers"])
    question = f"{row['question'].capitalize()}\n{PHRASE}"
    return make_example(
        row["question_id"], question, most_common(answers), row["image"], answers, image_id=row["image_id"]
    )


def read_training(row: Row) -> Example:
    """The question as it stands."""
    return make_example(row["question_id"], row["question"], most_common(row["answers"]), row["image"])


def source(split: str, reader: Callable[[Row], Example]) -> HubSource:
    """A split of TextVQA."""
    return HubSource("lmms-lab/textvqa", split, reader, licence="CC BY 4.0")


BENCHMARK = hub_benchmark(
    "text_vqa",
    1,
    "vqa_soft",
    source("validation", read),
    max_new_tokens=64,
    description="reading text in photographs (5,000 questions)",
)
BENCHMARKS = (BENCHMARK,)  # among the original tasks of Model Tailor
SKILLS = (
    hub_skill(
        "text_vqa", 2, source("train", read_training), BENCHMARK, "reading text in photographs (34,602 questions)"
    ),
)
