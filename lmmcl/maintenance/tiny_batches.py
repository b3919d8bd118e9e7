"""Pictures as pre-training batches: patches with word tags, and all questions of a picture packed behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmmcl.models.tiny.tiny_processor import EOS, IMAGE_SIZE, PATCH_SIZE, build_processor

if TYPE_CHECKING:
    from torch import Tensor

    from lmmcl.tasks.synthetic.draw import Scene

PATCHES = (IMAGE_SIZE // PATCH_SIZE) ** 2


def batches(scenes: Iterator[Scene], size: int) -> Iterator[list[Scene]]:
    """The scenes in lists of `size`."""
    while True:
        yield [next(scenes) for _ in range(size)]


def pixels(scenes: Sequence[Scene]) -> Tensor:
    """The pictures as the processor of tiny-onevision makes them: (pictures, 3, height, width) in [-1, 1]."""
    import torch

    stacked = np.stack([np.asarray(scene.image) for scene in scenes])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


class TagTargets:
    """Which words describe each patch, as 0 and 1 over the words that tags use; learns its words from `scenes`."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        words = sorted({word for scene in scenes for _, tag_words in scene.tags for word in tag_words})
        tokens = build_processor("onevision").tokenizer.get_vocab()
        self.columns = {word: column for column, word in enumerate(words)}
        self.token_ids = [tokens[word] for word in words]

    def __call__(self, scenes: Sequence[Scene]) -> Tensor:
        """(pictures, patches, words)."""
        import torch

        target = torch.zeros(len(scenes), PATCHES, len(self.columns))
        for row, scene in enumerate(scenes):
            for patch, words in enumerate(scene.patch_words()):
                target[row, patch, [self.columns[word] for word in words if word in self.columns]] = 1.0
        return target


def patch_pixels(images: Tensor) -> Tensor:
    """The pixels of each patch, row by row: (pictures, patches, 3 · patch · patch)."""
    from torch.nn import functional

    return functional.unfold(images, PATCH_SIZE, stride=PATCH_SIZE).transpose(1, 2)


@dataclass(frozen=True)
class _Block:
    ids: list[int]
    labels: list[int]


class Packer:
    """Packs a picture's questions (and its caption) behind it: each sees the picture and itself, none the others."""

    def __init__(self, seed: int, most_questions: int) -> None:
        self.tokenizer: Any = build_processor("onevision").tokenizer
        self.rng = np.random.default_rng(seed)
        self.most = most_questions
        words = self.tokenizer.get_vocab()
        self.turn = [words[EOS], words["<assistant>"]]
        self.prefix = [words["<user>"]] + [words["<image>"]] * (PATCHES + 1)
        self.end, self.pad = words[EOS], words["<pad>"]
        self._known: dict[str, list[int]] = {}

    def __call__(self, scenes: Sequence[Scene]) -> dict[str, Tensor]:
        """`input_ids`, `labels`, `position_ids` (pictures, tokens), a 4-dimensional `attention_mask`, and the pixels."""
        import torch

        rows = [self._blocks(scene) for scene in scenes]
        start = len(self.prefix)
        length = start + max(sum(len(block.ids) for block in blocks) for blocks in rows)
        ids = torch.full((len(rows), length), self.pad)
        labels = torch.full((len(rows), length), -100)
        positions = torch.zeros(len(rows), length, dtype=torch.long)
        owner = torch.full((len(rows), length), -1)
        ids[:, :start], positions[:, :start], owner[:, :start] = torch.tensor(self.prefix), torch.arange(start), 0
        for row, blocks in enumerate(rows):
            at = start
            for number, block in enumerate(blocks, start=1):
                here = slice(at, at + len(block.ids))
                ids[row, here], labels[row, here] = torch.tensor(block.ids), torch.tensor(block.labels)
                positions[row, here], owner[row, here] = torch.arange(start, start + len(block.ids)), number
                at += len(block.ids)
        return {
            "input_ids": ids,
            "labels": labels,
            "position_ids": positions,
            "attention_mask": _block_mask(owner),
            "pixel_values": pixels(scenes),
            "image_sizes": torch.full((len(rows), 2), IMAGE_SIZE),
        }

    def _blocks(self, scene: Scene) -> list[_Block]:
        asked = [scene.asked[at] for at in self.rng.permutation(len(scene.asked))[: self.most]]
        blocks = [self._block(question, answer) for _, question, answer in asked]
        return [*blocks, self._block("", scene.caption)] if scene.caption else blocks

    def _block(self, question: str, answer: str) -> _Block:
        prompt, answer_ids = [*self._ids(question), *self.turn], [*self._ids(answer), self.end]
        return _Block(prompt + answer_ids, [-100] * len(prompt) + answer_ids)

    def _ids(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._known[text]


def _block_mask(owner: Tensor) -> Tensor:
    """(pictures, 1, tokens, tokens), 0 where a token may look and very negative elsewhere; -1 owns padding."""
    import torch

    length = owner.shape[1]
    same = owner[:, :, None] == owner[:, None, :]
    seen = (same | (owner == 0)[:, None, :]) & torch.ones(length, length).tril().bool()
    return torch.zeros(seen.shape).masked_fill_(~seen, torch.finfo(torch.float32).min)[:, None]
