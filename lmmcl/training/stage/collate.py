"""From a skill's examples to batches: the order they come in, their encodings (kept between trials), and padding."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import ProcessorMixin

from lmmcl.errors import UserError
from lmmcl.methods.data.mixing import Mix
from lmmcl.methods.mitigation import ROWS
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.padding import IGNORED, is_text, pad
from lmmcl.models.processing.position_limit import check_positions
from lmmcl.tasks.examples import Example, Rows
from lmmcl.tasks.skills import Skill
from lmmcl.training.efficiency.length_order import LengthOrder
from lmmcl.training.efficiency.packed_rows import pack
from lmmcl.training.stage.encoding_cache import DiskCache, Encoded

CACHE_BYTES = 512 * 2**20
"""Encodings kept in a process, over all skills; the least recently taught skill goes first."""


def limited(skill: Skill, count: int | None) -> Skill:
    """The skill with no more than `count` of its training examples (None: all)."""
    return skill if count is None else replace(skill, load=lambda: skill.take(count))


def row_order(examples: int, total: int, seed: int) -> list[int]:
    """The first `total` rows of an endless stream of passes over `examples` rows, each pass in another order.

    Depends on nothing else, so it is the same for every recipe and any number of workers. Batches run on over the end of
    a pass: every update sees a whole global batch.
    """
    passes = [
        np.random.default_rng([seed, number]).permutation(examples) for number in range(math.ceil(total / examples))
    ]
    return np.concatenate(passes)[:total].tolist()


COMPANION = "companion"
"""Key of a batch whose last row is there for its image alone."""


class EncodingCache:
    """Encodings by skill and row. Bounded: when full, other skills are dropped; a skill larger than it is kept in part."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit = limit
        self.bytes = 0
        self._skills: OrderedDict[str, dict[int, Encoded]] = OrderedDict()

    def get(self, skill: str, row: int, make: Callable[[], Encoded]) -> Encoded:
        """The encoding of a row; made, and kept where there is room, when it is not there."""
        rows = self._skills.setdefault(skill, {})
        self._skills.move_to_end(skill)
        if row not in rows:
            encoded = make()
            size = _size(encoded)
            while self.bytes + size > self.limit and len(self._skills) > 1:
                _, dropped = self._skills.popitem(last=False)
                self.bytes -= sum(_size(one) for one in dropped.values())
            if self.bytes + size > self.limit:
                return encoded
            rows[row] = encoded
            self.bytes += size
        return rows[row]


def _size(encoded: Encoded) -> int:
    return sum(tensor.nbytes for tensor in encoded.values())


CACHE = EncodingCache()


@dataclass(frozen=True)
class StageData(Dataset):
    """The encoded examples of a stage in the order of `rows`.

    `skill` is named in the error of a broken row; `cache_key` names the model and the examples in the cache of encodings. If
    `tells_rows`, each comes with its row under the key ROWS, as a tensor (1,). `mix_keys` name the sources of a Mix in the
    cache: rows that come again, here or in another stage, are encoded once. `limits` are the model's positions by input. `order`
    is that in which the rows of an update are read, where it is not that of `rows`.
    """

    skill: str
    examples: Sequence[Example]
    rows: Sequence[int]
    processor: ProcessorMixin
    cache_key: str
    tells_rows: bool = False
    mix_keys: Sequence[str] = ()
    max_tokens: int | None = None
    disk: DiskCache | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    order: LengthOrder | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Encoded:
        return self.read(self.rows[position] if self.order is None else self.order[position])

    def read(self, row: int) -> Encoded:
        """One row of `examples` as it comes into a batch."""
        encoded = self.encoded(row)
        return {**encoded, ROWS: torch.tensor([row])} if self.tells_rows else encoded

    def encoded(self, row: int) -> Encoded:
        """One row of `examples` as tensors."""
        key, at = self._cached_as(row)

        def make() -> Encoded:
            return encode_row(self.processor, self.skill, self.examples, row, self.max_tokens)

        encoded = CACHE.get(key, at, lambda: self.disk.get(key, at, make) if self.disk else make())
        try:
            check_positions(encoded, self.limits)
        except UserError as error:
            raise error.at(file=f"skill {self.skill}", place=f"row {self.examples[row].id!r}") from error
        return encoded

    def prompt(self, row: int, change: Callable[[Example], Example] | None = None, change_name: str = "") -> Encoded:
        """One row without its last answer, for sampling; `change` asks it otherwise, under `change_name` in the cache."""
        key, at = self._cached_as(row)

        def make() -> Encoded:
            example = self.examples[row]
            try:
                return encode(self.processor, change(example) if change else example, with_answer=False)
            except UserError as error:
                raise error.at(file=f"skill {self.skill}", place=f"row {example.id!r}") from error

        encoded = CACHE.get(f"{key} prompt {change_name}", at, make)
        check_positions(encoded, self.limits)
        return encoded

    def _cached_as(self, row: int) -> tuple[str, int]:
        """The data that a row comes from, by its name in the cache, and its place there."""
        if self.mix_keys and isinstance(self.examples, Mix):
            source = int(self.examples.which[row])
            return self.mix_keys[source], _origin(self.examples.sources[source], int(self.examples.rows[row]))
        return self.cache_key, _origin(self.examples, row)


