"""One `Merge` step from parents to record: combine checkpoints tensor by tensor, and keep what differs from the anchor.

In memory are the pre-trained model, the few tensors of one name, and what the rule asks for (`MergeMitigation.prepare`);
results go to the file as they come.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from lmmcl.errors import UserError
from lmmcl.ledger import Ledger, Record
from lmmcl.ledger.provenance import provenance
from lmmcl.methods.mitigation import MergeContext
from lmmcl.steps import Merge, examples_of, skills_of
from lmmcl.weights.chain import Chain, tensors_of
from lmmcl.weights.checkpoint import check_base, load_base, load_checkpoint
from lmmcl.weights.delta import DELTA, delta_metadata
from lmmcl.weights.expert_routing import record_routing
from lmmcl.weights.quantized_base import named_tensors

if TYPE_CHECKING:
    from torch import Tensor


def merge(step: Merge, ledger: Ledger, *, device: str = "cpu") -> Record:
    """Combine `step.finetunes` with `step.anchor` by `step.rule`, and record what differs from the anchor.

    `device` is where a rule that runs a model runs it; tensors are combined on the CPU.
    Raises CheckpointError when a parent's weights are missing, damaged, or of another base; UserError when the rule
    makes a weight infinite or NaN. Nothing is recorded then.
    """
    if step.rule.routes:
        return record_routing(step, ledger)
    started = time.time()
    precision = step.tuned.training.precision
    entries = changed = tensors = 0
    with ledger.writing(step) as draft, _parents(step, ledger) as parents:
        context = MergeContext(
            lmm=step.model,
            names=parents.names,
            sizes={name: parents.base[name].numel() for name in parents.names},
            skills=[skills_of(finetune, since=step.anchor) for finetune in step.finetunes],
            examples=[examples_of(finetune, since=step.anchor) for finetune in step.finetunes],
            read=parents.read,
            load=lambda i: load_checkpoint(step.finetunes[i], ledger, precision=precision, device=device),
            device=device,
        )
        state = step.rule.prepare(context)
        header = delta_metadata(step.anchor.key, parents.base_digest)
        with DeltaWriter(draft.folder / DELTA, parents.names, header) as delta:
            for name in parents.names:
                anchor, tuned = parents.read(name)
                value = step.rule.merge(state, name, anchor, tuned)
                _check(step, name, anchor, value)
                different = differing_bits(anchor, value)
                entries, changed = entries + value.numel(), changed + different
                if different:
                    tensors += 1
                    delta.add(name, value)
        fields = {
            "precision": precision,
            "checkpoint_bytes": (draft.folder / DELTA).stat().st_size,
            "merged_tensors": len(parents.names),
            "changed_tensors": tensors,
            "merged_entries": entries,
            "changed_entries": changed,
            **step.rule.findings(state),
            "seconds": time.time() - started,
            "provenance": provenance(started),
        }
        return draft.commit(fields)


def _check(step: Merge, name: str, anchor: Tensor, value: Tensor) -> None:
    if value.shape != anchor.shape or value.dtype != anchor.dtype:
        raise TypeError(
            f"{step.rule.name} returned {name} as {value.dtype} of shape {tuple(value.shape)}; "
            f"its anchor is {anchor.dtype} of shape {tuple(anchor.shape)}"
        )
    if not bool(value.isfinite().all()):
        raise UserError(f"{step.rule.label} made {name} of {step.label} infinite or NaN", file=step.path)


def differing_bits(one: Tensor, other: Tensor) -> int:
    """In how many entries two tensors of one dtype differ, bit by bit (−0.0 is not 0.0)."""
    import torch

    as_int = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.int8}[one.element_size()]
    return int((one.contiguous().view(as_int) != other.contiguous().view(as_int)).sum())


@dataclass(frozen=True)
class _Parents:
    """The open deltas of a merge's parents above one pre-trained model."""

    anchor: Chain
    finetunes: Sequence[Chain]
    base: Mapping[str, Tensor]
    base_digest: str

    @property
    def names(self) -> list[str]:
        """Tensors in which a fine-tune differs from the anchor; wide dtypes first, which keeps the file aligned."""
        names = {
            name
            for chain in self.finetunes
            for name in self.anchor.tensors | chain.tensors
            if self.anchor.sources(name) != chain.sources(name)
        }
        return sorted(names, key=lambda name: (-self.base[name].element_size(), name))

    def read(self, name: str) -> tuple[Tensor, list[Tensor]]:
        """The anchor's value of a tensor and each fine-tune's."""
        values = [chain.value(name, self.base[name].detach()) for chain in (self.anchor, *self.finetunes)]
        return values[0], values[1:]


@contextmanager
def _parents(step: Merge, ledger: Ledger) -> Iterator[_Parents]:
    base, digest = load_base(step.model, step.tuned.training.precision, "cpu", "sdpa")
    with ExitStack() as stack:
        chains = [stack.enter_context(tensors_of(parent, ledger)) for parent in step.parents]
        for chain in chains:
            for delta in chain.deltas:
                check_base(delta, digest)
        yield _Parents(chains[0], chains[1:], named_tensors(base), digest)


class DeltaWriter:
    """A safetensors file written one tensor at a time: the header's place is kept free and filled at the end."""

    def __init__(self, path: Path, names: Sequence[str], metadata: Mapping[str, str]) -> None:
        """`names` are all tensors that may come."""
        self._path, self._metadata = path, dict(metadata)
        self._table: dict[str, dict[str, Any]] = {}
        self._at = 0
        longest = {name: {"dtype": "BF16", "shape": [10**12] * 8, "data_offsets": [10**15, 10**15]} for name in names}
        self._room = -(-len(self._header(longest)) // 8) * 8

    def __enter__(self) -> DeltaWriter:
        self._file: BinaryIO = self._path.open("wb")
        self._file.write(struct.pack("<Q", self._room) + b" " * self._room)
        return self

    def add(self, name: str, tensor: Tensor) -> None:
        """Append `tensor` (fp64, fp32, bf16 or fp16; any shape, on any device)."""
        import torch

        kinds = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
        data = tensor.detach().cpu().contiguous()
        end = self._at + data.nbytes
        self._table[name] = {
            "dtype": kinds[data.dtype],
            "shape": list(data.shape),
            "data_offsets": [self._at, end],
        }
        self._file.write(data.reshape(-1).view(torch.uint8).numpy().data)
        self._at = end

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            self._file.seek(8)
            self._file.write(self._header(self._table))

    def _header(self, table: Mapping[str, Any]) -> bytes:
        return json.dumps({"__metadata__": self._metadata, **table}).encode()
