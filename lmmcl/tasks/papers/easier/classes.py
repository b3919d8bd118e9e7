"""Which class is in the image, of four: ImageNet-VQA, ImageNetV2, Flowers102, Caltech101, Stanford Cars.

"Fine-tuning MLLMs Without Forgetting Is Easier Than You Think" (arXiv 2603.14493), the upper row of its 2×2: the same kind of
question about images of the trained kind (ImageNet, ImageNetV2) and of others, in the authors' words
(data/processors/*_to_vqa_json.py). The wrong options are three of the five wrong classes that CLIP finds most like the image; which
three, and the order of the four, follow from the row. `….by_name` are the same images as lmmcl asked about them before:
among classes whose *names* are alike, in other words (`by_name.py`).

Example row: "<image> What is the class of this image? Please answer with a single letter (A, B, C or D). A. hammerhead B. tench …"
→ "B"
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from lmmcl.errors import UserError
from lmmcl.tasks.examples import Example
from lmmcl.tasks.hub.hub_data import HubBenchmark, HubSource, Row, hub_benchmark, hub_skill
from lmmcl.tasks.images import TOO_LARGE, TooManyPixels
from lmmcl.tasks.papers.easier.similar_classes import SimilarClasses
from lmmcl.tasks.papers.prompts import LETTERS, SEE_PAGE, deterministic_shuffle, make_example, options, picture

if TYPE_CHECKING:
    from lmmcl.tasks.hub.client import Hub

ONE_LETTER = "Please answer with a single letter (A, B, C or D)."
QUESTION = f"What is the class of this image? {ONE_LETTER}"
CALTECH = f"What is the object category in this image? {ONE_LETTER}"
CARS = f"What is the make and model of the car in this image? {ONE_LETTER}"
SIMILAR, WRONG = 5, 3
AT_ONCE = 256
"""Images that are compared with all classes at the same time."""

ClassNames = Callable[["Hub"], list[str]]


def imagenet_names(hub: Hub) -> list[str]:
    """The first synonym of each ImageNet class: "tench" of "tench, Tinca tinca"."""
    labels = hub.labels("ILSVRC/imagenet-1k", "validation", "label")
    return [label.partition(",")[0].strip() for label in labels]


def listed_names(repository: str) -> ClassNames:
    """The classes that a data set of clip-benchmark lists."""
    return partial(_listed, repository)


def _listed(repository: str, hub: Hub) -> list[str]:
    lines = hub.file(repository, "classnames.txt").read_text(encoding="utf-8").splitlines()
    return [name.strip() for name in lines if name.strip()]


def labelled_rows(hub: Hub, source: HubSource, names: list[str], key: str) -> Iterator[Row]:
    """Rows with an id, and their class by name."""
    for number, row in enumerate(replace(source, rows=None).all_rows(hub)):
        index = row["label_id"] if "label_id" in row else row["cls"]
        if index >= 0:  # the test split of ImageNet keeps its labels to itself
            yield {**row, "id": f"{key}-{number}", "class": names[index]}


def class_rows(hub: Hub, source: HubSource, *, names: ClassNames, key: str) -> Iterator[Row]:
    """Labelled rows, each with the wrong classes most similar to its image."""
    classes = names(hub)
    alike = SimilarClasses(hub.encoder(), classes, hub.downloads / "similar")
    rows = labelled_rows(hub, source, classes, key)
    while batch := list(islice(rows, AT_ONCE)):
        similar_names = alike.of([picture(image_of(row)).data for row in batch])
        for row, similar in zip(batch, similar_names, strict=True):
            if isinstance(similar, TooManyPixels):
                yield {**row, "left_out": TOO_LARGE}
            elif isinstance(similar, UserError):
                raise similar.at(place=f"row {row['id']}")
            else:
                wrong = [name for name in similar if name != row["class"]]
                yield {**row, "similar": wrong[:SIMILAR]}


def choices_of(row: Row) -> list[str]:
    """The right class and three of the similar ones; which, and their order, follow from the row's id."""
    right, key = row["class"], row["id"]
    return deterministic_shuffle([right, *deterministic_shuffle(row["similar"], key)[:WRONG]], f"{key}/order")


def read_class(row: Row, question: str = QUESTION) -> Example:
    """One question; it ends in its options."""
    right, choices = row["class"], choices_of(row)
    text = f"{question}\n{options(choices)}"
    return make_example(row["id"], text, LETTERS[choices.index(right)], image_of(row), class_name=right)


def image_of(row: Row) -> Mapping:
    """The image of a row, under whichever name its container gives it."""
    return next(row[name] for name in ("image", "webp", "jpg", "jpeg", "png") if row.get(name) is not None)


def classes(
    key: str, hub: str, split: str, names: ClassNames, licence: str, question: str = QUESTION, note: str = ""
) -> HubSource:
    """A split of a classification data set as questions."""
    rows, read = partial(class_rows, names=names, key=key), partial(read_class, question=question)
    return HubSource(hub, split, read, licence=licence, note=note, rows=rows)


def benchmark(
    name: str, version: int, source: HubSource, image: str, description: str, *, skill: str = "imagenet_vqa"
) -> HubBenchmark:
    """A cell of the 2×2 in the row whose text is that of the training."""
    tags = {skill: {"image": image, "text": "id"}}
    return hub_benchmark(name, version, "letter", source, max_new_tokens=8, description=description, tags=tags)


RESEARCH = "non-commercial research and education"
FLOWERS, CALTECH101 = "clip-benchmark/wds_vtab-flowers", "clip-benchmark/wds_vtab-caltech101"
STANFORD_CARS = "clip-benchmark/wds_cars"
VALIDATION = benchmark(
    "imagenet_vqa",
    2,
    classes("imagenet_vqa", "ILSVRC/imagenet-1k", "validation", imagenet_names, RESEARCH),
    "id",
    "ImageNet validation images, one of four classes that look alike",
)
FLOWERS102 = benchmark(
    "flowers102",
    2,
    classes("flowers102", FLOWERS, "test", listed_names(FLOWERS), SEE_PAGE),
    "ood",
    "Flowers102, the same question",
)
SKILLS = (
    hub_skill(
        "imagenet_vqa",
        2,
        classes("imagenet_vqa-train", "ILSVRC/imagenet-1k", "train", imagenet_names, RESEARCH),
        VALIDATION,
        "ImageNet classes among those that look alike (1.28 M images; gated: accept its terms first)",
    ),
    hub_skill(
        "flowers102",
        1,
        classes(
            "flowers102-train",
            FLOWERS,
            "train",
            listed_names(FLOWERS),
            SEE_PAGE,
            note="the authors mix in a training split of their own; only its name is known",
        ),
        FLOWERS102,
        "Flowers102, for data-hybrid training (about 1 k images)",
    ),
)
BENCHMARKS = (
    benchmark(
        "imagenet_v2",
        2,
        classes("imagenet_v2", "clip-benchmark/wds_imagenetv2", "test", imagenet_names, "MIT"),
        "id",
        "ImageNetV2, the same question",
    ),
    FLOWERS102,
    benchmark(
        "caltech101",
        2,
        classes("caltech101", CALTECH101, "test", listed_names(CALTECH101), SEE_PAGE, CALTECH),
        "ood",
        "Caltech101, which object category",
    ),
    benchmark(
        "stanford_cars",
        2,
        classes("stanford_cars", STANFORD_CARS, "test", listed_names(STANFORD_CARS), SEE_PAGE, CARS),
        "ood",
        "Stanford Cars, which make and model",
    ),
)
