"""The licence of a base model as its own card says; what no card says is not known."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path

from lmmcl.models.configured import ConfiguredLMM
from lmmcl.models.hub import HubLMM
from lmmcl.models.lmm import LMM
from lmmcl.models.local_model import LocalModel

CARD = "README.md"


@dataclass(frozen=True)
class Licence:
    """`id` as the hub names it; `name` and `link` of one that is `other`; `source` says where it was read."""

    id: str
    source: str
    name: str | None = None
    link: str | None = None


def licence_of(model: LMM, *, online: bool) -> Licence | None:
    """The licence in the card of `model`: beside its weights, in the hub's cache, or (`online`) on the hub; None if unknown, as
    where the hub does not show the card.

    Weights that come with lmmcl have its licence.
    """
    model = model.plain
    if isinstance(model, HubLMM):
        return _of_hub(model, online=online)
    if isinstance(model, LocalModel):
        return _of_card(model.directory / CARD, "its README.md")
    if isinstance(model, ConfiguredLMM):
        return None
    return Licence(metadata("lmmcl")["License-Expression"].lower(), "it comes with lmmcl")


def _of_hub(model: HubLMM, *, online: bool) -> Licence | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HTTPError  # the second: httpx's, or httpx2's from 2.0 on

    try:  # the cache is asked before the hub: the revision is a commit
        card = hf_hub_download(model.hub, CARD, revision=model.commit, local_files_only=not online)
    except (EntryNotFoundError, HTTPError):  # without a card, or offline; gated, renamed, deleted
        return None
    return _of_card(Path(card), f"the card of {model.hub}")


def _of_card(file: Path, source: str) -> Licence | None:
    from huggingface_hub import ModelCard

    if not file.is_file():
        return None
    data = ModelCard.load(file, ignore_metadata_errors=True).data
    if not isinstance(data.license, str):
        return None
    return Licence(data.license, source, data.license_name, data.license_link)
