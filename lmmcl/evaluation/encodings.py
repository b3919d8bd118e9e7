"""The questions of a benchmark as tensors, remembered by a process that asks them of many checkpoints.

Rendering, reading and processing images costs more than a small model's answers, and a sweep asks the same questions of
hundreds of checkpoints. What is remembered is bounded in bytes: a benchmark of large images is encoded again each time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from threading import Lock
from typing import TypeVar

from torch import Tensor
from transformers import ProcessorMixin

from lmmcl.errors import UserError
from lmmcl.evaluation.question_cache import QuestionCache
from lmmcl.models.inputs.shown_images import settings_of
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.rendering import thinking
from lmmcl.steps.keys import canonical_json
from lmmcl.tasks.examples import Example, Rows
from lmmcl.tasks.skills import Benchmark

T = TypeVar("T")
Row = tuple[Example, dict[str, Tensor]]
"""A question (without its images, which the tensors hold) and its encoding."""


class EncodingCache:
    """Encoded benchmarks by key, the least recently used dropped first when together they exceed `limit_bytes`."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._held: OrderedDict[str, tuple[list[Row], int]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: str) -> list[Row] | None:
        """The rows put under `key`, or None."""
        with self._lock:
            if key not in self._held:
                return None
            self._held.move_to_end(key)
            return self._held[key][0]

    def put(self, key: str, rows: list[Row], size: int) -> None:
        """Remember `rows`, which take `size` bytes, unless they alone exceed the limit."""
        if size > self.limit_bytes:
            return
        with self._lock:
            self._held[key] = (rows, size)
            self._held.move_to_end(key)
            while self.size > self.limit_bytes:
                self._held.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._held.clear()

    @property
    def size(self) -> int:
        """Bytes of all tensors held."""
        return sum(size for _, size in self._held.values())


CACHE = EncodingCache(limit_bytes=1 << 30)
"""This process's memory of encoded benchmarks."""

_TOKENS: weakref.WeakKeyDictionary[ProcessorMixin, str] = weakref.WeakKeyDictionary()


def processor_token(processor: ProcessorMixin) -> str:
    """A digest of what a processor does: equal for two loads of the same processor, computed once per object."""
    if processor not in _TOKENS:
        tokenizer = processor.tokenizer
        parts = [type(processor).__name__, processor.to_json_string(), str(processor.chat_template)]
        parts += [f"thinking {thinking(processor)}"]
        parts += [canonical_json(settings) for settings in [settings_of(processor).identity()] if settings]
        parts += [processor.image_processor.to_json_string(), str(tokenizer.special_tokens_map)]
        parts += [json.dumps(tokenizer.get_vocab(), sort_keys=True)]
        if tokenizer.is_fast:  # merges and normalisers, which the vocabulary does not tell
            parts.append(tokenizer.backend_tokenizer.to_str())
        _TOKENS[processor] = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return _TOKENS[processor]


def windows(
    processor: ProcessorMixin,
    benchmark: Benchmark,
    limit: int | None,
    size: int,
    cache: EncodingCache = CACHE,
    *,
    with_answer: bool = False,
    rows: Sequence[int] | None = None,
    skip: int = 0,
    remember: bool = True,
    disk: QuestionCache | None = None,
) -> Iterator[list[Row]]:
    """The questions of a benchmark that `limit` takes (None: all), or those `rows` of them, in order, in lists of at most `size`.

    `with_answer` encodes the reference answers too, with `labels`, for teacher forcing; the first `skip` are left out. What `cache`
    lacks is read from `disk`. What neither has is encoded, and left in both for others where all are, unless `remember` is false.

    Only one list is held at a time, beside what the cache keeps. Raises UserError that names benchmark and example for a
    question that cannot be read, and for a benchmark without questions.
    """
    key = _key(processor, benchmark, limit, with_answer)
    known = cache.get(key)
    if known is None and disk is not None and (known := disk.get(key)) is not None:
        cache.put(key, known, _size(known))
    if known:
        encoded = iter((known if rows is None else [known[row] for row in rows])[skip:])
    else:
        encoded = _encode(processor, benchmark, limit, rows, skip, with_answer)
        if remember and rows is None and not skip:
            encoded = _remembered(encoded, key, cache, disk)
    while window := list(islice(encoded, size)):
        yield window


def known_questions(
    processor: ProcessorMixin,
    benchmark: Benchmark,
    limit: int | None,
    cache: EncodingCache = CACHE,
    disk: QuestionCache | None = None,
) -> list[Example] | None:
    """The questions that `limit` takes, without images, where they are encoded already: they need not be made again to be read."""
    key = _key(processor, benchmark, limit, with_answer=False)
    if (known := cache.get(key)) is not None:
        return [example for example, _ in known]
    return disk.examples(key) if disk is not None else None


def _key(processor: ProcessorMixin, benchmark: Benchmark, limit: int | None, with_answer: bool) -> str:
    return json.dumps([processor_token(processor), benchmark.identity(), limit, with_answer], sort_keys=True)


def _encode(
    processor: ProcessorMixin,
    benchmark: Benchmark,
    limit: int | None,
    rows: Sequence[int] | None,
    skip: int,
    with_answer: bool,
) -> Iterator[Row]:
    examples = benchmark.take(limit)
    if not len(examples):
        raise UserError("has no questions", file=f"benchmark {benchmark.name}")
    for index in (range(len(examples)) if rows is None else rows)[skip:]:
        yield _row(processor, benchmark, question(benchmark, examples, index), with_answer)


def _remembered(rows: Iterator[Row], key: str, cache: EncodingCache, disk: QuestionCache | None) -> Iterator[Row]:
    """Pass on all rows of a benchmark, and remember them at the end unless they are too large."""
    kept: list[Row] | None = []
    size = 0
    for row in rows:
        yield row
        size += sum(tensor.nbytes for tensor in row[1].values())
        if kept is not None and size <= cache.limit_bytes:
            kept.append(row)
        else:
            kept = None
    if kept is not None:
        cache.put(key, kept, size)
        if disk is not None:
            disk.put(key, kept, size)


def _size(rows: Sequence[Row]) -> int:
    return sum(tensor.nbytes for _, encoded in rows for tensor in encoded.values())


def _row(processor: ProcessorMixin, benchmark: Benchmark, example: Example, with_answer: bool) -> Row:
    encoded = read_question(benchmark, example, lambda: encode(processor, example, with_answer=with_answer))
    return dataclasses.replace(example, images=()), encoded


def question(benchmark: Benchmark, examples: Sequence[Example], index: int) -> Example:
    """The example at `index`, which some benchmarks make (and decode) only now; a UserError that names both where it cannot be."""
    row = examples.origin(index) if isinstance(examples, Rows) else index
    return _told(benchmark, f"example at row {row}", lambda: examples[index])


def read_question(benchmark: Benchmark, example: Example, read: Callable[[], T]) -> T:
    """What `read` makes of an example; a UserError that names benchmark and example where it cannot."""
    return _told(benchmark, f"example {example.id}", read)


def _told(benchmark: Benchmark, place: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except (OSError, SyntaxError, ValueError, UserError) as error:  # SyntaxError: a PNG that a task opens itself
        message = error.message if isinstance(error, UserError) else f"cannot be read: {error}"
        raise UserError(message, file=f"benchmark {benchmark.name}", place=place) from error
