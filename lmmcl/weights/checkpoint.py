"""From a step to a whole model: the pre-trained one with the chain of deltas laid over it, in memory or as a plain folder."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.atomic_files import replacing
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger, Record
from lmmcl.ledger.provenance import provenance
from lmmcl.models.experts import describe, grow
from lmmcl.models.lmm import LMM
from lmmcl.models.partition.fused import parse_key
from lmmcl.models.quantized.nf4 import add_beside, copy_beside, count_parameters, nf4_layers, scale_tensors
from lmmcl.steps import Checkpoint, Pretrained
from lmmcl.steps.keys import canonical_json
from lmmcl.weights.chain import Chain, tensors_of
from lmmcl.weights.delta import ADAPTED, CheckpointError, Delta, digest_tensor, tensor_of
from lmmcl.weights.quantized_base import (
    all_tensors,
    dequantize_model,
    describe_quantized,
    quantize_base,
    quantized_digest,
)

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

KEPT_BASE_BYTES = 256 * 2**20
"""A pre-trained model up to this size stays in memory between loads: a copy is made faster than a file is read."""


def load_checkpoint(
    step: Checkpoint, ledger: Ledger, *, precision: str, device: str = "cpu", attention: str = "sdpa"
) -> PreTrainedModel:
    """The model that `step` ended in, in evaluation mode: a fresh one, the caller may change it.

    The base is checked against the deltas' digest where both are of one `precision` (fp32, bf16 or fp16).
    Raises CheckpointError when it differs, or a delta is damaged or of another parent.
    """
    with tensors_of(step, ledger) as chain:
        return _assemble(step.model, chain, precision, device, attention)


def _assemble(lmm: LMM, chain: Chain, precision: str, device: str, attention: str) -> PreTrainedModel:
    """The pre-trained model with `chain` laid over it."""
    model, digest = load_base(lmm, precision, device, attention)
    for delta in chain.deltas:
        check_base(delta, digest)
    earlier, rest = chain.cut_at_other_precision(precision)
    if earlier.deltas:
        _copy(_assemble(lmm, earlier, earlier.deltas[0].precision, "cpu", attention), model, earlier)
    for experts, span in rest.spans(earlier.experts):
        grow(model, experts)
        own, quantized = named_tensors(model), nf4_layers(model)
        for tensor in sorted(span.tensors):
            for key, delta in span.laid(tensor):
                if tensor in delta.beside and key.endswith(ADAPTED):
                    _put_beside(quantized, tensor, delta)
                else:
                    _put(own, key, delta)
    return model


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
            own[name].data.copy_(values[name])


def check_base(delta: Delta, digest: str) -> None:
    """Raise CheckpointError unless `delta` belongs to the base of this digest.

    Bases in two precisions can be compared in what is quantised alone, which is the same in all.
    """
    theirs = str(delta.header["base_digest"])
    (precision, _, quantized), (own_precision, _, own_quantized) = _parts(theirs), _parts(digest)
    if theirs != digest if precision == own_precision else quantized != own_quantized:
        raise CheckpointError(f"belongs to the base {theirs}, but the one loaded is {digest}", file=str(delta.path))


def _parts(digest: str) -> tuple[str, str, str]:
    """Precision, hash of all parameters, and hash of what is quantised (empty if nothing is)."""
    precision, _, rest = digest.partition(":")
    whole, _, quantized = rest.partition(":")
    return precision, whole, quantized


def _put(own: Mapping[str, Tensor], key: str, delta: Delta) -> None:
    """Lay one thing of a delta over a model's own tensor, in place."""
    name, part = tensor_of(key), parse_key(key)[1]
    there = own[name].data if name in own else None
    if there is not None and key.endswith(ADAPTED):
        there.copy_(delta.merge(name, there))
        return
    value = None if key.endswith(ADAPTED) else delta.tensor(key)
    have = there if part is None or there is None else part.take(there)
    if there is None or have is None or value is None or have.shape != value.shape:
        shape = "no such tensor" if have is None else tuple(have.shape)
        of = f" of shape {tuple(value.shape)}" if value is not None else ""
        raise CheckpointError(f"holds {key}{of}; the model has {shape}", file=str(delta.path))
    if part is None:
        there.copy_(value)
    else:
        part.put(there, value)


def named_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """All parameters and buffers by name, tied ones once; of quantised weights the scales too."""
    return all_tensors(model)


def digest_tensors(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """SHA-256 of each tensor's dtype, shape and bytes, in hex."""
    with ThreadPoolExecutor(4) as pool:  # hashing releases the interpreter lock
        return dict(zip(tensors, pool.map(digest_tensor, tensors.values()), strict=True))


def digest_model(model: PreTrainedModel, precision: str) -> str:
    """`<precision>:<hash of all parameters>` of a loaded model, and a hash of what is quantised in it; buffers follow from the
    configuration."""
    digests = digest_tensors(dict(model.named_parameters()))
    whole = hashlib.sha256(canonical_json(digests).encode()).hexdigest()[:32]
    return f"{precision}:{whole}{quantized_digest(model)}"


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

    disable_progress_bar()  # the tiny models load by themselves
    is_plain = lmm.settings.base is None
    model = lmm.load_model(precision=precision, device=device if is_plain else "cpu", attention=attention)
    if not is_plain:
        quantize_base(lmm, model)
        model.to(device)  # type: ignore[arg-type]  # transformers narrows what torch takes
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
