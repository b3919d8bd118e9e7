"""TimeClock, CocoClock and OpenImgClock: what time a clock shows.

LMM-CL (arXiv 2510.08564), target skill 5 and two extras. The test set is the paper's. Its training file is not published;
its size (about 11.5 k) and the test set (1,440) are those of the TIME image data set of 144 drawn times, ten test and
eighty training images each, so that is what the training images come from: a folder for each time, from a local copy.

Example row: "<image> What time does the clock show in this image? Answer with the time in HH:MM format. …" → "03:45"
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lmmcl.tasks.examples import Example
from lmmcl.tasks.hub.hub_data import HubBenchmark, HubSource, Row, hub_benchmark, hub_skill
from lmmcl.tasks.papers.prompts import SEE_PAGE, make_example, numbered_rows, with_image

if TYPE_CHECKING:
    from lmmcl.tasks.hub.client import Hub

QUESTION = "What time does the clock show in this image?"
FORMAT = "Answer with the time in HH:MM format. For example, if it's 3:45, output 3:45."
"""Of the evaluation's timeclock task."""
_TIME = re.compile(r"(\d{1,2})[-_.:h](\d{2})")


def read_test(row: Row) -> Example:
    """A question of the data set, answered HH:MM."""
    return make_example(row["id"], f"{row['question']}\n{FORMAT}", row["answer"], row["image"])


def read_training(row: Row) -> Example:
    """An image with the time that its folder is named after."""
    match = _TIME.fullmatch(row["time"])
    if match is None:
        raise ValueError(f"{row['time']!r} is not a time such as 3-45")
    answer = f"{int(match[1]):02d}:{match[2]}"
    return make_example(row["id"], f"{QUESTION}\n{FORMAT}", answer, row["image"])


def folder_rows(hub: Hub, source: HubSource) -> Iterator[Row]:
    """The images of a split that has one folder for each time."""
    folder = hub.folder(source.hub, f"kaggle datasets download --unzip {source.hub}")
    times = sorted(entry for entry in (folder / source.split).iterdir() if entry.is_dir())
    for time in times:
        for image in sorted(time.iterdir()):
            yield with_image({"id": f"{time.name}/{image.stem}", "time": time.name}, image.read_bytes())


def clock(name: str, hub: str, description: str) -> HubBenchmark:
    """A benchmark of clocks; the authors' data sets keep their test questions in a split called train."""
    source = HubSource(hub, "train", read_test, licence=SEE_PAGE, rows=numbered_rows)
    return hub_benchmark(name, 2, "clock", source, max_new_tokens=32, description=description)


BENCHMARK = clock("time_clock", "AvaXiao/clockreading-time", "reading drawn clocks (1,440 questions)")
SKILLS = (
    hub_skill(
        "time_clock",
        2,
        HubSource(
            "gpiosenka/time-image-datasetclassification",
            "train",
            read_training,
            licence=SEE_PAGE,
            note="taken for the paper's training images because all numbers agree; the paper does not name them",
            elsewhere=True,
            rows=folder_rows,
        ),
        BENCHMARK,
        "reading clocks, HH:MM (about 11.5 k images)",
    ),
)
BENCHMARKS = (
    clock("coco_clock", "Jessemel/clockreading-coco", "clocks in photographs of COCO"),
    clock("openimg_clock", "Jessemel/clockreading-openimg", "clocks in photographs of Open Images"),
)
