"""Qwen3-VL: a vision transformer at native resolution whose features enter several layers of Qwen3 (DeepStack)."""

from __future__ import annotations

from lmmcl.models.architecture import Architecture
from lmmcl.models.families.parts import language_rules
from lmmcl.models.hub import HubModel
from lmmcl.models.roles import RoleRule

VISION_RULES: tuple[RoleRule, ...] = (
    RoleRule(r"model\.visual\.(?:patch_embed\..+|pos_embed\.weight)", "vision.embeddings"),
    RoleRule(r"model\.visual\.blocks\.(\d+)\.attn\.(?:qkv|proj)\.(?:weight|bias)", r"vision.blocks.\1.attention"),
    RoleRule(r"model\.visual\.blocks\.(\d+)\.mlp\.linear_fc[12]\.(?:weight|bias)", r"vision.blocks.\1.mlp"),
    RoleRule(r"model\.visual\.blocks\.(\d+)\.norm[12]\.(?:weight|bias)", r"vision.blocks.\1.norm"),
    # Mergers map patches into the language model, at its beginning and (deepstack) after its first layers.
    RoleRule(r"model\.visual\.(?:merger|deepstack_merger_list\.\d+)\..+", "projector"),
)

RULES: tuple[RoleRule, ...] = language_rules() + VISION_RULES

ARCHITECTURE = Architecture(
    name="qwen3_vl",
    rules=RULES,
    processor="lmmcl.models.processing.processors:ImageOnlyQwen3VLProcessor",
    image_processor="Qwen2VLImageProcessorPil",
    chat="ChatML without a system turn; images stand where they are in the text",
    images="native resolution in patches of 16 pixels, 2 × 2 merged: a token for each 32 × 32 pixels",
    tokens=768,
    patches=4 * 768,
)
ARCHITECTURES = (ARCHITECTURE,)

MODELS = (
    HubModel(
        "qwen3-vl-2b",
        hub="Qwen/Qwen3-VL-2B-Instruct",
        revision="89644892e4d85e24eaac8bacfd4f463576704203",
        architecture=ARCHITECTURE,
        description="Qwen3-VL, 2 B",
    ),
    HubModel(
        "qwen3-vl-4b",
        hub="Qwen/Qwen3-VL-4B-Instruct",
        revision="ebb281ec70b05090aa6165b016eac8ec08e71b17",
        architecture=ARCHITECTURE,
        description="Qwen3-VL, 4 B",
    ),
    HubModel(
        "qwen3-vl-8b",
        hub="Qwen/Qwen3-VL-8B-Instruct",
        revision="0c351dd01ed87e9c1b53cbc748cba10e6187ff3b",
        architecture=ARCHITECTURE,
        description="Qwen3-VL, 8 B",
    ),
)
