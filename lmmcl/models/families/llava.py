"""LLaVA-1.5: CLIP-L at 336 pixels, a two-layer projector, Vicuna."""

from __future__ import annotations

from lmmcl.models.architecture import Architecture
from lmmcl.models.families.llava_onevision import LLAVA_RULES
from lmmcl.models.families.parts import language_rules, tower_rules
from lmmcl.models.hub import HubModel
from lmmcl.models.roles import RoleRule

RULES: tuple[RoleRule, ...] = language_rules() + tower_rules() + LLAVA_RULES

ARCHITECTURE = Architecture(
    name="llava",
    rules=RULES,
    processor="LlavaProcessor",
    image_processor="CLIPImageProcessorPil",
    chat="USER: … ASSISTANT: …; images stand before the text of their turn; an answer ends with the end-of-text token",
    images="one view of 336 pixels, cut out of the middle: 576 tokens; the tower's last layer is not used",
    tokens=576,
    patches=577,
    dialogues=2,
)
ARCHITECTURES = (ARCHITECTURE,)

MODELS = (
    HubModel(
        "llava-1.5-7b",
        hub="llava-hf/llava-1.5-7b-hf",
        revision="b234b804b114d9e37bb655e11cbbb5f5e971b7a9",
        architecture=ARCHITECTURE,
        description="LLaVA-1.5 on Vicuna-7B: a model of Model Tailor and of data-hybrid training",
    ),
)
