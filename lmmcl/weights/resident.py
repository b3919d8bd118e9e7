"""Pre-trained models that stay loaded between the stages and evaluations of a process, as long as memory allows.

Whoever loads a checkpoint gets modules of its own whose parameters are those of the resident model, not copies: what a checkpoint
changes is put in their place, never written into them. So the resident model stays what was read and proved, and a swap costs no
more than what differs. The proof at the end of a stage (see `lmmcl.training.stage.proof`) reads the very same memory.

A model stays while at least as much memory as it takes is still available on the node beside it, and a tenth of all there is
(on a GPU: of the GPU's memory); LMMCL_RESIDENT_GB sets a limit in its place, and 0 keeps only models up to 256 MiB.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from lmmcl.errors import UserError
from lmmcl.models.lmm import LMM
from lmmcl.steps.keys import canonical_json
from lmmcl.weights.delta import digest_tensor
from lmmcl.weights.fast_digest import fast_digests
from lmmcl.weights.quantized_base import named_tensors, quantize_base, quantized_names

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

SMALL_BYTES = 256 * 2**20
"""Models up to this size stay whatever the limit: a copy is made faster than a file is read."""
VARIABLE = "LMMCL_RESIDENT_GB"
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}

T = TypeVar("T")
Agree = Callable[[Callable[[], T]], T]
"""Calls a function, or has one of several processes call it and gives all of them what it returned."""


class Place(NamedTuple):
    """A pre-trained model as it is in memory: its identity, precision, device and attention kernel."""

    identity: str
    precision: str
    device: str
    attention: str


class Resident:
    """A pre-trained model that nobody changes. `digests` (SHA-256) of its tensors say which model it is, `proof` (fast ones) shows
    at the end of a stage that nobody wrote into them."""

    def __init__(
        self, place: Place, model: PreTrainedModel, digests: Mapping[str, str], proof: Mapping[str, str]
    ) -> None:
        self.place, self.model, self.digests, self.proof = place, model, digests, proof
        self.size = sum(tensor.nbytes for tensor in named_tensors(model).values())
        self.digest = base_digest_of(model, place.precision, digests)

    def take(self, *, shared: bool) -> PreTrainedModel:
        """A model of the caller's own. If `shared`, its parameters must be replaced, never written into.

        A model that does not stay is handed out as it is, and so is one that memory has no room to copy.
        """
        if _KEPT.get(self.place) is not self:
            return self.model
        if shared:
            return share_parameters(self.model)
        if self.size > SMALL_BYTES and not has_room(self.size, self.place.device):
            del _KEPT[self.place]
            return self.model
        return copy.deepcopy(self.model)


_KEPT: OrderedDict[Place, Resident] = OrderedDict()
"""The least recently used first."""
_DIGESTS: dict[tuple[str, str], str] = {}


def digest_tensors(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """SHA-256 of each tensor's dtype, shape and bytes, in hex."""
    with ThreadPoolExecutor(4) as pool:  # hashing releases the interpreter lock
        return dict(zip(tensors, pool.map(digest_tensor, tensors.values()), strict=True))


def _digest_both(tensors: Mapping[str, Tensor]) -> tuple[dict[str, str], dict[str, str]]:
    """Both as the model is now: what is hashed later may have been written into."""
    return digest_tensors(tensors), fast_digests(tensors)


def base_digest_of(model: PreTrainedModel, precision: str, digests: Mapping[str, str]) -> str:
    """`<precision>:<hash of all parameters>` of a model, and a hash of what is quantised in it; buffers follow from the
    configuration. `digests` are those of its tensors."""
    names = [name for name, _ in model.named_parameters()]
    whole = hashlib.sha256(canonical_json({name: digests[name] for name in names}).encode()).hexdigest()[:32]
    return f"{precision}:{whole}{_quantized(model, digests)}"


def _quantized(model: PreTrainedModel, digests: Mapping[str, str]) -> str:
    """`:nf4-<hash of codes and scales>` of a model with quantised layers, else nothing. The same in every precision."""
    if not (names := quantized_names(model)):
        return ""
    storage = canonical_json({name: digests[name] for name in names})
    return f":nf4-{hashlib.sha256(storage.encode()).hexdigest()[:32]}"


