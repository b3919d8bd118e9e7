"""Weights of a step: a file of only the tensors that changed against its parent, and the way back to a whole model.

A delta (`delta.safetensors`) names tensors as they are named in memory (`named_parameters()`), never by the keys of a
saved model, and says in its header whose child it is and which base it belongs to. A checkpoint is the pre-trained
model with the chain of deltas laid over it, newest last; reading opens only what is needed, tensor by tensor.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.errors import UserError
from lmmcl.ledger import Ledger, Record
from lmmcl.models.base import LMM
from lmmcl.models.experts import grow
from lmmcl.spec.keys import canonical_json
from lmmcl.spec.steps import Checkpoint, Pretrained

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

DELTA = "delta.safetensors"
HEADER = "lmmcl"
FORMAT = "lmmcl-delta-1"

KEPT_BASE_BYTES = 256 * 2**20
"""A pre-trained model up to this size stays in memory between loads: a copy is made faster than a file is read."""


class CheckpointError(UserError):
    """Stored weights that cannot be used: missing, truncated, or of another parent or base than the step says."""


def save_delta(
    folder: Path, tensors: Mapping[str, Tensor], *, parent_key: str, base_digest: str, experts: Sequence[str] = ()
) -> int:
    """Write `delta.safetensors` with `tensors` (any shapes and dtypes, on any device); returns its size in bytes.

    `experts` are the MLPs with two experts of the model that the tensors belong to (see `lmmcl.models.experts`).
    """
    from safetensors.torch import save_file

    path = folder / DELTA
    metadata = delta_metadata(parent_key, base_digest, experts)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    return path.stat().st_size


def delta_metadata(parent_key: str, base_digest: str, experts: Sequence[str] = ()) -> dict[str, str]:
    """What the header of a delta file says. One entry: safetensors writes several in an order that changes from run to run."""
    header: dict[str, Any] = {"format": FORMAT, "parent": parent_key, "base_digest": base_digest}
    return {HEADER: json.dumps({**header, "experts": list(experts)} if experts else header)}


@dataclass(frozen=True)
class Delta:
    """One open delta file: its header and its tensors, read when asked for."""

    path: Path
    header: Mapping[str, Any]
    names: frozenset[str]
    file: Any

    @property
    def experts(self) -> list[str]:
        """MLPs that have two experts in the model that this belongs to."""
        return self.header.get("experts", [])

    def tensor(self, name: str) -> Tensor:
        """The tensor called `name`; raises CheckpointError when it cannot be read."""
        from safetensors import SafetensorError

        try:
            return self.file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"tensor {name!r} cannot be read: {error}", file=str(self.path)) from error


class Chain(Mapping[str, "Tensor"]):
    """All tensors in which a checkpoint differs from its pre-trained model, newest value of each; read lazily."""

    def __init__(self, deltas: list[Delta]) -> None:
        self.deltas = deltas
        self._newest = {name: delta for delta in reversed(deltas) for name in delta.names}

    def __getitem__(self, name: str) -> Tensor:
        return self._newest[name].tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._newest))

    def __len__(self) -> int:
        return len(self._newest)

    @property
    def experts(self) -> list[str]:
        """MLPs that have two experts in this checkpoint."""
        return list(dict.fromkeys(name for delta in self.deltas for name in delta.experts))

    def spans(self) -> list[tuple[list[str], Chain]]:
        """The chain, oldest first, cut where MLPs get a second expert: which do, and what is laid over the model then.

        An expert starts as a copy of its MLP as that is in the chain so far.
        """
        spans: list[tuple[list[str], list[Delta]]] = [([], [])]
        seen: set[str] = set()
        for delta in reversed(self.deltas):
            if new := [name for name in delta.experts if name not in seen]:
                spans.append((new, []))
                seen.update(new)
            spans[-1][1].insert(0, delta)
        return [(new, Chain(deltas)) for new, deltas in spans]

    def source(self, name: str) -> Path | None:
        """The file that holds the newest value of `name`; None where the pre-trained one still stands."""
        return self._newest[name].path if name in self._newest else None


@contextmanager
def tensors_of(step: Checkpoint, ledger: Ledger) -> Iterator[Chain]:
    """The tensors of `step` that differ from the pre-trained model, readable inside the `with`.

    Raises CheckpointError when a file is missing, truncated, or names another parent than the step does.
    """
    with ExitStack() as stack:
        deltas, at = [], step
        while at.parents:
            parent = at.parents[0]
            delta = _open(stack.enter_context(ledger.opened(at.path, DELTA)), stack)
            if delta.header.get("parent") != parent.key:
                raise CheckpointError(
                    f"is a child of {delta.header.get('parent')}, but {at.label} continues {parent.key}",
                    file=str(delta.path),
                )
            deltas.append(delta)
            at = parent
        yield Chain(deltas)


def _open(path: Path, stack: ExitStack) -> Delta:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError("no such file: these weights were removed or never written", file=str(path))
    try:
        file = stack.enter_context(safe_open(path, framework="pt"))
        header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
        names = frozenset(file.keys())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"is not a whole safetensors file: {error}", file=str(path)) from error
    if header.get("format") != FORMAT:
        raise CheckpointError(f"is no delta of this version ({header.get('format')}, not {FORMAT})", file=str(path))
    return Delta(path, header, names, file)


def load_checkpoint(
    step: Checkpoint, ledger: Ledger, *, precision: str, device: str = "cpu", attention: str = "sdpa"
) -> PreTrainedModel:
    """The model that `step` ended in, in evaluation mode: a fresh one, the caller may change it.

    The base is checked against the deltas' digest where both are of one `precision` (fp32, bf16 or fp16).
    Raises CheckpointError when it differs, or a delta is damaged or of another parent.
    """
    model, digest = load_base(step.model, precision, device, attention)
    with tensors_of(step, ledger) as chain:
        for delta in chain.deltas:
            check_base(delta, digest)
        for experts, span in chain.spans():
            grow(model, experts)
            own = named_tensors(model)
            for name in span:
                _put(own, name, span[name], span.source(name))
    return model


def check_base(delta: Delta, digest: str) -> None:
    """Raise CheckpointError unless `delta` belongs to the base of this digest (of one precision: else they cannot be compared)."""
    theirs = delta.header["base_digest"]
    same_precision = theirs.split(":")[0] == digest.split(":")[0]
    if same_precision and theirs != digest:
        raise CheckpointError(f"belongs to the base {theirs}, but the one loaded is {digest}", file=str(delta.path))


def _put(own: Mapping[str, Tensor], name: str, value: Tensor, path: Path | None) -> None:
    if name not in own or own[name].shape != value.shape:
        have = tuple(own[name].shape) if name in own else "no such tensor"
        raise CheckpointError(f"holds {name} of shape {tuple(value.shape)}; the model has {have}", file=str(path))
    own[name].data.copy_(value)


def named_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """All parameters and buffers by name; tied ones once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def digest_tensors(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """SHA-256 of each tensor's dtype, shape and bytes, in hex."""
    with ThreadPoolExecutor(4) as pool:  # hashing releases the interpreter lock
        return dict(zip(tensors, pool.map(_digest, tensors.values()), strict=True))


def _digest(tensor: Tensor) -> str:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def digest_model(model: PreTrainedModel, precision: str) -> str:
    """`<precision>:<hash of all parameters>` of a loaded model; buffers follow from the configuration."""
    digests = digest_tensors(dict(model.named_parameters()))
    return f"{precision}:{hashlib.sha256(canonical_json(digests).encode()).hexdigest()[:32]}"


def base_digest(lmm: LMM, precision: str) -> str:
    """The digest of a pre-trained model in `precision`, as deltas carry it."""
    return _kept_digest(_identity(lmm), precision) or load_base(lmm, precision, "cpu", "sdpa")[1]


_KEPT: dict[tuple[str, ...], tuple[PreTrainedModel, str]] = {}
_DIGESTS: dict[tuple[str, str], str] = {}


def _identity(lmm: LMM) -> str:
    return canonical_json(lmm.identity())


def _kept_digest(identity: str, precision: str) -> str | None:
    return _DIGESTS.get((identity, precision))


def load_base(lmm: LMM, precision: str, device: str, attention: str) -> tuple[PreTrainedModel, str]:
    """A pre-trained model of the caller's own, and its digest (computed once a process)."""
    place = (_identity(lmm), precision, device, attention)
    if place in _KEPT:
        model, digest = _KEPT[place]
        return copy.deepcopy(model), digest
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # many processes load models at once, and nobody watches them
    model = lmm.load_model(precision=precision, device=device, attention=attention)
    digest = _DIGESTS.setdefault((place[0], precision), digest_model(model, precision))
    if sum(tensor.nbytes for tensor in named_tensors(model).values()) <= KEPT_BASE_BYTES:
        _KEPT.clear()
        _KEPT[place] = copy.deepcopy(model), digest
    return model, digest


def ensure_pretrained(step: Pretrained, ledger: Ledger) -> Record:
    """Record the pre-trained model: digest (fp32), number of parameters, bytes. Nothing is copied into the store."""
    started = time.time()
    model, digest = load_base(step.model, "fp32", "cpu", "sdpa")
    fields = {
        "precision": "fp32",
        "base_digest": digest,
        "total_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "bytes": sum(parameter.nbytes for parameter in model.parameters()),
        "checkpoint_bytes": 0,
        "seconds": time.time() - started,
        "provenance": provenance(started),
    }
    with ledger.writing(step) as draft:
        return draft.commit(fields)


def export(step: Checkpoint, ledger: Ledger, directory: str | Path) -> Path:
    """Write a plain `save_pretrained` directory of `step` (weights, configurations, processor, chat template).

    `AutoModelForImageTextToText.from_pretrained(directory)` loads it; `lmmcl.json` says where it comes from.
    Raises UserError when `directory` holds files already, the step has not been computed, or no class of transformers can hold
    the model, as one with two experts in an MLP.
    """
    directory = Path(directory)
    record = ledger.find(step)
    if record is None:
        raise UserError(f"{step.label} has not been computed yet", file=step.path)
    if directory.is_dir() and any(directory.iterdir()):
        raise UserError("is not empty; name a new directory", file=str(directory))
    with tensors_of(step, ledger) as chain:
        if chain.experts:
            raise UserError(
                f"{step.label} has two experts in {len(chain.experts)} MLPs, and no class of transformers can hold them; "
                "it cannot be exported, but lmmcl evaluates it and goes on from it",
                file=step.path,
            )
    load_checkpoint(step, ledger, precision=record["precision"]).save_pretrained(directory)
    step.model.save_processor(directory)
    with ledger.opened(step.path, "step.json") as file:
        identity = json.loads(file.read_text(encoding="utf-8"))
    origin = {"key": step.key, "label": step.label, "step": identity, "provenance": record["provenance"]}
    (directory / "lmmcl.json").write_text(json.dumps(origin, indent=1), encoding="utf-8")
    return directory


def provenance(started: float) -> dict[str, Any]:
    """By what, where and when a step was computed: versions, commit, host, times (seconds since 1970)."""
    import socket

    return {**_versions(), "host": socket.gethostname(), "started": started, "finished": time.time()}


@lru_cache(maxsize=1)
def _versions() -> dict[str, Any]:
    import subprocess
    from importlib.metadata import PackageNotFoundError, version

    import lmmcl

    versions: dict[str, Any] = {"lmmcl": lmmcl.__version__}
    for package in ("torch", "transformers", "ray"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    here = Path(__file__).parent
    try:
        found = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return {**versions, "commit": None}
    return {**versions, "commit": found.stdout.strip() if found.returncode == 0 else None}
