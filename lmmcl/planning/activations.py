"""What examples and questions leave in a GPU's memory on their way through a model, from the shapes of its linear layers."""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass
from functools import cache

from lmmcl.errors import UserError
from lmmcl.methods.recipes.recipe import Recipe
from lmmcl.models.linears import Shapes, linear_shapes
from lmmcl.models.lmm import LMM
from lmmcl.models.roles import select
from lmmcl.steps import Finetune

TEXT_TOKENS = 128
"""Tokens of an example beside those of its image."""
ANSWER_TOKENS = 256
"""Of these, those whose logits are computed in training."""
TOKENS = 1024
"""Of an image, for a model of no family that has a file."""


@dataclass(frozen=True)
class Tower:
    """The blocks of a language model or a vision tower: numbers that a token leaves in each (the inputs and outputs of its
    linear layers), and the width of what passes from one to the next."""

    sizes: tuple[int, ...]
    width: int

    @property
    def block(self) -> int:
        """Of the largest block."""
        return max(self.sizes, default=0)

    def saved_activation_bytes(self, lowest: int, checkpointing: bool) -> int:
        """Numbers of a token that are kept for the way back to block `lowest`; with checkpointing, a block's input for each
        block and one block in whole."""
        kept = self.sizes[lowest:]
        return self.width * len(kept) + max(kept, default=0) if checkpointing else sum(kept)


def example_tokens(lmm: LMM) -> int:
    """Tokens of an example: a photograph of 1024 × 768 pixels as this family sees it, and a short question."""
    architecture = getattr(lmm.plain, "architecture", None)
    return TEXT_TOKENS + (architecture.tokens if architecture else TOKENS)


def example_patches(lmm: LMM) -> int:
    """Patches of that photograph in the vision tower."""
    architecture = getattr(lmm.plain, "architecture", None)
    return (architecture.patches or architecture.tokens) if architecture else TOKENS


def training_activations(
    step: Finetune, examples: int, *, checkpointing: bool, precision: int, fused: bool = False
) -> int:
    """Bytes that `examples` in one forward pass leave for the way back; 0 for a model that does not tell its layers.

    For blocks whose attention is not kept this is within a third of the per-layer count of arXiv 2205.05198 (section 4.1). What
    lies below everything that trains keeps nothing. `fused`: head and loss are computed in one, a part of the vocabulary at a time.
    """
    if _shapes(step.model) is None:
        return 0
    language, vision = _tower(step.model, "llm"), _tower(step.model, "vision")
    trained = _trained_roles(step.recipe, step.model)
    sees = any(role.startswith(("vision.blocks.", "vision.embeddings")) for role in trained)
    kept = example_tokens(step.model) * language.saved_activation_bytes(0 if sees else _lowest(trained), checkpointing)
    if sees:
        kept += example_patches(step.model) * vision.saved_activation_bytes(0, checkpointing)
    # Logits, the same in fp32 and their gradient; the terms of a mitigation that compares distributions keep four more of them.
    logits = ANSWER_TOKENS * _vocabulary(step.model, language.width) * (precision + 8 + 16 * _compares(step))
    rows = step.mitigation.rows_in_pass if step.mitigation else 1
    return examples * rows * (kept * precision + (0 if fused else logits))


def cache_bytes(lmm: LMM, new_tokens: int, precision: int) -> int:
    """Bytes of keys and values of one question and `new_tokens` of its answer; 0 for a model that does not tell its layers."""
    return (example_tokens(lmm) + new_tokens) * _kept_by_a_token(lmm) * precision


def peak_activation_bytes(lmm: LMM, precision: int) -> int:
    """Bytes of one question in the block where it takes most: nothing is kept for a way back."""
    seen = example_patches(lmm) * _tower(lmm, "vision").block
    return max(seen, example_tokens(lmm) * _tower(lmm, "llm").block) * precision


def _shapes(lmm: LMM) -> Shapes | None:
    try:
        return linear_shapes(lmm)
    except UserError:
        return None


@cache
def _kept_by_a_token(lmm: LMM) -> int:
    """Numbers of keys and values, over all blocks."""
    keeps = re.compile(r"llm\.blocks\.\d+\.attention\.(?:q\+)?(?:k|v|k\+v)(?:\.softmax)?$")
    return sum(rows for role, layers in (_shapes(lmm) or {}).items() if keeps.match(role) for rows, _ in layers)


@cache
def _tower(lmm: LMM, name: str) -> Tower:
    blocks: dict[int, int] = {}
    widths: list[int] = []
    for role, layers in (_shapes(lmm) or {}).items():
        if match := re.match(rf"{name}\.blocks\.(\d+)", role):
            number = int(match[1])
            blocks[number] = blocks.get(number, 0) + sum(outputs + inputs for outputs, inputs in layers)
            widths += [inputs for _, inputs in layers]
    return Tower(tuple(blocks[number] for number in sorted(blocks)), min(widths, default=0))


@cache
def _trained_roles(recipe: Recipe, lmm: LMM) -> frozenset[str]:
    roles = {role: role for role in lmm.role_counts()}
    targets = recipe.adapter.targets if recipe.adapter else ()
    return frozenset(select(roles, [*recipe.train, *targets], model=lmm.name))


def _lowest(trained: Set[str]) -> int:
    """The first block of the language model that the way back reaches: 0 where something before the blocks trains."""
    matches = [re.match(r"llm\.blocks\.(\d+)\.", role) for role in trained if role not in ("llm.norm", "llm.head")]
    return min((int(match[1]) if match else 0 for match in matches), default=10**6)


def _vocabulary(lmm: LMM, width: int) -> int:
    """Words of the head, which may share the embeddings' weight."""
    return lmm.role_counts().get("llm.embeddings", 0) // max(1, width)


def _compares(step: Finetune) -> bool:
    """Whether the mitigation holds distributions over the vocabulary, as LwF with `top_k` does of what its teacher said."""
    return step.mitigation is not None and step.mitigation.compares_logits
