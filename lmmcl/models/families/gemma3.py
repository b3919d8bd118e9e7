"""Gemma 3: SigLIP at 896 pixels, pooled to 256 tokens, a linear projector, Gemma 3 with local and global attention."""

from __future__ import annotations

from lmmcl.models.architecture import Architecture
from lmmcl.models.families.parts import language_rules, tower_rules
from lmmcl.models.hub import HubModel
from lmmcl.models.roles import RoleRule

RULES: tuple[RoleRule, ...] = (
    *language_rules(),
    *tower_rules(),
    RoleRule(r"model\.multi_modal_projector\.(?:mm_input_projection_weight|mm_soft_emb_norm\.weight)", "projector"),
)

ARCHITECTURE = Architecture(
    name="gemma3",
    rules=RULES,
    processor="Gemma3Processor",
    image_processor="Gemma3ImageProcessorPil",
    chat="<start_of_turn>user … <end_of_turn>; a system turn is written into the first user turn",
    images="one view of 896 pixels, 256 tokens between start and end marks; tokens of an image see each other both ways",
    tokens=256,
    patches=4096,
    dialogues=2,
)
ARCHITECTURES = (ARCHITECTURE,)

MODELS = (
    HubModel(
        "gemma-3-4b",
        hub="google/gemma-3-4b-it",
        revision="093f9f388b31de276ce2de164bdc2081324b9767",
        architecture=ARCHITECTURE,
        description="Gemma 3, 4 B (gated: accept its terms first)",
    ),
)
