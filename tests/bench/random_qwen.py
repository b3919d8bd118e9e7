"""A random model of the shape of Qwen2.5-VL-3B, or smaller, written a shard at a time."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from lmmcl.models.inventory import meta_model

SHARD = 2 * 10**9


@dataclass(frozen=True)
class Size:
    """The model: layers of language model and vision tower, and whether they have the real widths."""

    layers: int = 36
    depth: int = 32
    real: bool = True

    def values(self) -> tuple[dict[str, Any], Any]:
        """Configuration and a processor that knows a few words."""
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from models.small_families import qwen2_5_vl
        from sized_qwen import MROPE_3B, TEXT_3B, VISION_3B

        config, processor = qwen2_5_vl()
        text, vision = config["text_config"], config["vision_config"]
        if self.real:
            text |= {**TEXT_3B, "num_hidden_layers": self.layers, "tie_word_embeddings": True}
            text["rope_parameters"] = {**text["rope_parameters"], "mrope_section": MROPE_3B}
            vision |= {**VISION_3B, "depth": self.depth}
            config["tie_word_embeddings"] = True
        return config, processor


def write_model(folder: Path, size: Size) -> None:
    """A checkpoint of random weights, a shard at a time."""
    config, processor = size.values()
    model = meta_model(config)
    model.config.dtype = torch.bfloat16
    model.config.save_pretrained(folder)
    processor.save_pretrained(folder)
    torch.manual_seed(0)
    shards: list[dict[str, torch.Tensor]] = [{}]
    places: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if sum(tensor.nbytes for tensor in shards[-1].values()) > SHARD:
            _write_shard(folder, len(shards), shards[-1])
            shards[-1] = {}
            shards.append({})
        value = torch.empty(parameter.shape, dtype=torch.bfloat16)
        shards[-1][name] = value.fill_(1.0) if "norm" in name else value.normal_(0, 0.02)
        places[name] = len(shards)
    _write_shard(folder, len(shards), shards[-1])
    index = {"metadata": {}, "weight_map": {name: _shard(number) for name, number in places.items()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _shard(number: int) -> str:
    return f"model-{number:05}.safetensors"


def _write_shard(folder: Path, number: int, tensors: Mapping[str, torch.Tensor]) -> None:
    save_file(dict(tensors), folder / _shard(number), metadata={"format": "pt"})
