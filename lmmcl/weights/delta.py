"""Weights of a step: a file of only the tensors that changed against its parent.

A delta (`delta.safetensors`) names tensors as they are named in memory (`named_parameters()`), never by the keys of a
saved model, and says in its header whose child it is and which base it belongs to. What a stage of LoRA changed lies beside it
as the adapter (`adapter/`); the header says which tensors it is merged into, and the digest of each when it is. Quantised
weights stay as they are: the header says beside which of them the adapter is put.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.errors import UserError
from lmmcl.models.partition.fused import parse_key
from lmmcl.weights.lora import LORA_A, LORA_B, MAGNITUDE, PEFT_PREFIX, LayerAdapter

if TYPE_CHECKING:
    from torch import Tensor

DELTA = "delta.safetensors"
HEADER = "lmmcl"
FORMAT = "lmmcl-delta-1"
ADAPTER_FORMAT = "lmmcl-delta-2"
"""Of deltas with an adapter beside them, which earlier builds would take for unchanged weights."""
ROUTED_FORMAT = "lmmcl-delta-3"
"""Of checkpoints that are several fine-tunes with a router, which earlier builds would take for unchanged weights."""
QUANTIZED_FORMAT = "lmmcl-delta-4"
"""Of deltas whose adapter is put beside quantised weights, which earlier builds would leave out."""
FORMATS = (FORMAT, ADAPTER_FORMAT, ROUTED_FORMAT, QUANTIZED_FORMAT)
ADAPTED = " + adapter"
"""Ends the key of a tensor into which an adapter is merged, or beside which it is put."""
DIGEST_LENGTH = 32
"""Hex digits of a merged tensor's digest."""


class CheckpointError(UserError):
    """Stored weights that cannot be used: missing, truncated, or of another parent or base than the step says."""


def save_delta(
    folder: Path,
    tensors: Mapping[str, Tensor],
    *,
    parent_key: str,
    base_digest: str,
    experts: Sequence[str] = (),
    adapter: Mapping[str, Any] | None = None,
    routed: int = 0,
) -> int:
    """Write `delta.safetensors` with `tensors` (any shapes and dtypes, on any device); returns its size in bytes.

    `experts` are the entries of the experts of the model that the tensors belong to (see `lmmcl.models.experts.grown`); `adapter`
    what `adapter_header` says of the adapter that lies beside the file.
    """
    from safetensors.torch import save_file

    path = folder / DELTA
    metadata = delta_metadata(parent_key, base_digest, experts, adapter, routed)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    return path.stat().st_size


def delta_metadata(
    parent_key: str,
    base_digest: str,
    experts: Sequence[str] = (),
    adapter: Mapping[str, Any] | None = None,
    routed: int = 0,
) -> dict[str, str]:
    """What the header of a delta file says. One entry: safetensors writes several in an order that changes from run to run."""
    header: dict[str, Any] = {"format": FORMAT, "parent": parent_key, "base_digest": base_digest}
    if experts:
        header["experts"] = list(experts)
    if adapter:
        header |= {"format": QUANTIZED_FORMAT if adapter.get("beside") else ADAPTER_FORMAT, "adapter": dict(adapter)}
    if routed:
        header |= {"format": ROUTED_FORMAT, "routed": routed}
    return {HEADER: json.dumps(header)}


def adapter_header(scale: float, digests: Mapping[str, str], beside: Iterable[str] = ()) -> dict[str, Any]:
    """What a delta says of the adapter beside it: the s of s·B·A, the digest of each tensor that it is merged into, and the
    quantised tensors `beside` which it is put."""
    header = {"scale": scale, "merged": {name: digest[:DIGEST_LENGTH] for name, digest in sorted(digests.items())}}
    return header | ({"beside": names} if (names := sorted(beside)) else {})


def digest_tensor(tensor: Tensor) -> str:
    """SHA-256 of a tensor's dtype, shape and bytes, in hex."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Delta:
    """One open delta file: its header and its tensors, read when asked for; likewise the adapter beside it, where there is one."""

    path: Path
    header: Mapping[str, Any]
    names: frozenset[str]
    file: Any
    adapter_file: Any = None

    @property
    def experts(self) -> list[str]:
        """Entries of the experts in the model that this belongs to."""
        return self.header.get("experts", [])

    @property
    def precision(self) -> str:
        """In which its stage was trained."""
        return str(self.header["base_digest"]).split(":")[0]

    @property
    def merged(self) -> Mapping[str, str]:
        """The tensors into which its adapter is merged, and the digest of each when it is."""
        return self.header.get("adapter", {}).get("merged", {})

    @property
    def beside(self) -> frozenset[str]:
        """The quantised tensors beside which its adapter is put."""
        return frozenset(self.header.get("adapter", {}).get("beside", ()))

    @property
    def keys(self) -> list[str]:
        """All that it lays over its parent: tensors and slices by their keys, tensors with its adapter by theirs with `ADAPTED`."""
        return [*self.names, *(name + ADAPTED for name in (*self.merged, *sorted(self.beside)))]

    def tensor(self, name: str) -> Tensor:
        """The tensor called `name`; raises CheckpointError when it cannot be read."""
        return self._read(self.file, name)

    def merge(self, name: str, weight: Tensor) -> Tensor:
        """The tensor `name`, which is `weight` (outputs, inputs) in the parent, with the adapter merged in.

        Raises CheckpointError when that is not, to the bit, what the stage ended with, and for weights that are quantised.
        """
        if name in self.beside:
            raise CheckpointError(f"its adapter lies beside {name}, which is quantised", file=str(self.path))
        value = self.layer(name, tuple(weight.shape)).merge(weight)
        if digest_tensor(value)[:DIGEST_LENGTH] != self.merged[name]:
            raise CheckpointError(
                f"merging its adapter into {name} does not give the weights that its stage ended with: the weights that it "
                "is merged into are not those that the stage started from, or torch computes fp64 inexactly here",
                file=str(self.path),
            )
        return value

    def layer(self, name: str, shape: tuple[int, ...]) -> LayerAdapter:
        """Its adapter for the tensor `name`; raises CheckpointError when that is of another `shape`."""
        module = PEFT_PREFIX + name.removesuffix(".weight")
        magnitude = module + MAGNITUDE
        layer = LayerAdapter(
            a=self._read(self.adapter_file, module + LORA_A),
            b=self._read(self.adapter_file, module + LORA_B),
            scale=self.header["adapter"]["scale"],
            magnitude=self._read(self.adapter_file, magnitude) if magnitude in self.adapter_file.keys() else None,  # noqa: SIM118
        )
        adapted = (layer.b.shape[0], layer.a.shape[1])
        if shape != adapted:
            raise CheckpointError(
                f"its adapter is for {name} of shape {adapted}; the model has {shape}", file=str(self.path)
            )
        return layer

    def _read(self, file: Any, name: str) -> Tensor:
        from safetensors import SafetensorError

        try:
            return file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"tensor {name!r} cannot be read: {error}", file=str(self.path)) from error


def tensor_of(key: str) -> str:
    """The name of the tensor that a key of `Delta.keys` is laid over."""
    return parse_key(key.removesuffix(ADAPTED))[0]
