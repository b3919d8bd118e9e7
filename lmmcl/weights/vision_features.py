"""Features of images that a frozen vision tower and projector made, kept on disk for every trial, stage and evaluation.

What is kept is the result of one whole call (all images of a batch), by a digest of everything that it depends on: the weights of
tower and projector, the pixels and sizes that the processor made of the pictures, precision, attention, device, threads and
libraries. The same call gives the same bits, so a result that is read back is the one that would be worked out. A picture in
another batch is worked out again: matrix products of other sizes are rounded otherwise.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.models.experts import roles_in
from lmmcl.models.lmm import LMM
from lmmcl.steps.frozen_vision import FAMILIES, can_cache, is_vision
from lmmcl.weights.delta import digest_tensor
from lmmcl.weights.quantized_base import named_tensors
from lmmcl.weights.tensor_folder import TensorFolder

if TYPE_CHECKING:
    from torch import Tensor

    from lmmcl.weights.checkpoint import Loaded

log = logging.getLogger("lmmcl")

METHOD = "get_image_features"
VERSION = 1
"""Raised when what is kept, or what it depends on, changes."""
MEMORY_BYTES = 256 * 2**20


class FeatureStore:
    """Features below `folder`, at most `gigabytes` of them; the last ones in memory, too. When the folder is full, or its disk
    is, what is not there is worked out each time."""

    def __init__(self, folder: Path, gigabytes: float, writers: int = 1) -> None:
        self._files = TensorFolder(folder, gigabytes, writers, what="features of images")
        self._recent: OrderedDict[str, list[Tensor]] = OrderedDict()
        self._bytes = 0

    def read(self, key: str) -> list[Tensor] | None:
        """What was kept as `key`, or None."""
        if key in self._recent:
            self._recent.move_to_end(key)
            return self._recent[key]
        if (tensors := self._files.read(_name(key))) is None:
            return None
        features = [tensors[str(number)] for number in range(len(tensors))]
        self._remember(key, features)
        return features

    def keep(self, key: str, features: Sequence[Tensor]) -> None:
        """Keep `features`, where there is room."""
        own = [tensor.detach().to("cpu", copy=True).contiguous() for tensor in features]
        self._remember(key, own)
        self._files.keep(_name(key), {str(number): tensor for number, tensor in enumerate(own)})

    def _remember(self, key: str, features: list[Tensor]) -> None:
        size = sum(tensor.nbytes for tensor in features)
        if size > MEMORY_BYTES:
            return
        self._recent[key] = features
        self._bytes += size
        while self._bytes > MEMORY_BYTES:
            _, dropped = self._recent.popitem(last=False)
            self._bytes -= sum(tensor.nbytes for tensor in dropped)


def _name(key: str) -> str:
    return f"{key[:2]}/{key}"


class KeptFeatures:
    """Stands in the place of a model's method; `read` and `encoded` count calls that were answered from the store or not."""

    def __init__(self, owner: Any, vision: Sequence[Any], digest: str, store: FeatureStore) -> None:
        self.owner, self.vision, self.digest, self.store = owner, list(vision), digest, store
        self.read = self.encoded = 0
        self.__signature__ = inspect.signature(getattr(type(owner), METHOD).__get__(owner))  # `generate` looks at it

    def fields(self) -> dict[str, dict[str, int]]:
        """For the record of a stage."""
        return {"image_features": {"read": self.read, "encoded": self.encoded}}

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy of the model works out its own: whoever copies it may change it."""
        owner = memo[id(self.owner)]
        return getattr(type(owner), METHOD).__get__(owner)

    def __call__(self, *args: Any, **more: Any) -> Any:
        work = getattr(type(self.owner), METHOD)
        key = None if any(module.training for module in self.vision) else call_key(self.digest, args, more)
        if key is None:
            return work(self.owner, *args, **more)
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        if (kept := self.store.read(key)) is not None:
            self.read += 1
            device = next(value.device for value in [*args, *more.values()] if hasattr(value, "device"))
            features: Any = tuple(tensor.to(device) for tensor in kept)
            return BaseModelOutputWithPooling(pooler_output=features)
        result = work(self.owner, *args, **more)
        self.encoded += 1
        features = result.pooler_output
        if not any(tensor.requires_grad for tensor in features):
            self.store.keep(key, features)
        return result


def call_key(digest: str, args: Sequence[Any], more: Mapping[str, Any]) -> str | None:
    """The name of a call's result; None for a call that gives more than features, or whose arguments have no such name."""
    import torch

    if not more.get("return_dict") or more.get("output_hidden_states") or more.get("output_attentions"):
        return None
    parts: list[str] = [digest, f"grad={torch.is_grad_enabled()}"]
    for kind in ("cpu", "cuda"):
        if torch.is_autocast_enabled(kind):
            parts.append(f"autocast {kind} {torch.get_autocast_dtype(kind)}")
    for name, value in [*enumerate(args), *sorted(more.items())]:
        if isinstance(value, torch.Tensor):
            parts.append(f"{name}={value.device.type}:{digest_tensor(value)}")
        elif (text := _plain(value)) is not None:
            parts.append(f"{name}={text}")
        else:
            return None
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _plain(value: Any) -> str | None:
    try:
        return json.dumps(value)
    except TypeError:
        return None


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
    model: Any = loaded.model
    inner = getattr(model, "model", None)
    if not can_cache(lmm) or inner is None or not hasattr(type(inner), METHOD):
        log.info("features of images are not kept for %s: its family is not one of %s", lmm.name, ", ".join(FAMILIES))
        return None
    vision = {name for name, role in (roles or roles_in(lmm, model)).items() if is_vision(role)}
    tensors = named_tensors(model)
    holders = {name.rpartition(".")[0] for name in vision}
    buffers = {name for name in tensors if name not in vision and name.rpartition(".")[0] in holders}
    names = sorted(vision | buffers)
    if vision & {*learns, *loaded.changed} or any(name not in loaded.base.digests for name in names):
        return None
    digest = _digest(model, {name: loaded.base.digests[name] for name in names})
    modules = [model.get_submodule(name) for name in sorted(holders)]
    kept = KeptFeatures(inner, modules, digest, store)
    setattr(inner, METHOD, kept)
    return kept


def _digest(model: Any, digests: Mapping[str, str]) -> str:
    """What features depend on besides the images."""
    import torch
    import transformers

    device = next(model.parameters()).device
    parts = {
        "version": VERSION,
        "weights": digests,
        "config": model.config.to_dict(),
        "class": type(model).__name__,
        "attention": [model.config._attn_implementation, *_attention_of_parts(model)],
        "dtype": str(model.dtype),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "libraries": [torch.__version__, transformers.__version__],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _attention_of_parts(model: Any) -> list[str]:
    configs = [getattr(model.config, name, None) for name in ("vision_config", "text_config")]
    return [str(getattr(config, "_attn_implementation", "")) for config in configs]


_STORES: dict[tuple[str, float], FeatureStore] = {}


def feature_store(folder: str, gigabytes: float, writers: int = 1) -> FeatureStore:
    """The store in a folder: one a process, which remembers what it read last."""
    path = Path(folder).expanduser()
    return _STORES.setdefault((str(path), gigabytes), FeatureStore(path, gigabytes, writers))