def _origin(examples: Sequence[Example], row: int) -> int:
    """The row in the skill's data, by which an encoding is found again whatever part of them a stage takes."""
    return examples.origin(row) if isinstance(examples, Rows) else row


def encode_row(
    processor: ProcessorMixin, skill: str, examples: Sequence[Example], row: int, max_tokens: int | None = None
) -> Encoded:
    """Encode one training example; raises UserError with skill and row when it cannot be read or holds no answer."""
    place = f"row {row}"
    try:
        example = examples[row]
        place = f"row {example.id!r}"
        encoded = encode(processor, example, with_answer=True, max_tokens=max_tokens)
    except UserError as error:
        raise error.at(file=f"skill {skill}", place=place) from error
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read: {error}", file=f"skill {skill}", place=place) from error
    if not bool((encoded["labels"] != IGNORED).any()):
        raise UserError("has no answer to learn", file=f"skill {skill}", place=place)
    return encoded


def told_by_loader(error: UserError) -> UserError:
    """The error as it was before a loader process passed it on: torch wraps it into the text of its traceback."""
    last = error.message.rpartition(f"{UserError.__module__}.{UserError.__name__}: ")[2]
    return UserError(last.strip()) if error.message.startswith("Caught UserError") else error


def has_images(encoded: Encoded) -> bool:
    """Whether an encoding (or a batch) shows an image."""
    return any(not is_text(name) for name in encoded if name not in (ROWS, COMPANION))


def companion_of(data: StageData) -> Encoded | None:
    """A row with an image, as one that teaches nothing; None where a stage has none. See `Collator`."""
    row = next((row for row in dict.fromkeys(data.rows) if data.examples[row].images), None)
    if row is None:
        return None
    encoded = data.encoded(row)
    return {**encoded, "labels": torch.full_like(encoded["labels"], IGNORED)}


@dataclass(frozen=True)
class Collator:
    """Pads encodings to a batch and lets a mitigation change it (before its answer tokens are counted).

    Workers that share an update must run the same parts of the model, or they wait for each other's gradients and weights: a
    batch without any image gets the `companion` as its last row, told by COMPANION. Nothing of it is taught. With `packs` the
    rows are put end to end in the place of padding.
    """

    processor: ProcessorMixin
    change: Callable[[Encoded], Encoded] | None = None
    companion: Encoded | None = None
    packs: bool = False

    def __call__(self, encoded: Sequence[Encoded]) -> Encoded:
        alone = self.companion is not None and not any(has_images(one) for one in encoded)
        rows = [*encoded, self.companion] if alone and self.companion else encoded
        batch = pack(self.processor, rows) if self.packs else pad(self.processor, rows)
        if alone:
            batch[COMPANION] = torch.tensor([True])
        return self.change(batch) if self.change else batch
