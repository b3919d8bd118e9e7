"""LLaVA-OneVision: SigLIP so400m at 384 pixels (26 of its 27 layers), a two-layer projector, Qwen2."""

from __future__ import annotations

from lmmcl.models.architecture import Architecture
from lmmcl.models.families.parts import language_rules, tower_rules
from lmmcl.models.hub import HubModel
from lmmcl.models.roles import RoleRule

LLAVA_RULES: tuple[RoleRule, ...] = (
    RoleRule(r"model\.multi_modal_projector\.linear_[12]\.(?:weight|bias)", "projector"),
    # One vector that ends a row of patches: neither the tower nor the projector of the papers' recipes holds it.
    RoleRule(r"model\.image_newline", "vision.other"),
)

RULES: tuple[RoleRule, ...] = language_rules() + tower_rules() + LLAVA_RULES

ARCHITECTURE = Architecture(
    name="llava_onevision",
    rules=RULES,
    processor="lmmcl.models.processing.processors:ImageOnlyLlavaOnevisionProcessor",
    image_processor="LlavaOnevisionImageProcessorPil",
    chat="ChatML of Qwen2 without a system turn; images stand before the text of their turn",
    images="729 tokens for the whole picture, and tiles of 384 pixels (anyres_max_9: more than 9 tiles' worth is scaled "
    "down); several images in a dialogue: one view of 729 tokens each",
    tokens=4671,
    patches=7 * 729,
)
ARCHITECTURES = (ARCHITECTURE,)

MODELS = (
    HubModel(
        "llava-onevision-0.5b",
        hub="llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
        revision="74dd0bf867a4cda7950c17663794267c60cf4b40",
        architecture=ARCHITECTURE,
        description="LLaVA-OneVision on Qwen2-0.5B",
    ),
    HubModel(
        "llava-onevision-7b",
        hub="llava-hf/llava-onevision-qwen2-7b-ov-hf",
        revision="0d50680527681998e456c7b78950205bedd8a068",
        architecture=ARCHITECTURE,
        description="LLaVA-OneVision on Qwen2-7B: the main model of LMM-CL",
    ),
)
