"""Models in use now that need no family file: their parts follow from their modules, their revision from the first use.

No revision is written here, as none was read where it can be cited: the commit that the hub names at the first use is recorded.
Where an inventory ships, it is that of transformers' own configuration at the sizes that the makers document, and says so;
without one, shapes are read from the configuration on the hub.
"""

from __future__ import annotations

from dataclasses import replace

from lmmcl.models.architecture import Architecture
from lmmcl.models.families.generic import guess_architecture
from lmmcl.models.hub import HubModel


def _of(model_type: str, *, chat: str, images: str, tokens: int = 1024, patches: int | None = None) -> Architecture:
    """A type that is read as any type without a file, with what a person may want to know."""
    return replace(guess_architecture(model_type), chat=chat, images=images, tokens=tokens, patches=patches)


CHATML = "ChatML; images stand where they are in the text"
TURNS = "<start_of_turn>user … <end_of_turn>"
QWEN = "native resolution in patches of 16 pixels, 2 × 2 merged: a token for each 32 × 32 pixels"
TEMPLATE = "the checkpoint's chat template"

QWEN35 = _of(
    "qwen3_5", chat=f"{CHATML}; the default template opens a thought", images=QWEN, tokens=768, patches=4 * 768
)
QWEN35_MOE = replace(QWEN35, name="qwen3_5_moe")
QWEN3_VL_MOE = _of("qwen3_vl_moe", chat=CHATML, images=QWEN, tokens=768, patches=4 * 768)
GEMMA3N = _of("gemma3n", chat=TURNS, images="256 tokens for an image; the tower needs timm", tokens=256)
GEMMA4 = _of("gemma4", chat=TEMPLATE, images="up to 280 tokens for an image, by its shape", tokens=280)
GLM46V = _of(
    "glm46v",
    chat=TEMPLATE,
    images="native resolution in patches of 14 pixels, 2 × 2 merged",
    tokens=999,
    patches=4 * 999,
)
LLAMA4 = _of("llama4", chat=TEMPLATE, images="tiles of 336 pixels, 144 tokens each; needs torchvision")
MISTRAL3 = _of(
    "mistral3", chat="[INST] … [/INST]", images="native resolution in patches of 14 pixels, 2 × 2 merged", tokens=1036
)
PIXTRAL = _of(
    "llava", chat="[INST] … [/INST]", images="native resolution in patches of 16 pixels, a token each", tokens=3072
)
MINICPM = _of("minicpmv4_6", chat=CHATML, images="slices beside the whole picture")
PALIGEMMA = _of(
    "paligemma", chat="prefix and suffix, no turns", images="224 pixels, 256 tokens before the text", tokens=256
)
LFM2 = _of("lfm2_vl", chat=CHATML, images="tiles of 512 pixels, 256 tokens each; needs torchvision", tokens=1024)
IDEFICS3 = _of("idefics3", chat="'User:' and 'Assistant:'", images="tiles of 364 pixels, 169 tokens each", tokens=2197)
MLLAMA = _of(
    "mllama",
    chat="Llama 3 turns",
    images="up to 4 tiles of 560 pixels, seen by cross-attention",
    tokens=1,
)
OVIS2 = _of("ovis2", chat=CHATML, images="tiles of 448 pixels, 256 tokens each", tokens=2560)
AYA = _of("aya_vision", chat="Cohere turns", images="up to 12 tiles of 364 pixels, 169 tokens each", tokens=2197)


def _model(name: str, hub: str, architecture: Architecture, description: str) -> HubModel:
    return HubModel(name, hub=hub, revision="", architecture=architecture, description=description)


GATED = "gated: accept its terms first"
MODELS = (
    _model("qwen3.5-4b", "Qwen/Qwen3.5-4B", QWEN35, "Qwen3.5, 4 B"),
    _model("qwen3.5-9b", "Qwen/Qwen3.5-9B", QWEN35, "Qwen3.5, 9 B"),
    _model("qwen3.5-35b-a3b", "Qwen/Qwen3.5-35B-A3B", QWEN35_MOE, "Qwen3.5, mixture of experts, 35 B (3 B active)"),
    _model(
        "qwen3-vl-30b-a3b",
        "Qwen/Qwen3-VL-30B-A3B-Instruct",
        QWEN3_VL_MOE,
        "Qwen3-VL, mixture of experts, 30 B (3 B active)",
    ),
    _model("gemma-3n-e4b", "google/gemma-3n-E4B-it", GEMMA3N, f"Gemma 3n, E4B (needs timm; {GATED})"),
    _model("gemma-4-e2b", "google/gemma-4-E2B-it", GEMMA4, "Gemma 4, E2B"),
    _model("glm-4.6v-flash", "zai-org/GLM-4.6V-Flash", GLM46V, "GLM-4.6V-Flash, 9 B"),
    _model(
        "llama-4-scout",
        "meta-llama/Llama-4-Scout-17B-16E-Instruct",
        LLAMA4,
        f"Llama 4 Scout, 109 B (17 B active; needs torchvision; {GATED})",
    ),
    _model(
        "mistral-small-3.1-24b", "mistralai/Mistral-Small-3.1-24B-Instruct-2503", MISTRAL3, "Mistral Small 3.1, 24 B"
    ),
    _model("pixtral-12b", "mistral-community/pixtral-12b", PIXTRAL, "Pixtral, 12 B, in transformers' form"),
    _model("minicpm-v-4.6", "openbmb/MiniCPM-V-4.6", MINICPM, "MiniCPM-V 4.6, 1.3 B"),
    _model(
        "paligemma2-3b", "google/paligemma2-3b-mix-224", PALIGEMMA, f"PaliGemma 2, 3 B, mix at 224 pixels ({GATED})"
    ),
    _model("lfm2-vl-1.6b", "LiquidAI/LFM2-VL-1.6B", LFM2, "LFM2-VL, 1.6 B (needs torchvision)"),
    _model("idefics3-8b", "HuggingFaceM4/Idefics3-8B-Llama3", IDEFICS3, "Idefics 3 on Llama 3, 8 B"),
    _model(
        "llama-3.2-11b-vision", "meta-llama/Llama-3.2-11B-Vision-Instruct", MLLAMA, f"Llama 3.2 Vision, 11 B ({GATED})"
    ),
    _model("ovis2-2b", "thisisiron/Ovis2-2B-hf", OVIS2, "Ovis2, 2 B, in transformers' form"),
    _model("aya-vision-8b", "CohereLabs/aya-vision-8b", AYA, f"Aya Vision, 8 B ({GATED})"),
)
