"""Models of the hub: by short names with a pinned revision, configuration and inventory, or by any id."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.errors import UserError
from lmmcl.models.architecture import Architecture
from lmmcl.models.configured import ConfiguredLMM, read_config
from lmmcl.models.families.generic import generic_roles
from lmmcl.models.inputs.model_settings import AS_IT_COMES, ModelSettings, text_width
from lmmcl.models.inventory import meta_model, shipped, ships
from lmmcl.models.lmm import LMM
from lmmcl.models.model_folder import ADAPTER, CONFIG
from lmmcl.models.sources.hub_files import PROCESSOR, HubFiles, resolve

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class HubLMM(ConfiguredLMM):
    """A checkpoint of the hub at one commit, so that the name always means the same weights."""

    hub: str

    @property
    def commit(self) -> str:
        """The commit, 40 hexadecimal digits."""
        raise NotImplementedError

    @cached_property
    def hub_files(self) -> HubFiles:
        """Its files, in the cache or on the hub."""
        return HubFiles(self.hub, self.commit, self.place)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        folder = self.hub_files.folder()
        if not (folder / CONFIG).is_file() and (folder / ADAPTER).is_file():
            raise UserError(
                f"{self.hub} holds an adapter and no model; `hf download {self.hub} --local-dir FOLDER` fetches it, and "
                "FOLDER names it as the model",
                file=self.place,
            )
        return read_config(folder / CONFIG, self.place)

    @property
    def content(self) -> str:
        return f"{self.hub}@{self.commit}"

    @property
    def reference(self) -> str:
        return self.named(f"{self.hub}@{self.commit}")

    @property
    def has_weights(self) -> bool:
        return not self.hub_files.missing()

    def about(self) -> dict[str, str]:
        return {"hub": self.hub, "revision": self.commit, **super().about()}

    def source(self) -> dict[str, Any]:
        return {"pretrained_model_name_or_path": str(self.files()), "local_files_only": True}

    def file(self, name: str) -> Path | None:
        """One file in the local cache, or None when it is not there."""
        return self.hub_files.cached(name)

    def files(self) -> Path:
        """All files that make configuration and processor, fetched where they are missing."""
        return self.hub_files.folder()

    def check(self) -> None:
        """Raises UserError unless the files are in the cache or the hub gives them; downloads nothing."""
        self.hub_files.check()

    def check_processor(self) -> None:
        """As `check`, of all but the weights."""
        if set(self.hub_files.missing()) & {CONFIG, *PROCESSOR}:
            self.check()

    def load_model(self, *, precision: str = "fp32", device: str = "cpu", attention: str = "sdpa") -> PreTrainedModel:
        """As every model; the weights are downloaded where they are missing."""
        self.check()
        self.hub_files.fetch()
        return super().load_model(precision=precision, device=device, attention=attention)


@dataclass(frozen=True)
class HubModel(HubLMM):
    """A checkpoint with a short name. `revision` is its commit; empty where none was read in a citable place yet: then the one
    that the hub names at the first use is recorded."""

    name: str
    hub: str
    revision: str
    architecture: Architecture = field(repr=False)
    description: str = ""
    thinking: bool = False
    settings: ModelSettings = AS_IT_COMES

    def with_settings(self, settings: ModelSettings) -> LMM:
        settings.check(self.family)
        return replace(self, settings=settings, architecture=settings.seen_by(self.architecture))

    @cached_property
    def commit(self) -> str:
        return self.revision or resolve(self.hub, "", self.place)

    @property
    def place(self) -> str:
        return f"model {self.name}"

    @property
    def is_pinned(self) -> bool:
        """Whether its short name alone names the commit."""
        from lmmcl.registry import members

        return bool(self.revision) and members("lmmcl.models", "MODELS")[self.name].revision == self.revision

    @property
    def reference(self) -> str:
        return self.named(self.name) if self.is_pinned else super().reference

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "hub": self.hub, "revision": self.commit, **self.reading()}

    def about(self) -> dict[str, str]:
        if self.revision:
            return super().about()
        shapes = {"shapes": shipped(self.name)["source"]} if ships(self.name) else {}
        return {**shapes, "hub": self.hub, "revision": "the one that the hub names at the first use", **self.told()}

    @property
    def dropout_parts(self) -> tuple[str, ...]:
        return self.architecture.dropout if ships(self.name) else super().dropout_parts

    def role_counts(self) -> dict[str, int]:
        if not ships(self.name):
            return super().role_counts()
        facts = shipped(self.name)
        return self.settings.counts(dict(facts["roles"]), text_width(facts["config"]))

    def _own_roles(self, names: Iterable[str]) -> dict[str, str]:
        """By the rules of the family's file; where it has none, by the modules that the shipped configuration describes."""
        if self.rules or not ships(self.name):
            return super()._own_roles(names)
        roles = generic_roles(meta_model(shipped(self.name)["config"]), place=self.place)
        return {name: roles[name] for name in names}

    def load_model(self, *, precision: str = "fp32", device: str = "cpu", attention: str = "sdpa") -> PreTrainedModel:
        model = super().load_model(precision=precision, device=device, attention=attention)
        loaded, planned = sum(p.numel() for p in model.parameters()), sum(self.role_counts().values())
        if loaded != planned:  # costs were planned with other numbers; roles follow from the loaded names in any case
            message = f"{self.name} has {loaded:,} parameters; its shipped inventory says {planned:,}"
            warnings.warn(message, UserWarning, stacklevel=2)
        return model


@dataclass(frozen=True)
class HubCheckpoint(HubLMM):
    """Any model of the hub by its id, at a commit."""

    hub: str
    revision: str
    thinking: bool = False
    settings: ModelSettings = AS_IT_COMES

    @property
    def commit(self) -> str:
        return self.revision

    @property
    def place(self) -> str:
        return f"model {self.hub}"

    @property
    def name(self) -> str:  # type: ignore[override]
        """The id without its owner, and the beginning of the commit."""
        return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', self.hub.rpartition('/')[2])}-{self.revision[:8]}"

    @property
    def label(self) -> str:
        owner, _, name = re.sub(r"[^A-Za-z0-9_./-]", "_", self.hub).lstrip(".-_").partition("/")
        return f"{owner}--{name}-{self.revision[:12]}"

    @property
    def description(self) -> str:
        """For lists."""
        return f"{self.hub} at {self.revision[:12]}"

    def identity(self) -> dict[str, Any]:
        return {"hub": self.hub, "revision": self.revision, **self.reading()}
