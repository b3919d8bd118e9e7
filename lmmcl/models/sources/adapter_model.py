"""An adapter folder as a model: what PEFT, TRL and LLaMA-Factory leave, merged into its base at load."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.errors import UserError, shown
from lmmcl.models.configured import json_digest
from lmmcl.models.inputs.model_settings import ModelSettings
from lmmcl.models.linears import meta_of
from lmmcl.models.lmm import LMM
from lmmcl.models.model_folder import ADAPTER
from lmmcl.models.sources.adapter_merge import ADAPTER_WEIGHTS, merge_adapter, read_adapter_config, tensor_shapes
from lmmcl.models.sources.adapter_modules import match_names
from lmmcl.models.sources.derived import DerivedLMM
from lmmcl.tasks.files.digest import DigestCache, state_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger("lmmcl")

ELSEWHERE = ("base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version")
"""Settings that say where an adapter comes from, and not what it computes."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class AdapterModel(DerivedLMM):
    """The adapter in `directory`, an absolute path, over `base`. Equal content over an equal base is the same model."""

    directory: Path
    base: LMM

    @property
    def place(self) -> str:
        """How messages call it."""
        return f"adapter {self.directory}"

    @cached_property
    def digest(self) -> str:
        """SHA-256 that stands for what the adapter computes: its tensors, and the settings that scale them."""
        (weights,) = DigestCache().digests([state_of(self.directory / ADAPTER_WEIGHTS)])
        config = read_adapter_config(self.directory, self.place)
        settings = {name: value for name, value in config.items() if name not in ELSEWHERE and value is not None}
        return json_digest({"weights": weights, "settings": settings})

    @property
    def name(self) -> str:  # type: ignore[override]
        """The directory's own name and the beginning of the digest."""
        own = re.sub(r"[^A-Za-z0-9_.-]", "_", self.directory.name).lstrip(".-_") or "adapter"
        return f"{own}-{self.digest[:8]}"

    @property
    def label(self) -> str:
        return f"{self.base.label}-adapter-{self.digest[:12]}"

    @property
    def reference(self) -> str:
        return f"{self.directory}::{self.base.reference}"

    @property
    def description(self) -> str:
        """For lists."""
        return f"adapter in {self.directory} over {self.base.name}"

    def identity(self) -> dict[str, Any]:
        return {"base": self.base.identity(), "adapter": self.digest}

    def with_thinking(self) -> LMM:
        return replace(self, base=self.base.with_thinking())

    def with_settings(self, settings: ModelSettings) -> LMM:
        return replace(self, base=self.base.with_settings(settings))

    def about(self) -> dict[str, str]:
        return {"adapter": str(self.directory), "digest": self.digest, "base": self.base.name, **self.base.about()}

    def role_counts(self) -> dict[str, int]:
        """Those of the base. Raises UserError when the adapter does not fit it, so that a plan tells it; remembered."""
        counts = self.base.role_counts()
        key, cache = json_digest(["adapter", self.digest, self.base.identity()]), DigestCache()
        if cache.recall(key) is None:
            match_names(meta_of(self.base), tensor_shapes(self.directory, self.place), self.place)
            cache.remember(key, "yes")
        return counts

    def load_model(self, *, precision: str = "fp32", device: str = "cpu", attention: str = "sdpa") -> PreTrainedModel:
        model = self.base.load_model(precision=precision, device=device, attention=attention)
        return merge_adapter(model, self.directory, self.place)


def is_adapter(directory: Path) -> bool:
    """Whether a directory holds an adapter and no model."""
    return (directory / ADAPTER).is_file() and not any(directory.glob("model*.safetensors*"))


def adapter_model(directory: Path, base: str | None, find: Callable[[str], LMM]) -> AdapterModel:
    """The adapter in `directory` over the model `base`, by default the one that its configuration names.

    `find` gives a model by its name. Raises UserError, with what to do, where the base is not to be had or another one.
    """
    place = f"adapter {directory}"
    if not directory.is_dir():
        raise UserError("No such directory", file=place)
    if not (directory / ADAPTER).is_file():
        raise UserError(f"no {ADAPTER} found{_inside(directory)}", file=place)
    config = read_adapter_config(directory, place)
    if not (directory / ADAPTER_WEIGHTS).is_file():
        old = "; there is adapter_model.bin, which is not read: save it with `save_pretrained` again, which writes safetensors"
        raise UserError(
            f"no {ADAPTER_WEIGHTS} found{old if (directory / 'adapter_model.bin').is_file() else ''}", file=place
        )
    named = str(config.get("base_model_name_or_path") or "")
    revision = f"@{config['revision']}" if config.get("revision") else ""
    if base is not None:
        base_model = find(base)
        _check_named(named, base_model, place)
    else:
        base_model = _named_base(named, revision, find, place)
    model = AdapterModel(directory, base_model)
    _tell_of_template(model)
    return model


def _named_base(named: str, revision: str, find: Callable[[str], LMM], place: str) -> LMM:
    remedy = "; name the base yourself: {adapter: FOLDER, base: MODEL}"
    if not named:
        raise UserError(f"{ADAPTER} names no base model{remedy}", file=place)
    try:
        return find(named + (revision if HUB_ID.fullmatch(named) and not Path(named).is_dir() else ""))
    except UserError as error:
        raise UserError(f"its base model {shown(named)} is not to be had here ({error}){remedy}", file=place) from error


def _check_named(named: str, base: LMM, place: str) -> None:
    """Raises UserError when the adapter names another model of the hub than the base is."""
    hub = getattr(base.plain, "hub", None)
    if hub and HUB_ID.fullmatch(named) and not Path(named).is_dir() and hub.lower() != named.lower():
        raise UserError(
            f"was trained on {named}, and the base is {hub}. Name {named} as the base; if both hold the same weights, write "
            f"{hub} as base_model_name_or_path into {ADAPTER}",
            file=place,
        )


def _inside(directory: Path) -> str:
    """Adapters in folders below: a trainer's output folder holds checkpoints."""
    below = sorted(path.parent.name for path in directory.glob(f"*/{ADAPTER}"))
    return f"; there is one in {', '.join(below[:5])}: name that folder" if below else ""


def _tell_of_template(model: AdapterModel) -> None:
    """A chat template beside the adapter is not used: the base's is, and where they differ the user must know."""
    own, base = model.directory / "chat_template.jinja", getattr(model.base, "file", lambda name: None)
    theirs = base("chat_template.jinja")
    if own.is_file() and theirs is not None and own.read_text("utf-8").strip() != theirs.read_text("utf-8").strip():
        log.warning("%s: its chat template differs from the base's, and the base's is used", model.place)
