"""Which class is in the image, of four: ImageNet-VQA, ImageNetV2, Flowers102, Caltech101, Stanford Cars.

"Fine-tuning MLLMs Without Forgetting Is Easier Than You Think" (arXiv 2603.14493), the upper row of its 2×2: the same
question about images of the trained kind (ImageNet, ImageNetV2) and of others. The class and three wrong ones, drawn from the
five that CLIP takes for most similar, in a fixed random order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from lmmcl.tasks.examples import Example
from lmmcl.tasks.hub.hub_data import HubBenchmark, HubSource, Row, hub_benchmark, hub_skill
from lmmcl.tasks.papers.easier.clip_names import nearest
from lmmcl.tasks.papers.prompts import LETTERS, SEE_PAGE, deterministic_shuffle, make_example, multiple_choice

if TYPE_CHECKING:
    from lmmcl.tasks.hub.client import Hub

QUESTION = "What is shown in this image?"
SIMILAR, WRONG = 5, 3
IMAGENET = "clip-benchmark/wds_imagenet1k"
"""Where the names of the ImageNet classes come from, for ImageNetV2 alike."""


def class_rows(hub: Hub, source: HubSource, *, names_of: str, key: str) -> Iterator[Row]:
    """Rows with their class by name, and the names most similar to it."""
    listed = hub.file(names_of, "classnames.txt").read_text(encoding="utf-8").splitlines()
    names = [name.strip() for name in listed if name.strip()]
    similar = nearest(names, hub.similarity(names), SIMILAR)
    for number, row in enumerate(replace(source, rows=None).all_rows(hub)):
        index = row["label_id"] if "label_id" in row else row["cls"]
        if index < 0:  # the test split of ImageNet keeps its labels to itself
            continue
        right = names[index]
        yield {**row, "id": f"{key}-{number}", "class": right, "similar": similar[right]}


def read_class(row: Row) -> Example:
    """One question; options and their order follow from the row's id."""
    right, key = row["class"], row["id"]
    choices = deterministic_shuffle([right, *deterministic_shuffle(row["similar"], key)[:WRONG]], f"{key}/order")
    return make_example(
        key, multiple_choice(QUESTION, choices), LETTERS[choices.index(right)], image_of(row), class_name=right
    )


def image_of(row: Row) -> Mapping:
    """The image of a row, under whichever name its container gives it."""
    return next(row[name] for name in ("image", "webp", "jpg", "jpeg", "png") if row.get(name) is not None)


def classes(name: str, hub: str, split: str, names_of: str, licence: str) -> HubSource:
    """A split of a classification data set as questions."""
    rows = partial(class_rows, names_of=names_of, key=name)
    return HubSource(hub, split, read_class, licence=licence, rows=rows)


def benchmark(name: str, source: HubSource, image: str, description: str) -> HubBenchmark:
    """A cell of the 2×2 in the row whose text is that of the training."""
    tags = {"imagenet_vqa": {"image": image, "text": "id"}}
    return hub_benchmark(name, 1, "letter", source, max_new_tokens=8, description=description, tags=tags)


RESEARCH = "non-commercial research and education"
VALIDATION = benchmark(
    "imagenet_vqa",
    classes("imagenet_vqa", "ILSVRC/imagenet-1k", "validation", IMAGENET, RESEARCH),
    "id",
    "ImageNet validation images, one of four similar classes",
)
SKILLS = (
    hub_skill(
        "imagenet_vqa",
        1,
        classes("imagenet_vqa-train", "ILSVRC/imagenet-1k", "train", IMAGENET, RESEARCH),
        VALIDATION,
        "ImageNet classes among similar ones (1.28 M images; gated: accept its terms first)",
    ),
)
BENCHMARKS = (
    benchmark(
        "imagenet_v2",
        classes("imagenet_v2", "clip-benchmark/wds_imagenetv2", "test", IMAGENET, "MIT"),
        "id",
        "ImageNetV2, the same question",
    ),
    *(
        benchmark(name, classes(name, hub, "test", hub, SEE_PAGE), "ood", f"{title}, the same question")
        for name, hub, title in (
            ("flowers102", "clip-benchmark/wds_vtab-flowers", "Flowers102"),
            ("caltech101", "clip-benchmark/wds_vtab-caltech101", "Caltech101"),
            ("stanford_cars", "clip-benchmark/wds_cars", "Stanford Cars"),
        )
    ),
)
