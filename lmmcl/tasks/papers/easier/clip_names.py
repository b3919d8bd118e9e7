"""How alike class names are, by CLIP: what the wrong options of ImageNet-VQA are drawn from. Needed while preparing only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lmmcl.errors import UserError

MODEL = "openai/clip-vit-large-patch14"
REVISION = "main"
PROMPT = "a photo of a {}."
BATCH = 256


def similarity(names: Sequence[str]) -> NDArray[np.floating]:
    """Cosines of the CLIP embeddings of `a photo of a {name}.`, (names, names); raises UserError without the model."""
    import torch
    from transformers import AutoTokenizer, CLIPModel

    try:
        tokenizer = AutoTokenizer.from_pretrained(MODEL, revision=REVISION)
        model = CLIPModel.from_pretrained(MODEL, revision=REVISION).eval()
    except OSError as error:
        raise UserError(f"fetch it with `hf download {MODEL}`: {str(error).splitlines()[0]}", file=MODEL) from error
    found = []
    with torch.inference_mode():
        for start in range(0, len(names), BATCH):
            texts = [PROMPT.format(name) for name in names[start : start + BATCH]]
            tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
            pooled = model.text_model(**tokens).pooler_output
            found.append(model.text_projection(pooled))
    embeddings = torch.nn.functional.normalize(torch.cat(found).float(), dim=-1).numpy()
    return embeddings @ embeddings.T


def nearest(names: Sequence[str], alike: NDArray[np.floating], count: int) -> Mapping[str, tuple[str, ...]]:
    """For each name the `count` most alike others, nearest first, equals by name; the same name twice is no other."""
    found = {}
    for index, name in enumerate(names):
        others = {other: float(alike[index, at]) for at, other in enumerate(names) if other != name}
        found[name] = tuple(sorted(others, key=lambda other: (-others[other], other))[:count])
    return found