def alone(work: Callable[[], T]) -> T:
    """What `work` returns: nobody to agree with."""
    return work()


def resident_base(lmm: LMM, precision: str, device: str, attention: str, agree: Agree[Any] = alone) -> Resident:
    """A pre-trained model as it stays loaded, or a freshly loaded one that cannot stay.

    Its digests are computed once, by the process that `agree` has do it; all processes of a group call this at the same point.
    """
    place = Place(canonical_json(lmm.identity()), precision, device, attention)
    if (kept := _KEPT.get(place)) is not None:
        _KEPT.move_to_end(place)
        agree(lambda: (kept.digests, kept.proof))
        return kept
    _make_room(sum(lmm.role_counts().values()) * BYTES[precision], device)
    model = _read(lmm, place)
    resident = Resident(place, model, *agree(lambda: _digest_both(named_tensors(model))))
    _DIGESTS[place.identity, precision] = resident.digest
    if stays(resident.size, device):
        _KEPT[place] = resident
    return resident


def known_digest(lmm: LMM, precision: str) -> str | None:
    """The digest of a pre-trained model that this process read already."""
    return _DIGESTS.get((canonical_json(lmm.identity()), precision))


def pretrained_proof(lmm: LMM, precision: str, attention: str) -> Mapping[str, str] | None:
    """The fast digests of a pre-trained model that stays loaded on the CPU."""
    kept = _KEPT.get(Place(canonical_json(lmm.identity()), precision, "cpu", attention))
    return kept.proof if kept else None


def _read(lmm: LMM, place: Place) -> PreTrainedModel:
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # the tiny models load by themselves
    if lmm.settings.base is None:
        return lmm.load_model(precision=place.precision, device=place.device, attention=place.attention)
    model = lmm.load_model(precision=place.precision, device="cpu", attention=place.attention)
    quantize_base(lmm, model)
    return model.to(place.device)  # type: ignore[arg-type]  # transformers narrows what torch takes


def share_parameters(model: PreTrainedModel) -> PreTrainedModel:
    """A deep copy of a model but for its parameters, which are new ones in the same memory. Quantised ones are copied whole:
    their class carries its scales, and moves them in place."""
    from torch import nn

    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        if type(parameter) is nn.Parameter:
            memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
    return copy.deepcopy(model, memo)


def release(device: str | None = None) -> None:
    """Forget the models that stay loaded (on `device`): their memory is needed, or they are no longer what they were."""
    for place in [place for place in _KEPT if device in (None, place.device)]:
        del _KEPT[place]


def stays(size: int, device: str) -> bool:
    """Whether a loaded model of `size` bytes is to stay."""
    return size <= SMALL_BYTES or has_room(size, device)


def has_room(size: int, device: str) -> bool:
    """Whether `size` bytes may be held for later: by the limit, or by what is available."""
    limit = _limit()
    if limit is not None:
        return size + sum(kept.size for kept in _KEPT.values() if kept.place.device == device) <= limit
    available, total = available_memory(device)
    return available >= size + total / 10


def _make_room(size: int, device: str) -> None:
    """Let go of the least recently used models on a device where a new one needs their memory."""
    others = [place for place in _KEPT if place.device == device]
    while others and not has_room(size, device):
        del _KEPT[others.pop(0)]


def _limit() -> int | None:
    text = os.environ.get(VARIABLE)
    if text is None:
        return None
    try:
        return int(float(text) * 1e9)
    except ValueError as error:
        raise UserError(f"{VARIABLE}={text} is not a number of gigabytes") from error


def available_memory(device: str) -> tuple[int, int]:
    """Bytes that are available and bytes in all: of the GPU, or of this machine or container."""
    if device.startswith("cuda"):
        import torch

        free, total = torch.cuda.mem_get_info()
        return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated(), total
    import psutil

    memory = psutil.virtual_memory()
    available, total = memory.available, memory.total
    folder = Path("/sys/fs/cgroup")  # of a container; outside of one there is no such limit
    if (folder / "memory.max").is_file() and (
        most := (folder / "memory.max").read_text(encoding="ascii").strip()
    ) != "max":
        stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
        used = int((folder / "memory.current").read_text(encoding="ascii")) - int(stat.get("inactive_file", 0))
        available, total = min(available, int(most) - used), min(total, int(most))
    return available, total
