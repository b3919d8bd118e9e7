"""Features of images that a frozen vision tower and projector made: each picture once, for every trial, stage and evaluation.

A picture is named by a digest of all that its features depend on: the weights of tower and projector, the pixels and the size that
the processor made of it, precision, autocast, attention, device, threads and libraries. It is worked out by itself, so that neither
its batch nor what was kept before changes a bit of it; what a whole batch gives in one call differs from that by rounding.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lmmcl.models.lmm import LMM
from lmmcl.steps.frozen_vision import FAMILIES
from lmmcl.weights.fast_digest import fast_digest
from lmmcl.weights.image_features.feature_store import FeatureStore
from lmmcl.weights.image_features.frozen_tower import frozen_tower, makes_features
from lmmcl.weights.image_features.pictures import METHOD, Picture, signature_of, take_apart

if TYPE_CHECKING:
    from torch import Tensor

    from lmmcl.weights.checkpoint import Loaded

log = logging.getLogger("lmmcl")

VERSION = 3
"""Raised when what is kept, or what it depends on, changes."""


class KeptFeatures:
    """Stands in the place of a model's method; `read` and `encoded` count pictures that the store had and had not."""

    def __init__(self, owner: Any, family: str, vision: Sequence[Any], digest: str, store: FeatureStore) -> None:
        self.owner, self.family, self.vision, self.digest, self.store = owner, family, list(vision), digest, store
        self.read = self.encoded = 0
        self.__signature__ = signature_of(owner)  # `generate` looks at it

    def fields(self) -> dict[str, dict[str, int]]:
        """For the record of a stage or an evaluation: the counts since they were last asked for."""
        counts = {"read": self.read, "encoded": self.encoded}
        self.read = self.encoded = 0
        return {"image_features": counts}

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy of the model works out its own: whoever copies it may change it."""
        owner = memo[id(self.owner)]
        return getattr(type(owner), METHOD).__get__(owner)

    def __call__(self, *args: Any, **more: Any) -> Any:
        training = any(module.training for module in self.vision)  # there may be dropout
        pictures = None if training else take_apart(self.owner, self.family, args, more)
        if pictures is None:
            return getattr(type(self.owner), METHOD)(self.owner, *args, **more)
        import torch
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        # Training and evaluation are to have the same bits, and may use what the other made: no graph, no inference tensors.
        with torch.inference_mode(False), torch.no_grad():
            conditions = _conditions(self.digest, pictures)
            features: dict[str, Tensor] = {}
            keys = [_name(conditions, picture) for picture in pictures]
            for key, picture in zip(keys, pictures, strict=True):
                if key in features:
                    self.read += 1
                else:
                    features[key] = self._features(key, picture)
        return BaseModelOutputWithPooling(pooler_output=tuple(features[key] for key in keys))  # type: ignore[arg-type]

    def _features(self, key: str, picture: Picture) -> Tensor:
        """Those of one picture, on its device: kept ones, or worked out and kept."""
        if (kept := self.store.read(key)) is not None:
            self.read += 1
            return kept.to(next(iter(picture.tensors.values())).device)
        result = getattr(type(self.owner), METHOD)(self.owner, **picture.arguments)
        (features,) = result.pooler_output
        self.encoded += 1
        self.store.keep(key, features)
        return features


def _conditions(digest: str, pictures: Sequence[Picture]) -> str:
    """All that features depend on besides the picture: the model's digest, and how it computes now."""
    import torch

    if not pictures:
        return digest
    device = next(iter(pictures[0].tensors.values())).device
    autocast = {
        kind: str(torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)
    }
    parts = {
        "model": digest,
        "autocast": autocast,
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
    }
    return json.dumps(parts, sort_keys=True)


def _name(conditions: str, picture: Picture) -> str:
    """The key of a picture's features."""
    digests = {name: fast_digest(tensor) for name, tensor in picture.tensors.items()}
    text = json.dumps([conditions, digests, dict(picture.settings)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def attach_features(
    lmm: LMM,
    loaded: Loaded,
    store: FeatureStore,
    roles: Mapping[str, str] | None = None,
    learns: Sequence[str] = (),
) -> KeptFeatures | None:
    """Let a loaded checkpoint read features that were made before; None, and nothing is changed, where it cannot.

    It can where its family works them out in one call, and its vision tower and projector are the base's, with nothing added, and
    are not among what `learns`. `roles` are those of its parameters, where adapters have changed their names.
    """
    if not makes_features(lmm, loaded):
        log.info("features of images are not kept for %s: its family is not one of %s", lmm.name, ", ".join(FAMILIES))
        return None
    if (tower := frozen_tower(lmm, loaded, roles, learns)) is None:
        return None
    digest = _digest(loaded.model, tower.owner, {name: loaded.base.digests[name] for name in tower.tensors})
    kept = KeptFeatures(tower.owner, lmm.family, tower.modules, digest, store)
    setattr(tower.owner, METHOD, kept)
    return kept


def kept_features_of(model: Any) -> KeptFeatures | None:
    """What stands in the place of a model's method; None where it works its features out each time."""
    method = vars(getattr(model, "model", model)).get(METHOD)
    return method if isinstance(method, KeptFeatures) else None


def _digest(model: Any, inner: Any, digests: Mapping[str, str]) -> str:
    """What features depend on in the model."""
    import torch
    import transformers

    parts = {
        "version": VERSION,
        "weights": digests,
        "config": model.config.to_dict(),
        "class": [type(model).__name__, type(inner).__name__],
        "attention": [model.config._attn_implementation, *_attention_of_parts(model)],
        "dtype": str(model.dtype),
        "libraries": [torch.__version__, transformers.__version__],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _attention_of_parts(model: Any) -> list[str]:
    configs = [getattr(model.config, name, None) for name in ("vision_config", "text_config")]
    return [str(getattr(config, "_attn_implementation", "")) for config in configs]
