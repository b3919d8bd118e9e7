"""Models with experts of either kind: give a model those that a checkpoint names, tell which it has, and their roles.

A checkpoint names them by entries: the name of an MLP that has two experts, or of a linear layer with the settings of its LoRA
experts (see `lora_experts.LoRAExperts.entry`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lmmcl.models.experts import lora_experts, two_experts
from lmmcl.models.experts.lora_experts import MARK, parse_entry
from lmmcl.models.lmm import LMM
from lmmcl.models.quantized.nf4 import earlier_names, nf4_layers


def grow(model: Any, entries: Iterable[str]) -> None:
    """Give a model the experts of `entries`, in place; what has some is left as it is."""
    for entry in entries:
        if MARK in entry:
            lora_experts.add_lora_experts(model, entry)
        else:
            two_experts.add_expert(model, entry)


def grown(model: Any) -> list[str]:
    """The entries of the experts that a model has."""
    layers = lora_experts.expert_layers(model)
    return [
        layers[name].entry(name) if name in layers else name
        for name, module in model.named_modules()
        if name in layers or two_experts.is_grown(module)
    ]


def describe(entries: Sequence[str]) -> str:
    """`two experts in 3 MLPs`, `8 LoRA experts in 21 layers`."""
    layers = [parse_entry(entry)[1].experts for entry in entries if MARK in entry]
    mlps = len(entries) - len(layers)
    parts = [f"two experts in {mlps} MLPs"] if mlps else []
    return " and ".join([*parts, f"{max(layers)} LoRA experts in {len(layers)} layers"] if layers else parts)


def roles_in(lmm: LMM, model: Any) -> dict[str, str]:
    """The role of every parameter of a loaded model, with those that `grow` added: each in exactly one role.

    Adapters beside a quantised weight have the role of that weight.
    """
    names = [name for name, _ in model.named_parameters()]
    modules = [(entry.partition(MARK)[0], lora_experts if MARK in entry else two_experts) for entry in grown(model)]
    heads = tuple(f"{module}.{part}" for module, kind in modules for part in _PARTS[kind])
    added = {name for name in names if heads and name.startswith(heads)}
    beside = {name: weight for weight in nf4_layers(model) for name in earlier_names(weight)}
    roles = lmm.roles_of(name for name in names if name not in added and name not in beside)
    for module, kind in modules:
        roles |= kind.added_roles(module, added, roles)
    return roles | {name: roles[weight] for name, weight in beside.items()}


_PARTS = {
    two_experts: (f"{two_experts.TUNED}.", f"{two_experts.ROUTER}."),
    lora_experts: (*lora_experts.FACTORS, f"{lora_experts.ROUTER}."),
}
