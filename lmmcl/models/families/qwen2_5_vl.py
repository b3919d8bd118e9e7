"""Qwen2.5-VL: a vision transformer of its own at native resolution, a merger of 2 × 2 patches, Qwen2.5.

Its vision blocks have gate, up and down projections too, so rules are anchored at the module, never at a suffix.
"""

from __future__ import annotations

from lmmcl.models.architecture import Architecture
from lmmcl.models.families.parts import language_rules
from lmmcl.models.hub import HubModel
from lmmcl.models.roles import RoleRule

VISION_RULES: tuple[RoleRule, ...] = (
    RoleRule(r"model\.visual\.patch_embed\..+", "vision.embeddings"),
    RoleRule(r"model\.visual\.blocks\.(\d+)\.attn\.(?:qkv|proj)\.(?:weight|bias)", r"vision.blocks.\1.attention"),
    RoleRule(r"model\.visual\.blocks\.(\d+)\.mlp\.(?:gate|up|down)_proj\.(?:weight|bias)", r"vision.blocks.\1.mlp"),
    RoleRule(r"model\.visual\.blocks\.(\d+)\.norm[12]\.weight", r"vision.blocks.\1.norm"),
    # The merger joins 2 × 2 patches and maps them into the language model: what LLaVA calls the projector.
    RoleRule(r"model\.visual\.merger\..+", "projector"),
)

RULES: tuple[RoleRule, ...] = language_rules() + VISION_RULES

ARCHITECTURE = Architecture(
    name="qwen2_5_vl",
    rules=RULES,
    processor="lmmcl.models.processing.processors:ImageOnlyQwen2_5_VLProcessor",
    image_processor="Qwen2VLImageProcessorPil",
    chat="ChatML with the system turn 'You are a helpful assistant.'; images stand where they are in the text",
    images="native resolution in patches of 14 pixels, 2 × 2 merged: a token for each 28 × 28 pixels; the checkpoint's "
    "limits (3,136 to 12,845,056 pixels) hold, so large pictures are long",
    tokens=999,
    patches=4 * 999,
)
ARCHITECTURES = (ARCHITECTURE,)

MODELS = (
    HubModel(
        "qwen2.5-vl-3b",
        hub="Qwen/Qwen2.5-VL-3B-Instruct",
        revision="66285546d2b821cf421d4f5eb2576359d3770cd3",
        architecture=ARCHITECTURE,
        description="Qwen2.5-VL, 3 B",
    ),
    HubModel(
        "qwen2.5-vl-7b",
        hub="Qwen/Qwen2.5-VL-7B-Instruct",
        revision="cc594898137f460bfe9f0759e9844b3ce807cfb5",
        architecture=ARCHITECTURE,
        description="Qwen2.5-VL, 7 B: the third model of LMM-CL",
    ),
)
