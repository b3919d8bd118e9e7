"""ImageNet-VQA and its neighbours in their first form: wrong options are classes with similar names, whatever the image shows.

`imagenet_vqa.by_name` in an order, and the benchmarks of the same ending, ask as lmmcl did before it asked as the authors do
(`classes.py`): "What is shown in this image?", three of the five classes whose names CLIP takes for most alike, and the
sentence of lmms-eval. They need no image encoded, and show what the choice of options does to a result.

Example row: "<image> What is shown in this image? A. tench B. rooster C. great white shark D. hammerhead shark …" → "A"
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from lmmcl.tasks.examples import Example
from lmmcl.tasks.hub.hub_data import HubBenchmark, HubSource, Row, hub_skill
from lmmcl.tasks.papers.easier import classes
from lmmcl.tasks.papers.easier.classes import ClassNames, choices_of, image_of, labelled_rows, listed_names
from lmmcl.tasks.papers.easier.similar_classes import nearest
from lmmcl.tasks.papers.prompts import LETTERS, SEE_PAGE, make_example, multiple_choice

if TYPE_CHECKING:
    from lmmcl.tasks.hub.client import Hub

ENDING = ".by_name"
QUESTION = "What is shown in this image?"
SKILL = f"imagenet_vqa{ENDING}"
IMAGENET = listed_names("clip-benchmark/wds_imagenet1k")


def name_rows(hub: Hub, source: HubSource, *, names: ClassNames, key: str) -> Iterator[Row]:
    """Labelled rows, each with the names most similar to that of its class."""
    listed = names(hub)
    similar = nearest(hub.encoder(), listed, classes.SIMILAR)
    for row in labelled_rows(hub, source, listed, key):
        yield {**row, "similar": similar[row["class"]]}


def read(row: Row) -> Example:
    """One question; options and their order follow from the row's id."""
    right, choices = row["class"], choices_of(row)
    answer = LETTERS[choices.index(right)]
    return make_example(row["id"], multiple_choice(QUESTION, choices), answer, image_of(row), class_name=right)


def source(key: str, hub: str, split: str, names: ClassNames, licence: str) -> HubSource:
    """A split of a classification data set as questions of this form."""
    return HubSource(hub, split, read, licence=licence, rows=partial(name_rows, names=names, key=key))


def benchmark(name: str, of: HubSource, image: str, title: str) -> HubBenchmark:
    """A benchmark of this form."""
    return classes.benchmark(f"{name}{ENDING}", 1, of, image, f"{title}, among classes of similar names", skill=SKILL)


VALIDATION = benchmark(
    "imagenet_vqa",
    source("imagenet_vqa", "ILSVRC/imagenet-1k", "validation", IMAGENET, classes.RESEARCH),
    "id",
    "ImageNet validation images",
)
SKILLS = (
    hub_skill(
        SKILL,
        1,
        source("imagenet_vqa-train", "ILSVRC/imagenet-1k", "train", IMAGENET, classes.RESEARCH),
        VALIDATION,
        "ImageNet classes among those of similar names (1.28 M images; gated: accept its terms first)",
    ),
)
BENCHMARKS = (
    benchmark(
        "imagenet_v2",
        source("imagenet_v2", "clip-benchmark/wds_imagenetv2", "test", IMAGENET, "MIT"),
        "id",
        "ImageNetV2",
    ),
    *(
        benchmark(name, source(name, hub, "test", listed_names(hub), SEE_PAGE), "ood", title)
        for name, hub, title in (
            ("flowers102", classes.FLOWERS, "Flowers102"),
            ("caltech101", classes.CALTECH101, "Caltech101"),
            ("stanford_cars", classes.STANFORD_CARS, "Stanford Cars"),
        )
    ),
)
