"""PixmoCount and CountBench: how many things of a kind are in an image.

LMM-CL (arXiv 2510.08564), target skill 2 and an extra: taught as the bare question and a sentence with the number
(utils/download_pixmocount_and_convert_to_llava.py), asked for the number alone. PixMo-Count names its images by web address
and the digest of their bytes: an image that is gone or was replaced is left out, and how many were is printed and recorded with
the data.

Example row: "<image> How many people are in this image?" → "There are 4 people in this image."
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from lmmcl.tasks.examples import Example
from lmmcl.tasks.hub.hub_data import HubSource, Row, hub_skill
from lmmcl.tasks.papers.prompts import SEE_PAGE, make_example, numbered_rows, short_answers, with_image

if TYPE_CHECKING:
    from lmmcl.tasks.hub.client import Hub

INTEGER = "Answer with integer and nothing else. For example, if the answer is 1, you should output 1."
NUMBER = "Answer the question with number only."
"""Of the evaluation's pixmocount and countbench tasks."""
PIXMO = "ebf51cf70e45d12374e64d475862e4f8d21d31d0"
COUNTBENCH = "76d600309e9d6147bd3713b4cd431518ac1206c8"
AT_ONCE = 16
"""Images fetched at the same time."""


def linked_rows(hub: Hub, source: HubSource) -> Iterator[Row]:
    """The rows with their images fetched, in order; a row says itself when its image cannot be had."""
    rows = iter(replace(source, rows=None).all_rows(hub))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while batch := list(islice(rows, 8 * AT_ONCE)):
            yield from map(with_linked, batch, pool.map(hub.image, [row["image_url"] for row in batch]))


def with_linked(row: Row, data: bytes | None) -> Row:
    """The row with its image, or with why it has none."""
    if data is not None and hashlib.sha256(data).hexdigest() != row["image_sha256"]:
        return with_image(row, None, "image was replaced")
    return with_image(row, data, "dead link")


def read_linked(row: Row) -> Example:
    """`How many {label} are in this image?`, answered by a sentence such as "There are 4 people in this image."."""
    count, label = row["count"], row["label"]
    answer = f"There {'is' if count == 1 else 'are'} {count} {label} in this image."
    id = f"{row['image_sha256'][:16]}-{label}"
    return make_example(id, f"How many {label} are in this image?", answer, row["image"], label=label)


def read_test(row: Row) -> Example:
    """The paper's test set; its answers are sentences ("There are 4 …"); the reference is their number."""
    from lmmcl.tasks.metrics.parse_answer import stated_number

    number = stated_number(row["answer"])
    if number is None:
        raise ValueError(f"no number in {row['answer']!r}")
    return make_example(row["id"], f"{row['question']}\n{INTEGER}", f"{number:g}", row["image"])


def read_countbench(row: Row) -> Example:
    """CountBenchQA: a question with its number."""
    return make_example(row["id"], f"{row['question']}\n{NUMBER}", row["number"], row["image"])


LICENCE = "annotations ODC-BY 1.0; each image by its own licence"
BENCHMARK = short_answers(
    "pixmo_count",
    2,
    "integer",
    HubSource("Jessemel/pixmocount-test", "train", read_test, licence=LICENCE, rows=numbered_rows),
    "how many things of a kind there are (540 questions)",
)
SKILLS = (
    hub_skill(
        "pixmo_count",
        2,
        HubSource("allenai/pixmo-count", "train", read_linked, revision=PIXMO, licence=LICENCE, rows=linked_rows),
        BENCHMARK,
        "counting the things of a kind (about 36.9 k images, fetched from their web addresses)",
    ),
)
BENCHMARKS = (
    short_answers(
        "countbench",
        2,
        "integer",
        HubSource(
            "vikhyatk/CountBenchQA",
            "test",
            read_countbench,
            revision=COUNTBENCH,
            licence=SEE_PAGE,
            rows=numbered_rows,
        ),
        "CountBench: counting two to ten things",
    ),
)
