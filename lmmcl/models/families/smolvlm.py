"""SmolVLM2: SigLIP, a linear connector over shuffled pixels, SmolLM2."""

from __future__ import annotations

from lmmcl.models.architecture import Architecture
from lmmcl.models.families.parts import language_rules, tower_rules
from lmmcl.models.hub import HubModel
from lmmcl.models.roles import RoleRule

RULES: tuple[RoleRule, ...] = (
    *language_rules("model.text_model"),
    *tower_rules("model.vision_model"),
    RoleRule(r"model\.connector\..+", "projector"),
)

ARCHITECTURE = Architecture(
    name="smolvlm",
    rules=RULES,
    processor="lmmcl.models.processing.processors:ImageOnlySmolVLMProcessor",
    image_processor="SmolVLMImageProcessorPil",
    chat="'User:' and 'Assistant:' after one start mark; every turn ends with <end_of_utterance>",
    images="the longest side is scaled to 4 tiles, each tile and a thumbnail are 64 (500 M) or 81 (2.2 B) tokens",
    tokens=832,
    patches=13 * 1024,
    dialogues=2,
)
ARCHITECTURES = (ARCHITECTURE,)

MODELS = (
    HubModel(
        "smolvlm2-500m",
        hub="HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
        revision="7b375e1b73b11138ff12fe22c8f2822d8fe03467",
        architecture=ARCHITECTURE,
        description="SmolVLM2, 500 M",
    ),
    HubModel(
        "smolvlm2-2.2b",
        hub="HuggingFaceTB/SmolVLM2-2.2B-Instruct",
        revision="482adb537c021c86670beed01cd58990d01e72e4",
        architecture=ARCHITECTURE,
        description="SmolVLM2, 2.2 B",
    ),
)
