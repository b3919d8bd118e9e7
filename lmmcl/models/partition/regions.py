"""Which region of a model a module belongs to: the language model, the vision tower, a projector, an audio tower.

transformers says most of it: each part is a module with a configuration of its own (`text_config`, `vision_config`, …), and a
model knows its input and output embeddings. Class names tell the rest (`…Projector`, `…PatchMerger`), names of attributes are
the last resort (a bare `nn.Linear` called `multi_modal_projector`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lmmcl.models.partition.language import language_roles
from lmmcl.models.partition.tower import tower_roles

LLM, VISION, AUDIO, PROJECTOR, QFORMER = "llm", "vision", "audio", "projector", "qformer"
AUDIO_PROJECTOR, HEAD, GENERATION, ACTION = "audio.projector", "llm.head", "generation", "action"

_BY_CONFIG = (  # the attribute of the whole model's configuration that holds a part's
    (r"text_config|llm_config|language_config|decoder", LLM),
    (r"\w*vision\w*_config|encoder", VISION),
    (r"audio\w*_config|speech\w*_config", AUDIO),
    (r"qformer_config", QFORMER),
    (r"perceiver_config|adapter_config|projector_config|resampler_config", PROJECTOR),
    (r"vq_config", GENERATION),
    (r"dit_config", ACTION),
)
_PROJECTOR_CLASS = re.compile(
    r".*(?:Projector|Projection|Connector|Merger|Aligner|AlignerMLP|Resampler|Adapter|MultimodalEmbedder|VisionEmbedder|"
    r"VisualEmbeddingTable|Downsampler|Pooler|LayerwiseProjectors)(?:Model)?"
)
_INNER_PROJECTOR_CLASS = re.compile(r"(?!.*ViT).*(?:Merger|Projector|Connector|Aligner)(?:MLP)?")
_AUDIO_PROJECTOR_CLASS = re.compile(r".*(?:Adapter|Projector|MultimodalEmbedder)")
_GENERATION = re.compile(r"generation_\w+")
_BY_CLASS = (
    (re.compile(r".*(?:Audio|Speech|Wav).*"), AUDIO),
    (re.compile(r".*(?:Vision|Visual|Sam|VQVAE|VQ|ImageTokenizer|PatchEmbed).*"), VISION),
    (re.compile(r".*(?:Action).*"), ACTION),
)
_BY_NAME = (
    (
        re.compile(
            r"\w*(?:projector|projection|connector|merger|aligner|resampler|adapter|vision_embed_tokens|enc_to_dec_proj)s?"
        ),
        PROJECTOR,
    ),
    (re.compile(r"action_\w+|state_proj"), ACTION),
    (re.compile(r"\w*(?:audio|speech)\w*"), AUDIO),
    (re.compile(r"\w*vision\w*|visual\w*|image_\w+|vqmodel|view_sep\w+|patch_embed|img_\w+"), VISION),
)


def partition(model: Any) -> dict[str, str]:
    """The role of each parameter of `model` by its name; one that belongs to no part that is known is left out.

    `model` is one of transformers' image-text-to-text classes, loaded or on the meta device.
    """
    regions = dict(_regions(model))
    names = {region: [name for name, of in regions.items() if of == region] for region in set(regions.values())}
    roles = language_roles(model, [name for name, region in regions.items() if region in (LLM, None)])
    roles = {name: role for name, role in roles.items() if regions[name] or role != "llm.other"}
    for region, of in names.items():
        if region in (VISION, AUDIO):
            roles |= tower_roles(model, of, region)
        elif region not in (LLM, None):
            roles |= dict.fromkeys(of, region)
    return {name: roles[name] for name in regions if name in roles}


def _regions(model: Any) -> Iterator[tuple[str, str | None]]:
    """The region of each parameter by its name, tied ones once; None where nothing says it."""
    configs = _config_regions(model.config)
    head = model.get_output_embeddings()
    generates = any(region == GENERATION for region in configs.values()) and VISION in configs.values()
    by_name: dict[str, str | None] = {}

    def visit(module: Any, name: str, region: str | None) -> None:
        for attribute, _ in module.named_parameters(recurse=False):
            by_name[f"{name}.{attribute}" if name else attribute] = region or _of_attribute(attribute)
        for attribute, child in module.named_children():
            inner = HEAD if child is head else _switch(child, attribute, region, configs)
            if inner == GENERATION and not generates:
                inner = VISION
            visit(child, f"{name}.{attribute}" if name else attribute, inner)

    visit(model, "", None)
    has_qformer = QFORMER in by_name.values()
    for name, _ in model.named_parameters():
        region = by_name[name]
        if has_qformer and (region == PROJECTOR or name == "query_tokens"):
            region = QFORMER  # all between a frozen tower and a frozen language model: what these families are tuned by
        yield name, region


def _switch(module: Any, attribute: str, region: str | None, configs: dict[int | type, str]) -> str | None:
    """The region of a child of a module in `region`; None where it holds several."""
    kind = type(module).__name__
    if region == VISION:
        return PROJECTOR if _INNER_PROJECTOR_CLASS.fullmatch(kind) else region
    if region == AUDIO:
        return AUDIO_PROJECTOR if _AUDIO_PROJECTOR_CLASS.fullmatch(kind) else region
    if region is not None:
        return region
    if _GENERATION.fullmatch(attribute):
        return GENERATION
    own = getattr(module, "config", None)
    if own is not None and (known := configs.get(id(own)) or configs.get(type(own))):
        if known == VISION and _PROJECTOR_CLASS.fullmatch(kind):
            return PROJECTOR
        return known
    if _PROJECTOR_CLASS.fullmatch(kind):
        return AUDIO_PROJECTOR if "audio" in attribute else PROJECTOR
    for pattern, known in _BY_CLASS:
        if pattern.fullmatch(kind) and not _is_whole(module):
            return known
    return None if _is_whole(module) else _of_attribute(attribute)


def _is_whole(module: Any) -> bool:
    """Whether it is a wrapper of several parts, such as `LlavaModel`: it has the whole model's kind of configuration."""
    from transformers import PreTrainedModel

    return isinstance(module, PreTrainedModel)


def _of_attribute(attribute: str) -> str | None:
    return next((region for pattern, region in _BY_NAME if pattern.fullmatch(attribute)), None)


def _config_regions(config: Any) -> dict[int | type, str]:
    """Region by the identity of a part's configuration, and by its class where one part alone has that class.

    A part may be made from a copy of its configuration, so that identity alone would miss it.
    """
    by_config: dict[int | type, str] = {}
    classes: dict[type, set[str]] = {type(config): {"", "whole"}}

    def mark(value: Any, region: str) -> None:
        by_config[id(value)] = region
        classes.setdefault(type(value), set()).add(region)
        for inner in _inner_configs(value).values():
            mark(inner, region)

    def visit(parent: Any) -> None:
        for name, value in _inner_configs(parent).items():
            region = next((region for pattern, region in _BY_CONFIG if re.fullmatch(pattern, name)), None)
            if region is None or any(re.fullmatch(_BY_CONFIG[0][0], inner) for inner in _inner_configs(value)):
                visit(value)  # a model of several parts inside this one
            else:
                mark(value, region)

    visit(config)
    return by_config | {kind: next(iter(regions)) for kind, regions in classes.items() if len(regions) == 1}


def _inner_configs(config: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(config).items() if hasattr(value, "model_type")}
