"""Small checkpoints as their makers published them: original names of tensors, two shards with an index, files of the processor.

`publish(FAMILY, FOLDER)` writes one; the names, and where a configuration says that embeddings are tied, are those of the releases
below, which were made with older versions of transformers than the one that reads them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.small_families import FAMILIES, save
from models.walk_type import as_published

Rename = tuple[str, str]

VISION_MODEL: Rename = (r"^vision_tower\.(?!vision_model)", "vision_tower.vision_model.")
ORIGINAL: dict[str, tuple[Rename, ...]] = {
    "llava": (VISION_MODEL,),
    "llava_next": (VISION_MODEL,),
    "llava_onevision": (VISION_MODEL,),
    "gemma3": (VISION_MODEL,),
    "qwen2_5_vl": ((r"^model\.visual\.", "visual."), (r"^model\.language_model\.", "model.")),
    "qwen3_vl": (),
    "internvl": (),
    "smolvlm": (),
    "instructblip": (),
}
"""What the names that this transformers writes are changed to, to be those of the release."""
PREFIXES = {
    "llava": {
        "language_model.model.",
        "language_model.lm_head.",
        "vision_tower.vision_model.",
        "multi_modal_projector.",
    },
    "llava_next": {
        "language_model.model.",
        "language_model.lm_head.",
        "vision_tower.vision_model.",
        "multi_modal_projector.",
        "image_newline",
    },
    "llava_onevision": {
        "language_model.model.",
        "vision_tower.vision_model.",
        "multi_modal_projector.",
        "image_newline",
    },
    "gemma3": {"language_model.model.", "vision_tower.vision_model.", "multi_modal_projector."},
    "qwen2_5_vl": {"visual.", "model.embed_tokens.", "model.layers.", "model.norm."},
    "qwen3_vl": {"model.visual.", "model.language_model.", "lm_head."},
    "internvl": {"language_model.model.", "language_model.lm_head.", "vision_tower.", "multi_modal_projector."},
    "smolvlm": {"model.text_model.", "model.vision_model.", "model.connector.", "lm_head."},
    "instructblip": {
        "language_model.model.",
        "language_model.lm_head.",
        "vision_model.",
        "qformer.",
        "language_projection.",
        "query_tokens",
    },
}
"""How the names of a release begin."""


def _flat(config: dict[str, Any]) -> None:
    """Qwen2.5-VL-3B: settings of the language model at the top, with the tie of its embeddings; no `text_config`."""
    text = config.pop("text_config")
    config |= {name: value for name, value in text.items() if name not in ("model_type", "dtype")}
    config["tie_word_embeddings"] = True


def _tied_inside(config: dict[str, Any]) -> None:
    """LLaVA-OneVision-0.5B: that embeddings are tied stands inside the text configuration alone."""
    config.pop("tie_word_embeddings", None)
    config["text_config"]["tie_word_embeddings"] = True


TIED: dict[str, Callable[[dict[str, Any]], None]] = {"qwen2_5_vl": _flat, "llava_onevision": _tied_inside}


def publish(family: str, folder: Path) -> Path:
    """A checkpoint of `family` in `folder`, small and random, as a release looks."""
    from safetensors.torch import load_file, save_file

    config, processor = FAMILIES[family]()
    if family in TIED:
        config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True
    save(folder, config, processor)
    as_published(folder)
    tensors = {_original(family, name): value for name, value in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, its in shards.items():
        save_file({name: tensors[name] for name in its}, folder / shard, metadata={"format": "pt"})
    weight_map = {name: shard for shard, its in shards.items() for name in its}
    size = sum(value.nbytes for value in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    written = json.loads((folder / "config.json").read_text())
    TIED.get(family, lambda config: None)(written)
    written["transformers_version"] = "4.49.0"
    (folder / "config.json").write_text(json.dumps(written))
    (folder / "README.md").write_text(f"# {family} in small\n")
    return folder


def _original(family: str, name: str) -> str:
    for pattern, replacement in ORIGINAL[family]:
        name = re.sub(pattern, replacement, name)
    return name
