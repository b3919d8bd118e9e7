"""Captioning, scored by CIDEr: Flickr30k (a skill), COCO, TextCaps, NoCaps.

Model Tailor (arXiv 2402.12048): Flickr30k is one of the tasks taught, the others are among the original tasks. Asked in the
words of lmms-eval. All captions of an image are references; the first is taught. `blip_captions` are what LMM-CL
(arXiv 2510.08564) probes: the first 1,000 dialogues of LLaVA's BLIP-558k, in their own words.

Example row: "<image> Provide a one-sentence caption for the provided image." → "A red dog on a plain background."
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lmmcl.tasks.examples import Example
from lmmcl.tasks.hub.hub_data import HubBenchmark, HubSource, Row, hub_benchmark, hub_skill
from lmmcl.tasks.papers.prompts import SEE_PAGE, make_example, with_image

if TYPE_CHECKING:
    from lmmcl.tasks.hub.client import Hub

CAPTION = "Provide a one-sentence caption for the provided image."
PROBED = 1000
"""LMM-CL, scripts/analysis/run_output_logit_iterations_inference.sh: --num-samples 1000."""


def captioned(id: object, captions: Sequence[str], image: Any) -> Example:
    """An image to be captioned."""
    sentences = [caption.strip() for caption in captions if caption.strip()]
    return make_example(id, CAPTION, sentences[0], image, sentences)


def flickr_rows(hub: Hub, source: HubSource) -> Iterator[Row]:
    """The rows of a split of Karpathy's (`train`, `val`, `test`) with their images, which lie in an archive."""
    table = hub.file(source.hub, "flickr_annotations_30k.csv", revision=source.revision)
    images = hub.archive(source.hub, "flickr30k-images.zip", revision=source.revision)
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] != source.split:
                continue
            yield with_image(row, hub.named_image(f"flickr30k-images/{row['filename']}", images))


def read_flickr(row: Row) -> Example:
    """`raw` is a JSON list of five captions."""
    return captioned(row["filename"], json.loads(row["raw"]), row["image"])


def read_coco(row: Row) -> Example:
    """COCO as lmms-eval keeps it: `answer` is the list of captions."""
    return captioned(row["question_id"], row["answer"], row["image"])


def read_textcaps(row: Row) -> Example:
    """TextCaps as lmms-eval keeps it."""
    return captioned(row["image_id"], row["caption_str"], row["image"])


def read_nocaps(row: Row) -> Example:
    """NoCaps as lmms-eval keeps it."""
    return captioned(row["image_file_name"], row["annotations_captions"], row["image"])


def blip_rows(hub: Hub, source: HubSource) -> Iterator[Row]:
    """The first dialogues with their images, which lie in a folder that `--images` names."""
    file = hub.file(source.hub, "blip_laion_cc_sbu_558k.json", revision=source.revision)
    for row in json.loads(file.read_text(encoding="utf-8"))[:PROBED]:
        yield with_image(row, hub.named_image(row["image"]))


def read_blip(row: Row) -> Example:
    """A request for a short description, and the caption."""
    request, caption = (turn["value"] for turn in row["conversations"][:2])
    return make_example(row["id"], request, caption, row["image"])


def captions(name: str, source: HubSource, description: str) -> HubBenchmark:
    """A captioning benchmark."""
    return hub_benchmark(name, 1, "cider", source, max_new_tokens=64, description=description)


def flickr(split: str) -> HubSource:
    """A split of Flickr30k."""
    return HubSource(
        "nlphuji/flickr30k",
        split,
        read_flickr,
        revision="2b239befc81b6e3f035ce6bd52f5f4d60f5625f7",
        licence="images by their Flickr licences, non-commercial research",
        rows=flickr_rows,
    )


BENCHMARK = captions("flickr30k", flickr("test"), "Flickr30k captions (1,000 images)")
SKILLS = (hub_skill("flickr30k", 1, flickr("train"), BENCHMARK, "captions of Flickr30k (29,000 images)"),)
BENCHMARKS = (
    captions(
        "blip_captions",
        HubSource(
            "liuhaotian/LLaVA-Pretrain",
            "train",
            read_blip,
            licence=SEE_PAGE,
            note="images by `--images`, a folder with the unpacked images.zip",
            rows=blip_rows,
        ),
        "captions of BLIP-558k (its first 1,000), for probes",
    ),
    captions(
        "coco_caption",
        HubSource("lmms-lab/COCO-Caption2017", "val", read_coco, licence="captions CC BY 4.0"),
        "COCO captions (validation 2017)",
    ),
    captions(
        "textcaps",
        HubSource("lmms-lab/TextCaps", "val", read_textcaps, licence="CC BY 4.0"),
        "TextCaps: captions that read (validation)",
    ),
    captions(
        "nocaps",
        HubSource("lmms-lab/NoCaps", "validation", read_nocaps, licence="CC BY 2.0"),
        "NoCaps: captions of objects that COCO lacks (validation)",
    ),
)
