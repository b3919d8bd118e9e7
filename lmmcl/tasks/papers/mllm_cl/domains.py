"""The five domains of MLLM-CL: remote sensing, medicine, driving, science, finance.

Zhao et al. 2025 (MLLM-CL), the continual-learning track of "Fine-tuning MLLMs Without Forgetting Is Easier Than You Think"
(arXiv 2603.14493). Each domain is an archive with `train.json` (LLaVA dialogues), `test.json` (questions with an answer)
and the images. As in its own evaluation an answer is right when it holds the reference; an option's letter, and every
answer in finance, must be the same, and science scores lists of states by the share that is named.

Example row: "<image> How many buildings are there? Answer the question using a single word or phrase." → "4"
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lmmcl.errors import UserError
from lmmcl.tasks.examples import Example
from lmmcl.tasks.hub.hub_data import HubSkill, HubSource, Row, hub_benchmark, hub_skill
from lmmcl.tasks.papers.instructions import read_dialogue
from lmmcl.tasks.papers.prompts import make_example, with_image

if TYPE_CHECKING:
    from lmmcl.tasks.hub.client import Hub

HUB = "MLLM-CL/MLLM-CL"
NOTE = "names of files and fields as the benchmark's own code reads them; the archives were not at hand"


def domain_rows(hub: Hub, source: HubSource) -> Iterator[Row]:
    """The rows of one JSON file of a domain's archive; `config` names the archive."""
    folder = hub.archive(source.hub, f"{source.config}.tar.gz", revision=source.revision)
    file = found_below(folder, f"{source.split}.json")
    for number, row in enumerate(json.loads(file.read_text(encoding="utf-8"))):
        named = {**row, "id": row.get("id", row.get("question_id", number))}
        yield with_image(named, hub.named_image(row["image"], file.parent))


def found_below(folder: Path, name: str) -> Path:
    """The one file of this name; raises UserError when there is none."""
    matches = sorted(folder.rglob(name))
    if not matches:
        raise UserError(f"holds no {name}", file=str(folder))
    return matches[0]


def read_test(row: Row) -> Example:
    """A question with its answer."""
    return make_example(row["id"], row["text"], row["answer"], row["image"])


def domain(name: str, archive: str, metric: str, words: str) -> HubSkill:
    """A domain as a skill."""
    train = HubSource(HUB, "train", read_dialogue, config=archive, licence="Apache-2.0", note=NOTE, rows=domain_rows)
    test = HubSource(HUB, "test", read_test, config=archive, licence="Apache-2.0", note=NOTE, rows=domain_rows)
    benchmark = hub_benchmark(name, 1, metric, test, max_new_tokens=64, description=f"MLLM-CL: {words}")
    return hub_skill(name, 1, train, benchmark, f"MLLM-CL, domain {archive}: {words}")


SKILLS = (
    domain("mllm_cl_rs", "RS", "contains", "remote sensing"),
    domain("mllm_cl_med", "Med", "contains", "medical images"),
    domain("mllm_cl_ad", "AD", "contains", "autonomous driving"),
    domain("mllm_cl_sci", "Sci", "mllm_cl_science", "science"),
    domain("mllm_cl_fin", "Fin", "exact_match", "finance"),
)
