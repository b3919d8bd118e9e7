"""An adapter merged into a loaded model, by PEFT: afterwards it is an ordinary model of its class."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmmcl.errors import UserError
from lmmcl.models.model_folder import ADAPTER
from lmmcl.models.sources.adapter_modules import AdapterNames, match_names

ADAPTER_WEIGHTS = "adapter_model.safetensors"


def read_adapter_config(folder: Path, place: str) -> dict[str, Any]:
    """`adapter_config.json`; raises UserError when it cannot be read, or is of an adapter that cannot be merged."""
    try:
        config = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{ADAPTER} cannot be read: {error}", file=place) from error
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        raise UserError(f"{ADAPTER} names no peft_type", file=place)
    kind = config["peft_type"]
    odd = next((name for name in ("layer_replication", "target_parameters") if config.get(name)), None)
    if kind != "LORA" or odd:
        raise UserError(
            f"is an adapter of {f'kind {kind}' if kind != 'LORA' else f'{kind} with {odd}'}; merged at load: LORA (DoRA and rsLoRA "
            "too). Merge it yourself (`PeftModel.from_pretrained(base, folder).merge_and_unload()`, then `save_pretrained`) and "
            "name that folder as the model",
            file=place,
        )
    return config


def tensor_shapes(folder: Path, place: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the adapter's file, from its header."""
    from safetensors import SafetensorError, safe_open

    path = folder / ADAPTER_WEIGHTS
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except (OSError, SafetensorError) as error:
        raise UserError(f"{ADAPTER_WEIGHTS} cannot be read: {error}", file=place) from error


def merge_adapter(model: Any, folder: Path, place: str) -> Any:
    """`model` with the adapter in `folder` added to its weights. Raises UserError when not all of the adapter fits."""
    from peft import PeftModel
    from safetensors.torch import load_file

    names = match_names(model, tensor_shapes(folder, place), place)
    before = {name: parameter.dtype for name, parameter in model.named_parameters()}
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    config = _peft_config(read_adapter_config(folder, place), names, {name: tensors[name].shape[0] for name in tensors})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it would tell is checked here
        try:
            wrapped = PeftModel(model, config)
            _load(wrapped, {names.tensors[name]: tensor for name, tensor in tensors.items()}, place)
            merged: Any = wrapped.merge_and_unload(safe_merge=True)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"cannot be merged: {str(error).strip().splitlines()[0]}", file=place) from error
    after = {name: parameter.dtype for name, parameter in merged.named_parameters()}
    if after.keys() != before.keys():
        changed = ", ".join(sorted(after.keys() ^ before.keys())[:3])
        raise UserError(f"changes which parameters the model has ({changed}): it unties an embedding", file=place)
    for name, parameter in merged.named_parameters():
        parameter.data = parameter.data.to(before[name])
        parameter.requires_grad_(True)
    return merged.eval()


def _peft_config(values: Mapping[str, Any], names: AdapterNames, sizes: Mapping[str, int]) -> Any:
    """The adapter's configuration with the modules named one by one, each with its own rank and alpha."""
    from peft import LoraConfig
    from peft.utils.other import get_pattern_key

    config = LoraConfig.from_peft_type(**{**values, "inference_mode": True})
    ranks, alphas = dict(config.rank_pattern or {}), dict(config.alpha_pattern or {})
    by_module = {names.tensors[name]: size for name, size in sizes.items() if "lora_A" in name or "embedding_A" in name}
    rank_of = {key.removeprefix("base_model.model.").rpartition(".lora_")[0]: size for key, size in by_module.items()}
    config.rank_pattern, config.alpha_pattern = {}, {}
    for old, new in names.adapted.items():
        key = new.replace(".", r"\.")
        config.rank_pattern[key] = rank_of.get(new, ranks.get(get_pattern_key(list(ranks), old), config.r))
        config.alpha_pattern[key] = alphas.get(get_pattern_key(list(alphas), old), config.lora_alpha)
    config.target_modules = set(names.adapted.values())
    config.modules_to_save = list(names.replaced) or None
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    return config


def _load(wrapped: Any, tensors: Mapping[str, Any], place: str) -> None:
    from peft import set_peft_model_state_dict

    result: Any = set_peft_model_state_dict(wrapped, dict(tensors))
    missing = [name for name in result.missing_keys if ".lora_" in name or "modules_to_save" in name]
    if wrong := sorted([*missing, *result.unexpected_keys]):
        raise UserError(f"{len(wrong)} of its tensors were not loaded ({', '.join(wrong[:3])})", file=place)
