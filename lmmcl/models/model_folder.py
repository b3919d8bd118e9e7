"""A `save_pretrained` directory on disk: which of its files transformers really loads, and what must not be guessed about it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lmmcl.errors import UserError

log = logging.getLogger("lmmcl")

CONFIG, GENERATION = "config.json", "generation_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
PROCESSOR_FILES = (
    "*processor_config.json",
    "chat_template.*",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "tekken.json",
    "additional_chat_templates/*",
    "qformer_tokenizer/*",
)
"""Of a `save_pretrained` directory, the files that make its processor, as glob patterns."""
CONTENT = (CONFIG, "config.*.json", "*.safetensors", "*.safetensors.index.json", *PROCESSOR_FILES)
"""Of a directory, the files that decide what is loaded, as glob patterns; the generation settings count by what stops an answer."""


def content_files(folder: Path) -> list[Path]:
    """All files whose bytes belong to the identity of the model in `folder`, sorted."""
    return sorted({path for pattern in CONTENT for path in folder.glob(pattern) if path.is_file()})


def weight_files(folder: Path, config: Mapping[str, Any], *, place: str) -> list[Path]:
    """The files that transformers takes the weights from, as it picks them.

    Raises UserError where there are none, a shard is missing, or two sets of weights lie side by side.
    """
    single = config.get("transformers_weights") or WEIGHTS
    index = folder / (single if single.endswith(".index.json") else INDEX)
    if single == WEIGHTS and (folder / WEIGHTS).is_file() and index.is_file():
        raise UserError(
            f"holds two sets of weights, {WEIGHTS} and the shards of {INDEX}; transformers would load the first and leave "
            "out the other: remove the older one",
            file=place,
        )
    if (folder / single).is_file() and single != index.name:
        return [folder / single]
    if not index.is_file():
        others = sorted(path.name for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern))
        note = f"; there is {', '.join(others[:3])}, which is not loaded as a model" if others else ""
        raise UserError(f"no weights found ({WEIGHTS}, or shards with {INDEX}){note}", file=place)
    shards = sorted(set(_read_json(index, place).get("weight_map", {}).values()))
    if missing := [shard for shard in shards if not (folder / shard).is_file()]:
        raise UserError(f"weights are missing: {', '.join(missing)}", file=place)
    return [folder / shard for shard in shards]


def check_no_adapter(folder: Path, *, place: str) -> None:
    """Raises UserError for a PEFT adapter beside a model: transformers would put it on, unasked."""
    if (folder / ADAPTER).is_file():
        raise UserError(
            f"holds a PEFT adapter ({ADAPTER}) beside the model, and transformers would silently apply it; merge it into the "
            "weights (`PeftModel.from_pretrained(model, folder).merge_and_unload()`, then `save_pretrained`), or move it away",
            file=place,
        )


def generation_stops(folder: Path, config: Mapping[str, Any], *, place: str) -> list[int] | None:
    """The tokens that end an answer by `generation_config.json`; None where the file says no more than the configuration does.

    Without the file transformers takes them from the configuration, which counts already: equal stops are the same model.
    """
    path = folder / GENERATION
    if not path.is_file():
        return None
    stops = _tokens(_read_json(path, place).get("eos_token_id"))
    configured = config.get("eos_token_id")
    if configured is None and isinstance(config.get("text_config"), Mapping):
        configured = config["text_config"].get("eos_token_id")
    return None if configured is not None and stops == _tokens(configured) else stops


def check_loaded(info: Mapping[str, Any], *, place: str) -> None:
    """Raises UserError when a checkpoint lacks tensors of the model, or has them in other shapes; warns of those left over.

    `info` is what transformers tells of a load: what is missing it has drawn at random.
    """
    mismatched = sorted(f"{name} is {_shape(has)}, not {_shape(needs)}" for name, has, needs in info["mismatched_keys"])
    if mismatched:
        raise UserError(
            f"{len(mismatched)} tensors have another shape than the configuration: {_some(mismatched)}", file=place
        )
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    if missing:
        prefix = next(
            (wrapper for wrapper in ("base_model.model.", "module.") if any(n.startswith(wrapper) for n in unexpected)),
            "",
        )
        why = f" (names in the file begin with {prefix!r}: save the unwrapped model)" if prefix else ""
        raise UserError(
            f"the weights lack {len(missing)} of the model's tensors, which would be drawn at random: {_some(missing)}{why}",
            file=place,
        )
    if unexpected:
        log.warning(
            "%s: %d tensors of its files are not loaded, for the architecture has none such: %s",
            place,
            len(unexpected),
            _some(unexpected),
        )


def _shape(size: Iterable[int]) -> str:
    return "×".join(map(str, size)) or "a number"


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _tokens(value: Any) -> list[int]:
    return sorted(value) if isinstance(value, list) else [] if value is None else [value]


def _read_json(path: Path, place: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path.name} cannot be read: {error}", file=place) from error
    if not isinstance(value, dict):
        raise UserError(f"{path.name} is not a JSON object", file=place)
    return value
