"""Models of the hub by short names: hub id, pinned revision, architecture; configuration and inventory ship with us."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.errors import UserError
from lmmcl.models.architecture import Architecture
from lmmcl.models.families.generic import generic_roles
from lmmcl.models.inputs.model_settings import AS_IT_COMES, ModelSettings, text_width
from lmmcl.models.inventory import meta_model, shipped
from lmmcl.models.lmm import LMM
from lmmcl.models.model_folder import PROCESSOR_FILES
from lmmcl.models.pretrained import PretrainedLMM

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONFIG, INDEX, WEIGHTS = "config.json", "model.safetensors.index.json", "model.safetensors"
PROCESSOR = ("processor_config.json", "preprocessor_config.json")


@dataclass(frozen=True)
class HubModel(PretrainedLMM):
    """A checkpoint of the hub at one revision (a commit, so that the name always means the same weights)."""

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

    @property
    def reference(self) -> str:
        return self.named(self.name)

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "hub": self.hub, "revision": self.revision, **self.reading()}

    def about(self) -> dict[str, str]:
        return {"hub": self.hub, "revision": self.revision, **super().about()}

    def role_counts(self) -> dict[str, int]:
        facts = shipped(self.name)
        return self.settings.counts(dict(facts["roles"]), text_width(facts["config"]))

    def _own_roles(self, names: Iterable[str]) -> dict[str, str]:
        """By the rules of the family's file; where it has none, by the modules that the shipped configuration describes."""
        if self.rules:
            return super()._own_roles(names)
        roles = generic_roles(meta_model(shipped(self.name)["config"]), place=f"model {self.name}")
        return {name: roles[name] for name in names}

    def load_model(self, *, precision: str = "fp32", device: str = "cpu", attention: str = "sdpa") -> PreTrainedModel:
        model = super().load_model(precision=precision, device=device, attention=attention)
        loaded, said = sum(p.numel() for p in model.parameters()), sum(self.role_counts().values())
        if loaded != said:  # costs were planned with other numbers; roles follow from the loaded names in any case
            message = f"{self.name} has {loaded:,} parameters; its shipped inventory says {said:,}"
            warnings.warn(message, UserWarning, stacklevel=2)
        return model

    def source(self) -> dict[str, Any]:
        """With `local_files_only` when all is in the cache: then the network is not used."""
        local = {"local_files_only": True} if not self._missing() else {}
        return {"pretrained_model_name_or_path": self.hub, "revision": self.revision, **local}

    def file(self, name: str) -> Path | None:
        """One file in the local cache, or None when it is not there."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.hub, name, revision=self.revision)
        return Path(found) if isinstance(found, str) else None

    def files(self) -> Path:
        """All files that make the processor, also those that we read none of; what is in the cache where there is no hub."""
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(self.hub, revision=self.revision, allow_patterns=list(PROCESSOR_FILES)))

    def check(self) -> None:
        """Raises UserError unless the files are in the cache or the hub gives them; downloads nothing."""
        if missing := self._missing():
            from huggingface_hub import is_offline_mode

            if is_offline_mode():
                some = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
                raise self._absent(f"not in the local cache ({some}) and HF_HUB_OFFLINE is set")
            self._ask_hub()

    def _ask_hub(self) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import GatedRepoError, HTTPError  # the HTTP library's own, whichever it is

        try:
            HfApi().auth_check(self.hub)
            HfApi().model_info(self.hub, revision=self.revision, timeout=20)
        except GatedRepoError as error:
            raise self._absent("gated: accept its terms on its page, then set HF_TOKEN") from error
        except (HTTPError, OSError) as error:
            raise self._absent(
                f"not in the local cache, and the hub cannot be reached ({type(error).__name__})"
            ) from error

    def _absent(self, why: str) -> UserError:
        return UserError(
            f"{self.hub} at revision {self.revision}: {why}; fetch it where there is a network with "
            f"`hf download {self.hub} --revision {self.revision}` (HF_HOME names the cache), "
            "or name a local save_pretrained directory as the model",
            file=f"model {self.name}",
        )

    def _missing(self) -> list[str]:
        """The files that loading needs and the local cache does not hold."""
        missing = [name for name in (CONFIG, *self._weights()) if self.file(name) is None]
        if not any(self.file(name) for name in PROCESSOR):
            missing.append(PROCESSOR[1])
        return missing

    def _weights(self) -> Iterator[str]:
        index = self.file(INDEX)
        if index is None:
            yield WEIGHTS
        else:
            yield from sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
