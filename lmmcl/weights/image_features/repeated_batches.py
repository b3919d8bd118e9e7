"""Image features of batches that come again: a process that runs many trials of a small model sees the same pictures in each.

Trials of a sweep learn from the same rows in the same order and are asked the same questions in the same batches. Where vision
tower and projector are the base's, such a batch has the same features to the bit, so the process remembers them: in memory alone,
on a CPU, for models that stay loaded in any case (`SMALL_BYTES`). Those of large models are kept on disk by `features` of the
cluster file.

A second epoch shows the same pictures in other batches. On most CPUs a picture has the same features to the bit in any batch of
one size; whether it has here is seen from the first `TRIALS` batches whose pictures are all known: they are computed, and
compared. If one bit differs, only whole batches are remembered.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from lmmcl.models.lmm import LMM
from lmmcl.weights.fast_digest import fast_digest
from lmmcl.weights.image_features.frozen_tower import frozen_tower
from lmmcl.weights.image_features.pictures import METHOD, signature_of
from lmmcl.weights.resident import SMALL_BYTES

if TYPE_CHECKING:
    from lmmcl.weights.checkpoint import Loaded

LIMIT_BYTES = 128 * 2**20
TRIALS = 8
"""Batches of known pictures that are computed nevertheless, before the features of others are put together."""


@dataclass
class Call:
    """What a call's result follows from: tensors, and what it has in common with calls for other pictures."""

    kind: str
    tensors: Mapping[str, Any]

    @cached_property
    def key(self) -> str:
        """Its name."""
        return _name(self.kind, self.tensors)

    @cached_property
    def pictures(self) -> list[str]:
        """The names of its pictures; empty where the tensors have not one row for each."""
        rows = {len(tensor) if tensor.dim() else 0 for tensor in self.tensors.values()}
        if len(rows) != 1:
            return []
        alone = [{place: tensor[row] for place, tensor in self.tensors.items()} for row in range(rows.pop())]
        return [_name(self.kind, one) for one in alone]


def _name(kind: str, tensors: Mapping[str, Any]) -> str:
    parts = [kind, *(f"{place}={fast_digest(tensor)}" for place, tensor in tensors.items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class RecentFeatures:
    """Results by key, the least recently used dropped first when together they exceed `limit` bytes."""

    def __init__(self, limit: int = LIMIT_BYTES) -> None:
        self.limit, self.size = limit, 0
        self._held: OrderedDict[str, tuple[Any, ...]] = OrderedDict()
        self._pictures: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self._trials: dict[str, list[bool]] = {}

    def get(self, key: str) -> tuple[Any, ...] | None:
        """What was put under `key`, or None."""
        if key in self._held:
            self._held.move_to_end(key)
        return self._held.get(key)

    def put(self, key: str, features: tuple[Any, ...]) -> None:
        """Remember `features` (tensors that nobody writes into) in the place of those that were used longest ago."""
        size = _size(features)
        if size > self.limit or key in self._held:
            return
        self._held[key] = features
        self.size += size
        while self.size > self.limit:
            self.size -= _size(self._held.popitem(last=False)[1])

    def of(self, call: Call) -> tuple[Any, ...] | None:
        """The features of a call: of one like it, or of the same pictures in other calls; None where they are not known."""
        if (whole := self.get(call.key)) is not None:
            return whole
        trials = self._trials.get(call.kind, [])
        return self._joined(call.pictures) if len(trials) == TRIALS and all(trials) else None

    def keep(self, call: Call, features: tuple[Any, ...]) -> None:
        """`put` the features of a call, and know its pictures as long as these are held."""
        self.put(call.key, features)
        pictures = call.pictures
        if len(pictures) != len(features):
            return
        trials = self._trials.setdefault(call.kind, [])
        if (joined := self._joined(pictures)) is not None and len(trials) < TRIALS:
            trials.append(all(one.equal(other) for one, other in zip(joined, features, strict=True)))
        self._pictures.update(zip(pictures, features, strict=True))

    def _joined(self, pictures: Sequence[str]) -> tuple[Any, ...] | None:
        features = tuple(self._pictures.get(picture) for picture in pictures)
        return None if not features or any(one is None for one in features) else features

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()
        self._pictures.clear()
        self._trials.clear()
        self.size = 0


def _size(features: tuple[Any, ...]) -> int:
    return sum(tensor.nbytes for tensor in features)


RECENT = RecentFeatures()
"""This process's memory."""


class RememberingMethod:
    """Stands in the place of a model's method that makes features."""

    def __init__(self, owner: Any, vision: Sequence[Any], name: str, recent: RecentFeatures = RECENT) -> None:
        self.owner, self.vision, self.name, self.recent = owner, list(vision), name, recent
        self.__signature__ = signature_of(owner)  # `generate` looks at it

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy of the model computes its own: whoever copies it may change it."""
        owner = memo[id(self.owner)]
        return getattr(type(owner), METHOD).__get__(owner)

    def __call__(self, *args: Any, **more: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        call = None if any(module.training for module in self.vision) else _call(self.name, args, more)
        if call is not None and (kept := self.recent.of(call)) is not None:
            features: Any = kept
            return BaseModelOutputWithPooling(pooler_output=features)
        result = getattr(type(self.owner), METHOD)(self.owner, *args, **more)
        features = result.pooler_output
        if call is not None and isinstance(features, list | tuple) and not any(one.requires_grad for one in features):
            self.recent.keep(call, tuple(tensor.detach().clone() for tensor in features))
        return result


def _call(name: str, args: Sequence[Any], more: Mapping[str, Any]) -> Call | None:
    """What names a call's result; None for a call that gives more than features, or whose arguments have no such name."""
    import torch

    if not more.get("return_dict") or more.get("output_hidden_states") or more.get("output_attentions"):
        return None
    # What inference mode made cannot be used where gradients are kept.
    modes = (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"))
    kernels = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.backends.mkldnn.enabled)
    parts = [name, str(modes), str(kernels), torch.get_float32_matmul_precision()]
    tensors: dict[str, Any] = {}
    for place, value in [*enumerate(args), *sorted(more.items())]:
        if isinstance(value, torch.Tensor):
            tensors[str(place)] = value
            parts.append(f"{place}: {tuple(value.shape)}")  # batches of another size may round otherwise
        elif value is None or isinstance(value, bool | int | str) or _are_numbers(value):
            parts.append(f"{place}={value!r}")
        else:
            return None
    return Call("\n".join(parts), tensors)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, int) for one in value)


def remember_features(
    lmm: LMM, loaded: Loaded, roles: Mapping[str, str] | None = None, learns: Sequence[str] = ()
) -> bool:
    """Let a loaded checkpoint remember features of whole batches; whether it does.

    It does for a small model on a CPU whose family computes them in one call, if vision tower and projector are the base's and are
    not among what `learns`. `roles` are those of its parameters, where adapters have changed their names.
    """
    base = loaded.base
    if base.place.device != "cpu" or base.size > SMALL_BYTES:
        return False
    if (tower := frozen_tower(lmm, loaded, roles, learns)) is None:
        return False
    setattr(tower.owner, METHOD, RememberingMethod(tower.owner, tower.modules, f"{base.place} {base.digest}"))
    return True
