"""Layer contribution (LMM-CL, arXiv 2510.08564): which layer's attention or MLP moved what the LM head reads.

The base and the tuned model read the same questions with their reference answers. Each layer's attention output and MLP
output, as it is added to the residual stream, is projected with the model's own LM head (no final norm); the value is the
Euclidean norm of the difference tuned − base over the vocabulary, averaged over the positions that predict the answer's
tokens, then over samples.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lmmcl.evaluation.generate import batches
from lmmcl.evaluation.probes.questions import rows_of
from lmmcl.evaluation.probes.subject import Findings, Subject, mean
from lmmcl.evaluation.probes.teacher import Answers, answers, forward, per_row
from lmmcl.models.experts import roles_in
from lmmcl.models.lmm import LMM
from lmmcl.tasks.probes import LayerContribution
from lmmcl.tasks.skills import Benchmark

PARTS = ("attention", "mlp")
Place = tuple[str, int]
"""(`attention` or `mlp`, number of the block)."""


def measure(probe: LayerContribution, benchmarks: Sequence[Benchmark], subject: Subject) -> Findings:
    """`attention/N` and `mlp/N` for each block, and the mean over blocks as `attention/mean` and `mlp/mean`."""
    modules = parts_of(subject.lmm, subject.base)  # adapters in the tuned model add parameters that have no role
    samples: dict[Place, list[float]] = defaultdict(list)
    by_benchmark: dict[str, dict[str, float]] = {}
    for benchmark in benchmarks:
        norms_at: dict[Place, list[float]] = defaultdict(list)
        rows = rows_of(subject.processor, benchmark, probe.examples, with_answer=True)
        for batch in batches(rows, subject.model, subject.batch_size):
            answered = answers(subject.processor, batch)
            before, after = outputs(subject.base, modules, answered), outputs(subject.model, modules, answered)
            for place in modules:
                moved = shift(subject.base, before[place], subject.model, after[place])
                norms_at[place] += per_row(moved, answered.row, len(batch)).tolist()
        by_benchmark[benchmark.name] = {f"{part}/{block}": mean(norms) for (part, block), norms in norms_at.items()}
        for place, norms in norms_at.items():
            samples[place] += norms
    values = {f"{part}/{block}": mean(norms) for (part, block), norms in samples.items()}
    for part in PARTS:
        values[f"{part}/mean"] = mean([mean(norms) for (of, _), norms in samples.items() if of == part])
    return Findings(values, {"by_benchmark": by_benchmark})


def parts_of(lmm: LMM, model: PreTrainedModel) -> dict[Place, str]:
    """The name of the module of each block's attention and MLP, found by the roles of their parameters; by block.

    Raises ValueError when the roles name no blocks of a language model.
    """
    names: dict[Place, list[str]] = defaultdict(list)
    for name, role in roles_in(lmm, model).items():
        match role.split("."):
            case ["llm", "blocks", number, part, *_] if part in PARTS:
                names[part, int(number)].append(name)
    if not names:
        raise ValueError(f"no role of {lmm.name} is a block of the language model")
    order = sorted(names, key=lambda place: (place[1], place[0]))
    return {place: _module_of(names[place]) for place in order}


def _module_of(parameters: Sequence[str]) -> str:
    """The innermost module that holds all of these parameters."""
    return posixpath.commonpath([name.replace(".", "/") for name in parameters]).replace("/", ".")


def outputs(model: PreTrainedModel, modules: dict[Place, str], answered: Answers) -> dict[Place, Tensor]:
    """What each module gives at the positions that predict answer tokens, (tokens, hidden)."""
    with _kept(model, modules, answered) as kept:
        forward(model, answered)
    return kept


@contextmanager
def _kept(model: PreTrainedModel, modules: dict[Place, str], answered: Answers) -> Iterator[dict[Place, Tensor]]:
    kept: dict[Place, Tensor] = {}

    def keep(place: Place) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            states = output[0] if isinstance(output, tuple) else output
            if states.shape[:2] != answered.batch["input_ids"].shape:
                raise ValueError(
                    f"{modules[place]} gave {tuple(states.shape)}, which does not keep the positions of the tokens"
                )
            kept[place] = states[answered.row.to(states.device), answered.position.to(states.device)]

        return hook

    with ExitStack() as stack:
        for place, name in modules.items():
            handle = model.get_submodule(name).register_forward_hook(keep(place))
            stack.callback(handle.remove)
        yield kept


@torch.inference_mode()
def shift(base: PreTrainedModel, before: Tensor, tuned: PreTrainedModel, after: Tensor, chunk: int = 128) -> Tensor:
    """‖head(after) − head(before)‖ for each token, (tokens,), in fp32 on the CPU; `chunk` tokens at a time."""
    read, read_base = tuned.get_output_embeddings(), base.get_output_embeddings()
    norms = [
        (read(new).float() - read_base(old).float()).norm(dim=-1).cpu()
        for new, old in zip(after.split(chunk), before.split(chunk), strict=True)
    ]
    return torch.cat(norms)
