"""A loaded model and its processor held to three rules, on rows that are about to be learnt from or answered.

- An answer is not seen before it is given: another token in its place moves no logits before it.
- An image has as many tokens in the text as it has features.
- A row in a batch, padded, gets the logits that it gets alone.

No error in a mask, a processor's settings or a new version of a library has to make a loss look strange, so these are looked
at and not left to be noticed: at the first batch of every stage, and when a model is asked. A few forward passes of two rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

from lmmcl.models.processing.padding import IGNORED, PER_TOKEN, pad

if TYPE_CHECKING:
    from torch import Tensor

    Row = Mapping[str, Tensor]
    Forward = Callable[[dict[str, Tensor]], Tensor]

LEAK_TOLERANCE = 1e-5
"""How far logits may move when a later token changes, as a share of their spread: nothing but the same sums in another order."""
PADDING_TOLERANCE = {"float32": 1e-3, "half": 0.1}
"""How far a row's logits may be from those that it has alone, likewise, by the precision of the arithmetic: padding changes
the order of sums, and in half precision which of two experts with like weights a token is sent to."""
ROWS_CONSIDERED = 4
"""Rows among which the shortest and the longest are taken: to encode a whole batch of large images would cost more."""


@dataclass(frozen=True)
class SelfCheck:
    """Checks of one model; `forward` gives the logits (rows, last positions, vocabulary) of a padded batch without labels."""

    model: Any
    processor: Any
    forward: Forward
    half: bool

    def check_training(self, rows: Sequence[Row], names: Sequence[str]) -> str | None:
        """What is wrong with rows that hold answers (`labels`), in a sentence that names the row; None if nothing."""
        short, long, name = self._pair(rows, names)
        alone, wrong = self._logits([short], name)
        if wrong:
            return wrong
        changed, at = self._with_another_answer(short)
        if wrong := self._find_leak(alone, self.forward(self._batch([changed])), at, name, "alone"):
            return wrong
        together, wrong = self._logits([short, long], name)
        if wrong:
            return wrong
        if wrong := self._find_leak(
            together, self.forward(self._batch([changed, long])), at, name, "in a padded batch"
        ):
            return wrong
        return self._find_padding_fault(alone[0], together[0], name)

    def check_prompts(self, rows: Sequence[Row], names: Sequence[str]) -> str | None:
        """What is wrong with rows that end before their answer; None if nothing."""
        short, long, name = self._pair(rows, names)
        alone, wrong = self._logits([short], name)
        if wrong:
            return wrong
        together, wrong = self._logits([short, long], name)
        return wrong or self._find_padding_fault(alone[0], together[0], name)

    def _pair(self, rows: Sequence[Row], names: Sequence[str]) -> tuple[Row, Row, str]:
        """A row, a longer one that makes it padded in a batch, and the first one's name."""
        order = sorted(range(len(rows[:ROWS_CONSIDERED])), key=lambda at: len(rows[at]["input_ids"]))
        short, long = rows[order[0]], rows[order[-1]]
        if len(long["input_ids"]) == len(short["input_ids"]):
            long = self._longer(long)
        return short, long, names[order[0]]

    def _longer(self, row: Row) -> Row:
        """The row with a padding token before it."""
        import torch

        fills = {"input_ids": self.processor.tokenizer.pad_token_id, "labels": IGNORED}
        return {
            name: torch.cat([torch.full_like(value[:1], fills.get(name, 0)), value])
            if PER_TOKEN.fullmatch(name)
            else value
            for name, value in row.items()
        }

    def _batch(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        return pad(self.processor, [dict(row) for row in rows])

    def _logits(self, rows: Sequence[Row], name: str) -> tuple[Tensor, str | None]:
        """Logits of a batch, or what is wrong with its images."""
        batch = self._batch(rows)
        tokens = self._image_tokens(batch)
        with _counted_features(self.model) as features:
            try:
                logits = self.forward(batch)
            except (ValueError, RuntimeError, IndexError):
                if features and features[-1] != tokens:
                    return batch["input_ids"], _miscounted(name, tokens, features[-1])
                raise
        if features and self._image_token is not None and features[-1] != tokens:
            return logits, _miscounted(name, tokens, features[-1])
        return logits, None

    def _image_tokens(self, batch: Mapping[str, Tensor]) -> int:
        return 0 if self._image_token is None else int((batch["input_ids"] == self._image_token).sum())

    @property
    def _image_token(self) -> int | None:
        config = self.model.config
        return getattr(config, "image_token_id", None) or getattr(config, "image_token_index", None)

    def _with_another_answer(self, row: Row) -> tuple[Row, int]:
        """The row with another last answer token, and how far from the end that is."""
        ids, place = row["input_ids"].clone(), int((row["labels"] != IGNORED).nonzero().max())
        special = {*self.processor.tokenizer.all_special_ids, int(ids[place]), self._image_token}
        others = (int(token) for token in ids.flip(0).tolist() if int(token) not in special)
        ids[place] = next(others, next(token for token in range(len(special) + 1) if token not in special))
        return {**row, "input_ids": ids}, len(ids) - place

    def _find_leak(self, before: Tensor, after: Tensor, from_end: int, name: str, how: str) -> str | None:
        """Whether changing the token `from_end` tokens before the end moved the first row's logits before it."""
        moved = _distance(before[0][:-from_end], after[0][:-from_end])
        if moved <= LEAK_TOLERANCE:
            return None
        return (
            f"{name}, {how}: changing the last token of its answer moves the logits before it (by {moved:.1e} of their spread; "
            f"allowed: {LEAK_TOLERANCE:.0e}); the model sees the answers that it is taught: the attention mask is not causal over "
            "answers"
        )

    def _find_padding_fault(self, alone: Tensor, together: Tensor, name: str) -> str | None:
        span, allowed = min(len(alone), len(together)), PADDING_TOLERANCE["half" if self.half else "float32"]
        far = _distance(alone[-span:], together[-span:])
        if far <= allowed:
            return None
        return (
            f"{name}: its logits in a padded batch differ from those without padding (by {far:.1e} of their spread; allowed: "
            f"{allowed:.0e}): padding is attended to, or positions or images are mixed up between rows"
        )


def _miscounted(name: str, tokens: int, features: int) -> str:
    return (
        f"{name}: {tokens} image tokens in the text stand for {features} image features; the processor's settings (patch size, "
        "tiles, number of image tokens) are not those of the model"
    )


def _distance(one: Tensor, other: Tensor) -> float:
    """The norm of a difference as a share of the norm of the spread; infinite for what is not a number."""
    one, other = one.float(), other.float()
    spread = float((one - one.mean(dim=-1, keepdim=True)).norm())
    far = float((one - other).norm())
    return far / spread if spread > 0 and far == far else (0.0 if far == 0 else float("inf"))


@contextmanager
def _counted_features(model: Any) -> Iterator[list[int]]:
    """Inside the `with`, how many features the images of each forward pass had; empty where a model does not say."""
    counts: list[int] = []
    several: tuple[Any, ...] = (model, getattr(model, "model", None))
    holders = [module for module in several if hasattr(module, "get_image_features")]
    before = [vars(holder).get("get_image_features") for holder in holders]
    for holder in holders:
        holder.get_image_features = _counting(holder.get_image_features, counts)
    try:
        yield counts
    finally:
        for holder, own in zip(holders, before, strict=True):
            del holder.get_image_features  # the class's own is back
            if own is not None:
                holder.get_image_features = own


def _counting(original: Callable[..., Any], counts: list[int]) -> Callable[..., Any]:
    @wraps(original)  # `generate` reads its signature
    def get_image_features(*args: Any, **more: Any) -> Any:
        output = original(*args, **more)
        features = getattr(output, "pooler_output", output)
        several = features if isinstance(features, list | tuple) else [features]
        if all(hasattr(tensor, "shape") for tensor in several):
            counts.append(sum(tensor.numel() // tensor.shape[-1] for tensor in several))
        return output

    return get_image_features
