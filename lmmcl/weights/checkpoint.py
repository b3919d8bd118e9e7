"""From a step to a whole model: the pre-trained one with the chain of deltas laid over it, in memory or as a plain folder."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.atomic_files import replacing
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger, Record
from lmmcl.ledger.provenance import provenance
from lmmcl.models.experts import describe, grow
from lmmcl.models.lmm import LMM
from lmmcl.models.partition.fused import parse_key
from lmmcl.models.quantized.nf4 import (
    add_beside,
    copy_beside,
    count_parameters,
    earlier_names,
    nf4_layers,
    scale_tensors,
)
from lmmcl.steps import Checkpoint, Pretrained
from lmmcl.weights.chain import Chain, tensors_of
from lmmcl.weights.delta import ADAPTED, CheckpointError, Delta, tensor_of
from lmmcl.weights.fast_digest import fast_digests
from lmmcl.weights.quantized_base import dequantize_model, describe_quantized, named_tensors
from lmmcl.weights.resident import Agree, Resident, alone, known_digest, resident_base
from lmmcl.weights.swapping import Difference, keep, nearest

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Loaded:
    """A checkpoint in memory; `changed` are the names of the tensors in which it may differ from its base."""

    model: PreTrainedModel
    base: Resident
    changed: frozenset[str]
    known: Mapping[str, str]
    """Fast digests of some that changed."""

    def proof(self) -> dict[str, str]:
        """Fast digests of all tensors, against which a stage proves itself; the base's were computed when it was read."""
        own = named_tensors(self.model)
        new = {name: own[name] for name in self.changed if name not in self.known}
        unchanged = {name: digest for name, digest in self.base.proof.items() if name in own}
        return {**unchanged, **self.known, **fast_digests(new)}


def load_checkpoint(
    step: Checkpoint,
    ledger: Ledger,
    *,
    precision: str,
    device: str = "cpu",
    attention: str = "sdpa",
    shared: bool = False,
) -> PreTrainedModel:
    """The model that `step` ended in, in evaluation mode: a fresh one, the caller may change it.

    If `shared`, its parameters lie in the memory of what stays loaded (see `resident` and `swapping`): they may be replaced, not
    written into. Else every delta is read from its file.
    The base is checked against the deltas' digest where both are of one `precision` (fp32, bf16 or fp16).
    Raises CheckpointError when it differs, or a delta is damaged or of another parent.
    """
    return load(step, ledger, precision, device, attention, shared=shared).model


def load(
    step: Checkpoint,
    ledger: Ledger,
    precision: str,
    device: str,
    attention: str,
    *,
    shared: bool,
    agree: Agree[Any] = alone,
) -> Loaded:
    """See `load_checkpoint`; with what is known of its tensors. `agree`: see `resident_base`."""
    with tensors_of(step, ledger) as chain:
        above, start = nearest(step, ledger, precision) if shared else (0, None)
        tail = Chain(chain.deltas[:above]) if start else chain
        if (
            start and tail.cut_at_other_precision(precision)[0].deltas
        ):  # adapters are merged in the precision of their stage
            start, tail = None, chain
        base = resident_base(step.model, precision, device, attention, agree)
        for delta in chain.deltas:
            check_base(delta, base.digest)
        loaded = _assemble(step.model, base, tail, shared=shared, start=start)
    if shared and device == "cpu" and tail.deltas:
        keep(step, ledger, precision, Difference.of(loaded.model, set(loaded.changed), loaded.known))
    return loaded


