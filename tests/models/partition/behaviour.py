"""What a small model of any type does with its parameters: which modules use them, and what scaling them does to an output.

Hooks on transformers' own modules see every tensor operation on a parameter. A text alone must use the language model and
nothing else; images must use the vision tower and the projector and none of the language model; and inside the blocks the
output of an MLP doubles with its `down` and is affine in its `up` where it has a gate, but not in its gate.

`python -m models.partition.behaviour TYPE…` examines types, each in a process of its own with bounded memory, and prints rows.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from models.partition.counts import shares
from models.partition.inputs import image_inputs, run
from models.partition.uses import Uses, flat

MEMORY, SECONDS = 8 * 2**30, 300


def build(model_type: str) -> Any:
    """A small model with random weights, so that no parameter is zero or one by its start."""
    import torch
    from models.shrunk import shrunk
    from transformers import AutoConfig, AutoModelForImageTextToText

    torch.manual_seed(0)
    config = AutoConfig.for_model(**shrunk(model_type))
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model


def blocks_of(roles: dict[str, str], kind: str) -> dict[int, list[str]]:
    """Names of the parameters of each block of the language model with a role of `kind`."""
    found: dict[int, list[str]] = {}
    for name, role in roles.items():
        if match := re.fullmatch(rf"llm\.blocks\.(\d+)\.{kind}\..+", role):
            found.setdefault(int(match[1]), []).append(name)
    return found


def check_text(model: Any, roles: dict[str, str], uses: Uses, *, pictured: bool) -> list[str]:
    """What is wrong with the roles by a text, alone or (`pictured`) with the picture that the type needs."""
    wrong = []
    foreign = [name for name in uses.stacks if not roles[name].startswith("llm.")]
    if foreign and not pictured:
        wrong.append(f"a text uses {roles[foreign[0]]} ({foreign[0]})")
    crossing = {role.split(".")[2] for role in roles.values() if ".cross_attention." in role}
    idle = [
        name
        for name, role in roles.items()
        if role.startswith("llm.") and name not in uses.stacks and not _may_idle(name, role, crossing)
    ]
    if idle:
        wrong.append(f"a text does not use {roles[idle[0]]} ({idle[0]}), {len(idle)} in all")
    attention = _attention_modules(model)
    for name, stacks in uses.stacks.items():
        kind = roles[name].split(".")[3] if roles[name].startswith("llm.blocks.") else ""
        inside = [any(module in attention for module in stack) for stack in stacks]
        if kind == "attention" and not all(inside) and not _is_linear(roles[name]) and ".other" not in roles[name]:
            wrong.append(f"{name} is {roles[name]} and used outside of attention")
        if kind in ("mlp", "router") and any(inside):
            wrong.append(f"{name} is {roles[name]} and used inside of attention")
    return wrong[:3]


def _is_linear(role: str) -> bool:
    return role.endswith(".linear")


def _may_idle(name: str, role: str, crossing: set[str]) -> bool:
    """What a text alone leaves out by design: blocks with cross-attention to images, experts for images, indexers of short texts."""
    in_crossing = role.startswith("llm.blocks.") and role.split(".")[2] in crossing
    if "decoder.relative_bias" in name:  # UDOP's decoder has positions of boxes too, and is shown none
        return True
    return in_crossing or "vision_moe" in name or ".indexer" in role or role.endswith(".other")


def _attention_modules(model: Any) -> set[str]:
    """Modules that transformers records as attention, or calls so by their class."""
    classes: set[str] = set()
    for module in model.modules():
        recorded = (getattr(module, "_can_record_outputs", None) or {}).get("attentions", ())
        for each in recorded if isinstance(recorded, list | tuple) else [recorded]:
            kind = getattr(each, "target_class", each)
            classes.add(kind if isinstance(kind, str) else getattr(kind, "__name__", ""))
    return {
        name
        for name, module in model.named_modules()
        if type(module).__name__ in classes or re.fullmatch(r".*Attention|.*LayerSelfAttention", type(module).__name__)
    }


def check_mlps(model: Any, roles: dict[str, str], uses: Uses) -> list[str]:
    """What is wrong with the parts of MLPs, by what scaling them does to the output of their module."""
    from lmmcl.models.partition.fused import fused_layouts

    layouts = fused_layouts(model, roles)
    modules: dict[str, list[str]] = {}
    for names in blocks_of(roles, "mlp").values():
        for name in names:
            stacked = name in uses.stacks and model.get_parameter(name).ndim == 3
            owner = name.rpartition(".")[0]
            modules.setdefault(owner if stacked else owner.rpartition(".")[0], []).append(name)
    wrong = []
    for module, names in modules.items():
        parts = {part for name in names for role in layouts.get(name, [roles[name]]) for part in [role.split(".")[4]]}
        if module not in uses.calls or not {"up", "down"} <= parts or module == _block_of(model, module):
            continue
        if not hasattr(model.get_submodule(module), "post_expert_norm"):  # takes back what scaling does
            wrong += _scale(model, module, names, roles, layouts, uses.calls[module])
    return wrong[:3]


def _block_of(model: Any, module: str) -> str:
    """The block itself where an MLP is not a module of its own (`fc1` and `fc2` of BART's blocks)."""
    from lmmcl.models.partition.modules import is_block

    return module if is_block(model.get_submodule(module)) else ""


def _scale(model: Any, module: str, names: Sequence[str], roles: dict, layouts: dict, call: tuple) -> Iterator[str]:
    import torch

    parameters = dict(model.named_parameters())
    layer = model.get_submodule(module)

    def output() -> Any:
        with torch.no_grad():
            value = layer(*call[0], **call[1])
        return next(each for each in flat(value) if isinstance(each, torch.Tensor) and each.is_floating_point())

    def scaled(part: str, factor: int) -> Any:
        """The output with `part` scaled; None where there is no such part."""
        kept, hit = {}, False
        for name in names:
            pieces = layouts.get(name) or {roles[name]: None}
            for role, piece in pieces.items():
                if role.split(".")[4] == part:
                    kept.setdefault(name, parameters[name].data.clone())
                    index = None if piece is None else piece.mask(parameters[name].shape[piece.dim]).nonzero().flatten()
                    if index is None:
                        parameters[name].data.mul_(factor)
                    else:
                        rows = parameters[name].data.index_select(piece.dim, index)
                        parameters[name].data.index_copy_(piece.dim, index, factor * rows)
                    hit = True
        if not hit:
            return None
        after = output()
        for name, value in kept.items():
            parameters[name].data.copy_(value)
        return after

    def bend(part: str) -> float | None:
        """How far the output is from an affine function of `part`, relative to its slope; None where there is no such part."""
        values = [scaled(part, factor) for factor in (1, 2, 3)]
        if values[0] is None:
            return None
        slope = (values[1] - values[0]).norm().clamp(min=1e-12)
        return float((values[2] - 2 * values[1] + values[0]).norm() / slope)

    before = output()
    twice = scaled("down", 2)
    if twice is not None and (miss := float((twice - 2 * before).norm() / before.norm().clamp(min=1e-12))) > 1e-3:
        yield f"{module}: doubling down misses the double by {miss:.2g}"
    up, gate = bend("up"), bend("gate")
    if gate is not None and up is not None and (up > 0.05 * gate or gate < 1e-3):  # a soft cap bends a little
        yield f"{module}: the output bends with up by {up:.2g}, with the gate by {gate:.2g}"


def check_images(model: Any, roles: dict[str, str]) -> tuple[str, list[str]]:
    """How a picture was shown (empty where no way was found), and what is wrong with the roles by it."""
    method = next(
        (
            getattr(part, "get_image_features", None)
            for part in (model, model.base_model)
            if hasattr(part, "get_image_features")
        ),
        None,
    )
    if method is None:
        return "", []
    for inputs in image_inputs(model, method):
        uses = Uses(model)
        try:
            with uses.watch():
                method(**inputs)
        except (
            TypeError,
            ValueError,
            RuntimeError,
            AttributeError,
            IndexError,
            AssertionError,
            KeyError,
            NotImplementedError,
        ):
            continue
        return " × ".join(map(str, inputs["pixel_values"].shape)), list(_wrong_by_image(roles, uses))[:3]
    return "", []


def _wrong_by_image(roles: dict[str, str], uses: Uses, *, text: bool = False) -> Iterator[str]:
    seen = {name: role for name, role in roles.items() if role.split(".")[0] in ("vision", "projector", "qformer")}
    for name in uses.stacks:
        if name not in seen and not text and not roles[name].startswith("llm.embeddings"):
            yield f"a picture uses {roles[name]} ({name})"
    blocks = [name for name, role in seen.items() if role.startswith("vision.blocks.")]
    used = [name for name in blocks if name in uses.stacks]
    if len(used) < len(blocks) / 2:
        yield f"a picture uses {len(used)} of {len(blocks)} parameters of the tower's blocks"
    attention = _attention_modules(uses.model)
    for name in used:
        inside = any(module in attention for stack in uses.stacks[name] for module in stack)
        if roles[name].endswith(".mlp") and inside:
            yield f"{name} is {roles[name]} and used inside of attention"


def examine(model_type: str) -> dict[str, Any]:
    """One row: roles with their shares, and what is wrong with them by behaviour (nothing, it is to be hoped)."""
    from lmmcl.models.families.generic import generic_roles
    from lmmcl.models.inventory import count_roles, parameter_counts, piece_counts
    from lmmcl.models.roles import summary

    model = build(model_type)
    roles = dict(generic_roles(model, place=model_type))
    sizes = parameter_counts(model)
    counts = count_roles(roles, sizes, piece_counts(model, roles))
    assert set(roles) == set(sizes) and sum(counts.values()) == sum(sizes.values())
    row: dict[str, Any] = {"type": model_type, "parameters": sum(sizes.values()), "roles": summary(counts)}
    row["shares"] = shares(model_type, counts)
    language = {role: n for role, n in counts.items() if role.startswith("llm.")}
    left = sum(n for role, n in language.items() if role == "llm.other" or role.split(".")[3:] == ["other"])
    row["other"] = round(left / sum(language.values()), 4)
    uses = Uses(model)
    with uses.watch():
        pictured = run(model)
    if pictured:
        row["image"], wrong = "with its text", list(_wrong_by_image(roles, uses, text=True))[:3]
    else:
        row["image"], wrong = check_images(model, roles)
    row["wrong"] = [*check_text(model, roles, uses, pictured=pictured), *check_mlps(model, roles, uses), *wrong]
    return row


def isolated(types: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row of each type, each from a process of its own with bounded memory and time; the libraries are imported once."""
    import torch
    import transformers.models.auto.modeling_auto  # noqa: F401

    torch.set_num_threads(1)
    for model_type in types:
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.close(read)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            signal.alarm(SECONDS)
            try:
                row = examine(model_type)
            except BaseException as error:  # noqa: BLE001  # a row says what happened, whatever it was
                at = traceback.extract_tb(error.__traceback__)[-1]
                message = f"{type(error).__name__}: {str(error).strip()[:300]} ({Path(at.filename).name}:{at.lineno})"
                row = {"type": model_type, "error": message}
            os.write(write, json.dumps(row).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            text = pipe.read().decode()
        os.waitpid(child, 0)
        yield json.loads(text) if text else {"type": model_type, "error": "ended without output"}


if __name__ == "__main__":
    for result in isolated(sys.argv[1:]):
        print(json.dumps(result), flush=True)
