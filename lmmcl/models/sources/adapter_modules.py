"""Names of an adapter's tensors as the modules of a model: those of this transformers, and of releases before it.

An adapter carries the names of the modules that it was trained on. transformers has moved modules since (`model.layers` of
Qwen2.5-VL became `model.language_model.layers`), and knows how for whole checkpoints; PEFT follows it for some types alone, and
leaves out with a warning what it does not find. Here every tensor finds its module, or the adapter is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lmmcl.errors import UserError

PREFIX = "base_model.model."
PART = re.compile(r"\.(lora_(?:A|B|embedding_A|embedding_B|magnitude_vector))(?:\.(?:default\.)?weight)?$")
SAVED = re.compile(r"\.(?:modules_to_save|base_layer)(?:\.default)?(?=\.)")

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class AdapterNames:
    """Of an adapter that fits a model: the names of its tensors as PEFT wants them for that model, by those in the file;
    the modules that it adapts, by their names in the file; and the modules that it replaces whole."""

    tensors: Mapping[str, str]
    adapted: Mapping[str, str]
    replaced: tuple[str, ...]


def match_names(model: Any, shapes: Shapes, place: str) -> AdapterNames:
    """Find the module of `model` (loaded, or on the meta device) for each tensor of an adapter.

    Raises UserError for tensors that have none, and for shapes that do not go together.
    """
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters(remove_duplicate=False))
    rename = _renaming(model, parameters)
    tensors: dict[str, str] = {}
    adapted: dict[str, str] = {}
    replaced: dict[str, None] = {}
    lost: list[str] = []
    for name, shape in shapes.items():
        bare = SAVED.sub("", name.removeprefix(PREFIX))
        if match := PART.search(bare):
            old = bare[: match.start()]
            new = old if old in modules else rename(f"{old}.weight").removesuffix(".weight")
            if new not in modules:
                lost.append(old)
                continue
            _check_shape(match[1], shape, modules[new], new, place)
            adapted[old] = new
            tensors[name] = f"{PREFIX}{new}{bare[match.start() :]}".replace(".default", "")
        else:
            new = bare if bare in parameters else rename(bare)
            if new not in parameters:
                lost.append(bare)
                continue
            if tuple(parameters[new].shape) != shape:
                raise _other_base(f"{new} is {_size(shape)}, and {_size(parameters[new].shape)} in the base", place)
            replaced[new.rpartition(".")[0]] = None
            tensors[name] = PREFIX + new
    if lost:
        examples = ", ".join(sorted(set(lost))[:3])
        raise _other_base(f"{len(set(lost))} of its modules are not in the base ({examples})", place)
    return AdapterNames(tensors, adapted, tuple(replaced))


def _check_shape(part: str, shape: tuple[int, ...], module: Any, name: str, place: str) -> None:
    weight = getattr(module, "weight", None)
    if weight is None or weight.ndim != 2:
        raise UserError(
            f"adapts {name}, which is a {type(module).__name__}; only adapters of linear layers and embeddings are merged",
            file=place,
        )
    rows, columns = weight.shape
    expected = {"lora_A": (shape[0], columns), "lora_B": (rows, shape[-1]), "lora_magnitude_vector": (rows,)}
    expected |= {"lora_embedding_A": (shape[0], rows), "lora_embedding_B": (columns, shape[-1])}
    if shape != expected[part]:
        raise _other_base(f"{part} of {name} is {_size(shape)}, and {_size(expected[part])} fits the base", place)


def _other_base(what: str, place: str) -> UserError:
    return UserError(
        f"does not belong to this base: {what}. Name the model that it was trained on: {{adapter: FOLDER, base: MODEL}}",
        file=place,
    )


def _renaming(model: Any, parameters: Mapping[str, Any]) -> Any:
    """How transformers renames a tensor of an older checkpoint of this model."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, rename_source_key

    renamings: Any = [
        conversion for conversion in get_model_conversion_mapping(model) if not isinstance(conversion, WeightConverter)
    ]
    prefix = model.base_model_prefix

    def rename(name: str) -> str:
        return rename_source_key(name, renamings, [], prefix, dict(parameters))[0]

    return rename


def _size(shape: Iterable[int]) -> str:
    return "×".join(map(str, shape)) or "a number"
