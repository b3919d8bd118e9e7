"""LLaVA-NeXT (1.6): CLIP-L at 336 pixels, a two-layer projector, and Llama 3, Vicuna or Mistral."""

from __future__ import annotations

from lmmcl.models.architecture import Architecture
from lmmcl.models.families.llava_onevision import LLAVA_RULES
from lmmcl.models.families.parts import language_rules, tower_rules
from lmmcl.models.hub import HubModel
from lmmcl.models.roles import RoleRule

RULES: tuple[RoleRule, ...] = language_rules() + tower_rules() + LLAVA_RULES

ARCHITECTURE = Architecture(
    name="llava_next",
    rules=RULES,
    processor="LlavaNextProcessor",
    image_processor="LlavaNextImageProcessorPil",
    chat="that of the language model (Llama 3 headers, USER:/ASSISTANT:, [INST]); images stand before the text",
    images="576 tokens for the whole picture, and up to 4 tiles of 336 pixels in the grid that wastes least; the tower's "
    "last layer is not used (features are taken before it) and gets no gradient",
    tokens=2340,
    patches=5 * 577,
    dialogues=2,
)
ARCHITECTURES = (ARCHITECTURE,)

MODELS = (
    HubModel(
        "llava-next-llama3-8b",
        hub="llava-hf/llama3-llava-next-8b-hf",
        revision="b041c0d0ea0dd0196d147206c210c8d1752fc2da",
        architecture=ARCHITECTURE,
        description="LLaVA-NeXT on Llama-3-8B: the second model of LMM-CL",
    ),
    HubModel(
        "llava-next-vicuna-7b",
        hub="llava-hf/llava-v1.6-vicuna-7b-hf",
        revision="c916e6cdcd760b4cecd1dd4907f84ac649f93b23",
        architecture=ARCHITECTURE,
        description="LLaVA-NeXT on Vicuna-7B",
    ),
    HubModel(
        "llava-next-mistral-7b",
        hub="llava-hf/llava-v1.6-mistral-7b-hf",
        revision="52320fb52229c8d942b1dcb8b63b3dc8087bc83b",
        architecture=ARCHITECTURE,
        description="LLaVA-NeXT on Mistral-7B",
    ),
)
