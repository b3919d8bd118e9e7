"""InternVL3: InternViT-300M at 448 pixels, a two-layer projector over 2 × 2 merged patches, Qwen2.5."""

from __future__ import annotations

from lmmcl.models.architecture import Architecture
from lmmcl.models.families.parts import language_rules
from lmmcl.models.hub import HubModel
from lmmcl.models.roles import RoleRule

_LAYER = r"model\.vision_tower\.encoder\.layer\.(\d+)\."

VISION_RULES: tuple[RoleRule, ...] = (
    RoleRule(r"model\.vision_tower\.embeddings\..+", "vision.embeddings"),
    RoleRule(rf"{_LAYER}attention\..+", r"vision.blocks.\1.attention"),
    RoleRule(rf"{_LAYER}mlp\..+", r"vision.blocks.\1.mlp"),
    # lambda_1 and lambda_2 scale what attention and MLP add: one number for each channel, like a norm's weight.
    RoleRule(rf"{_LAYER}(?:lambda_[12]|layernorm_(?:before|after)\..+)", r"vision.blocks.\1.norm"),
    RoleRule(r"model\.vision_tower\.layernorm\..+", "vision.norm"),
    RoleRule(r"model\.multi_modal_projector\.(?:layer_norm|linear_1|linear_2)\.(?:weight|bias)", "projector"),
)

RULES: tuple[RoleRule, ...] = language_rules() + VISION_RULES

ARCHITECTURE = Architecture(
    name="internvl",
    rules=RULES,
    processor="lmmcl.models.processing.processors:ImageOnlyInternVLProcessor",
    image_processor="GotOcr2ImageProcessorPil",
    chat="ChatML of Qwen2.5; images stand before the text of their turn",
    images="256 tokens for each of up to 12 tiles of 448 pixels and for a thumbnail",
    tokens=3328,
    patches=13 * 1025,
)
ARCHITECTURES = (ARCHITECTURE,)

MODELS = (
    HubModel(
        "internvl3-1b",
        hub="OpenGVLab/InternVL3-1B-hf",
        revision="014c0583a0d4bedf29fbe2dbff4f865eb998e171",
        architecture=ARCHITECTURE,
        description="InternVL3 on Qwen2.5-0.5B",
    ),
    HubModel(
        "internvl3-2b",
        hub="OpenGVLab/InternVL3-2B-hf",
        revision="cb57a075cb75a2e6d1b668b128d48bb00ae321d2",
        architecture=ARCHITECTURE,
        description="InternVL3 on Qwen2.5-1.5B",
    ),
    HubModel(
        "internvl3-8b",
        hub="OpenGVLab/InternVL3-8B-hf",
        revision="259a3b64a14623c0ec91a045cb43f7c5af5fa6af",
        architecture=ARCHITECTURE,
        description="InternVL3 on Qwen2.5-7B",
    ),
    # InternVL3.5, on Qwen3: the commit that the hub names at the first use is recorded.
    HubModel(
        "internvl3.5-1b",
        hub="OpenGVLab/InternVL3_5-1B-HF",
        revision="",
        architecture=ARCHITECTURE,
        description="InternVL3.5 on Qwen3-0.6B",
    ),
    HubModel(
        "internvl3.5-2b",
        hub="OpenGVLab/InternVL3_5-2B-HF",
        revision="",
        architecture=ARCHITECTURE,
        description="InternVL3.5 on Qwen3-1.7B",
    ),
    HubModel(
        "internvl3.5-4b",
        hub="OpenGVLab/InternVL3_5-4B-HF",
        revision="",
        architecture=ARCHITECTURE,
        description="InternVL3.5 on Qwen3-4B",
    ),
    HubModel(
        "internvl3.5-8b",
        hub="OpenGVLab/InternVL3_5-8B-HF",
        revision="",
        architecture=ARCHITECTURE,
        description="InternVL3.5 on Qwen3-8B",
    ),
)