def _assemble(lmm: LMM, base: Resident, chain: Chain, *, shared: bool, start: Difference | None = None) -> Loaded:
    """The pre-trained model with `chain` laid over it, or over what `start` makes of it."""
    model, precision, experts = base.take(shared=shared), base.place.precision, list[str]()
    if start:
        start.lay(model)
        experts += start.experts
    earlier, rest = chain.cut_at_other_precision(precision)
    if earlier.deltas:
        other = resident_base(lmm, earlier.deltas[0].precision, "cpu", base.place.attention)
        for delta in earlier.deltas:
            check_base(delta, other.digest)
        _copy(_assemble(lmm, other, earlier, shared=shared).model, model, earlier)
        experts += earlier.experts
    for added, span in rest.spans(experts):
        grow(model, added)
        own, quantized = named_tensors(model), nf4_layers(model)
        for tensor in sorted(span.tensors):
            for key, delta in span.laid(tensor):
                if tensor in delta.beside and key.endswith(ADAPTED):
                    _put_beside(quantized, tensor, delta)
                else:
                    _put(own, key, delta)
    laid = _changed(chain) | (named_tensors(model).keys() - base.digests.keys())
    before = start.tensors.keys() if start else set()
    known = {name: digest for name, digest in (start.digests if start else {}).items() if name not in _changed(chain)}
    return Loaded(model, base, frozenset(laid | before), known)


def _changed(chain: Chain) -> set[str]:
    """The names of the tensors that a chain sets; beside a quantised one those of its adapters."""
    beside = {name for delta in chain.deltas for name in delta.beside}
    return (chain.tensors - beside) | {name for weight in beside for name in earlier_names(weight)}


def _put_beside(layers: Mapping[str, Any], name: str, delta: Delta) -> None:
    """Put a delta's adapter beside a quantised weight."""
    if name not in layers:
        raise CheckpointError(
            f"holds an adapter for {name} in 4 bits; the model has no such layer", file=str(delta.path)
        )
    layer = layers[name]
    adapter = delta.layer(name, (layer.out_features, layer.in_features))
    add_beside(layer, adapter.a, adapter.b, adapter.scale)


def _copy(source: PreTrainedModel, model: PreTrainedModel, chain: Chain) -> None:
    """Set what `chain` changed of the pre-trained `model` to what it is in `source`, which is of another precision."""
    had = set(named_tensors(model))
    grow(model, chain.experts)
    values, own = named_tensors(source), named_tensors(model)
    layers, theirs = nf4_layers(model), nf4_layers(source)
    for name in chain.tensors | (own.keys() - had):
        if name in layers:
            copy_beside(theirs[name], layers[name])
        else:
            _set(own[name], values[name])


def check_base(delta: Delta, digest: str) -> None:
    """Raise CheckpointError unless `delta` belongs to the base of this digest.

    Bases in two precisions can be compared in what is quantised alone, which is the same in all.
    """
    theirs = str(delta.header["base_digest"])
    (precision, _, quantized), (own_precision, _, own_quantized) = _parts(theirs), _parts(digest)
    differs = theirs != digest if precision == own_precision else quantized != own_quantized
    if differs:
        raise CheckpointError(f"belongs to the base {theirs}, but the one loaded is {digest}", file=str(delta.path))


def _parts(digest: str) -> tuple[str, str, str]:
    """Precision, hash of all parameters, and hash of what is quantised (empty if nothing is)."""
    precision, _, rest = digest.partition(":")
    whole, _, quantized = rest.partition(":")
    return precision, whole, quantized


def _put(own: Mapping[str, Tensor], key: str, delta: Delta) -> None:
    """Lay one thing of a delta over a model's own tensor, which gets memory of its own."""
    name, part = tensor_of(key), parse_key(key)[1]
    there = own[name].data if name in own else None
    if there is not None and key.endswith(ADAPTED):
        own[name].data = delta.merge(name, there)
        return
    value = None if key.endswith(ADAPTED) else delta.tensor(key)
    have = there if part is None or there is None else part.take(there)
    if there is None or have is None or value is None or have.shape != value.shape:
        shape = "no such tensor" if have is None else tuple(have.shape)
        of = f" of shape {tuple(value.shape)}" if value is not None else ""
        raise CheckpointError(f"holds {key}{of}; the model has {shape}", file=str(delta.path))
    if part is None:
        _set(own[name], value)
    else:
        whole = there.clone()
        part.put(whole, value)
        own[name].data = whole


