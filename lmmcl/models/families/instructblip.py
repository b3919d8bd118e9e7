"""InstructBLIP: ViT-g at 224 pixels, a Q-Former that reads the instruction, a linear projection, Vicuna.

It has no projector apart from the Q-Former: recipes that name `projector` do not apply; `{name: qformer, train: [qformer]}` does.
"""

from __future__ import annotations

from lmmcl.models.architecture import Architecture
from lmmcl.models.families.parts import language_rules, tower_rules
from lmmcl.models.hub import HubModel
from lmmcl.models.roles import RoleRule

RULES: tuple[RoleRule, ...] = (
    *language_rules("language_model.model", head="language_model.lm_head"),
    *tower_rules("vision_model"),
    # All between the frozen tower and the frozen language model: what InstructBLIP itself was tuned by (188.8 M).
    RoleRule(r"qformer\..+|query_tokens|language_projection\.(?:weight|bias)", "qformer"),
)

ARCHITECTURE = Architecture(
    name="instructblip",
    rules=RULES,
    processor="lmmcl.models.processing.processors:ChatInstructBlipProcessor",
    image_processor="BlipImageProcessorPil",
    chat="none: the instruction alone, after the image; the Q-Former reads it too",
    images="one image an instruction, 224 pixels square: 32 query tokens",
    tokens=32,
    patches=257,
    dropout=("qformer",),
    dialogues=2,
)
ARCHITECTURES = (ARCHITECTURE,)

MODELS = (
    HubModel(
        "instructblip-vicuna-7b",
        hub="Salesforce/instructblip-vicuna-7b",
        revision="19103d0c5b5263c8a7891012e08573439fb6607f",
        architecture=ARCHITECTURE,
        description="InstructBLIP on Vicuna-7B: the Q-Former model of Model Tailor",
    ),
)