def _set(tensor: Tensor, value: Tensor) -> None:
    """Give a tensor of a model another value, on its device and in its precision, in memory of its own."""
    tensor.data = value.detach().to(tensor.device, tensor.dtype, copy=True)


def base_digest(lmm: LMM, precision: str) -> str:
    """The digest of a pre-trained model in `precision`, as deltas carry it."""
    return known_digest(lmm, precision) or resident_base(lmm, precision, "cpu", "sdpa").digest


def load_base(
    lmm: LMM, precision: str, device: str, attention: str, *, shared: bool = False
) -> tuple[PreTrainedModel, str]:
    """A pre-trained model of the caller's own (its parameters, if `shared`, as in `load_checkpoint`), and its digest."""
    base = resident_base(lmm, precision, device, attention)
    return base.take(shared=shared), base.digest


def ensure_pretrained(step: Pretrained, ledger: Ledger) -> Record:
    """Record the pre-trained model: digest (fp32), number of parameters, bytes. Nothing is copied into the store."""
    started = time.time()
    model, digest = load_base(step.model, "fp32", "cpu", "sdpa", shared=True)
    fields = {
        "precision": "fp32",
        "base_digest": digest,
        "total_parameters": count_parameters(model),
        "bytes": sum(tensor.nbytes for tensor in {**dict(model.named_parameters()), **scale_tensors(model)}.values()),
        **describe_quantized(model),
        "checkpoint_bytes": 0,
        "seconds": time.time() - started,
        "provenance": provenance(started),
    }
    with ledger.writing(step) as draft:
        return draft.commit(fields)


def exported_record(step: Checkpoint, ledger: Ledger, directory: Path) -> Record:
    """The record of a step that is to be exported; raises UserError when there is none, or `directory` holds files already."""
    record = ledger.find(step)
    if record is None:
        raise UserError(f"{step.label} has not been computed yet", file=step.path)
    if directory.is_dir() and any(directory.iterdir()):
        raise UserError("is not empty; name a new directory", file=str(directory))
    return record


def check_exportable(step: Checkpoint, chain: Chain) -> None:
    """Raises UserError for a model with experts, which weigh each token for itself."""
    if chain.experts:
        raise UserError(
            f"{step.label} has {describe(chain.experts)}, and no class of transformers can hold them, nor can a PEFT adapter; it "
            "cannot be exported, but lmmcl can evaluate it and train further stages from it",
            file=step.path,
        )


def export(step: Checkpoint, ledger: Ledger, directory: str | Path) -> Path:
    """Write a plain `save_pretrained` directory of `step` (weights, configurations, processor, chat template).

    `AutoModelForImageTextToText.from_pretrained(directory)` loads it; `lmmcl.json` says where it comes from. Quantised weights are
    written in the precision of the stage, with their adapters merged in.
    Raises UserError when `directory` holds files already, the step has not been computed, or no class of transformers can hold
    the model, as one with experts that a recipe added.
    """
    directory = Path(directory)
    record = exported_record(step, ledger, directory)
    with tensors_of(step, ledger) as chain:
        check_exportable(step, chain)
    with replacing(directory) as partial:
        model = load_checkpoint(step, ledger, precision=record["precision"])
        dequantize_model(model, model.dtype)
        model.save_pretrained(partial)
        step.model.save_processor(partial)
        with ledger.opened(step.path, "step.json") as file:
            identity = json.loads(file.read_text(encoding="utf-8"))
        shown = {name: value for name, value in record["provenance"].items() if name != "host"}  # it goes to others
        origin = {"key": step.key, "label": step.label, "step": identity, "provenance": shown}
        if step.model.settings:  # how it was asked: no other file of the directory holds that
            origin["model_settings"] = step.model.settings.identity()
        if step.model.settings.base:
            origin["dequantized"] = record["precision"]
        (partial / "lmmcl.json").write_text(json.dumps(origin, indent=1), encoding="utf-8")
    return directory
