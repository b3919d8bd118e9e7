"""A task of lmms-eval at work: its rows as Examples, and its own scoring of our answers, question by question.

Everything comes from lmms-eval's task object: the dialogue (`doc_to_messages`, which most tasks have from `doc_to_text` and
`doc_to_visual`), the answer that counts (`doc_to_target`), filters, `process_results` and aggregation. A question's score is the
aggregation of that question alone; the mean of these must be the aggregation of all, and is refused where it is not.
"""

from __future__ import annotations

import inspect
import io
import math
import random
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lmmcl.errors import UserError
from lmmcl.tasks.examples import IMAGE_PLACEHOLDER, Example, Message, Rows
from lmmcl.tasks.hub.client import undecoded
from lmmcl.tasks.images import MAX_PIXELS, EncodedImage, TooManyPixels, open_image
from lmmcl.tasks.metrics.metric import Metric


class EvalTask(Protocol):
    """What is needed of a benchmark that is a task of lmms-eval (see `lmmcl.tasks.lmms_eval.benchmark`)."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def metric(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def file(self) -> Path: ...
    @property
    def digest(self) -> str | None: ...


REHEARSED = 24
"""Questions, spread over all, whose scoring is tried before a model is asked anything."""
ROUNDING = 1e-4
"""How far the mean of the questions' scores may be from lmms-eval's own score: its tasks round to four digits and more."""


class Questions(Rows):
    """The rows of a task as Examples, made at each use; an id is the row's number, by which its score is found."""

    def __init__(self, name: str, task: Any) -> None:
        self.name, self.task, self.rows = name, task, undecoded_rows(task.eval_docs)

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> Example:
        from PIL import Image

        try:
            with _pillow(truncated=True, most=MAX_PIXELS):  # truncated as in lmms-eval: NoCaps, for one, has such
                features = getattr(self.rows, "features", None)
                doc = {name: shown(value, features and features[name]) for name, value in self.rows[index].items()}
                answers = _answers(self.task, doc)
                messages, images = _dialogue(self.task.doc_to_messages(doc), self.name, index)
        except Image.DecompressionBombError as error:  # of an image that the task opens by itself
            raise TooManyPixels(f"an image has more than {MAX_PIXELS / 1e6:.0f} megapixels") from error
        return Example(str(index), (*messages, Message("assistant", answers[0])), tuple(images), answers)


def undecoded_rows(rows: Any) -> Any:
    """A data set whose images come as the bytes of their files, which `shown` decodes as everywhere else."""
    for name, feature in (getattr(rows, "features", None) or {}).items():
        if (plain := undecoded(feature)) != feature:
            rows = rows.cast_column(name, plain)
    return rows


def shown(value: Any, feature: Any) -> Any:
    """A value of a row with its images as a model is shown them: the task gets to see no others."""
    import datasets

    if isinstance(feature, datasets.Image) and isinstance(value, Mapping):
        data = value["bytes"]
        return open_image(EncodedImage(data) if data is not None else Path(value["path"]))
    if isinstance(feature, datasets.List) and value is not None:
        return [shown(part, feature.feature) for part in value]
    if isinstance(feature, dict) and isinstance(value, Mapping):
        return {name: shown(part, feature[name]) for name, part in value.items()}
    return value


def questions(benchmark: EvalTask) -> Questions:
    """The task's rows, once its scoring has been tried on some of them.

    Raises UserError where lmms-eval cannot load the task or its data, and for a scoring that is not supported.
    """
    rows = Questions(benchmark.name, load_task(benchmark.task, benchmark.file.parent, benchmark.digest))
    _rehearse(benchmark, rows)
    return rows


def scoring(benchmark: EvalTask) -> Metric:
    """The scoring of a task as a metric: of one answer, and of all together, which is compared with lmms-eval's own score."""
    return Metric(benchmark.metric, benchmark.version, partial(_score, benchmark), partial(_together, benchmark))


@lru_cache(maxsize=8)
def load_task(task: str, folder: Path, digest: str | None = None) -> Any:
    """lmms-eval's object of the task whose YAML lies in `folder`, with its data set; remembered while `digest` is the same."""
    from PIL import ImageFile
    from tenacity import RetryError

    with _pillow(truncated=ImageFile.LOAD_TRUNCATED_IMAGES):  # importing lmms-eval sets it for the whole process
        from lmms_eval.tasks import TaskManager, get_task_dict

    manager = TaskManager(include_path=str(folder), include_defaults=False)  # all of its own would take ten seconds
    try:
        return get_task_dict([task], manager, task_type="chat")[task]
    except (RetryError, OSError, ValueError, ImportError) as error:
        raise UserError(f"lmms-eval cannot load {task}: {_bottom(error)}", file=str(folder)) from error


def _bottom(error: BaseException) -> str:
    """What went wrong, under what tried it again and again."""
    attempt = getattr(error, "last_attempt", None)
    root = (attempt.exception() if attempt is not None else None) or error
    return f"{type(root).__name__}: {root}"


def _answers(task: Any, doc: Mapping[str, Any]) -> tuple[str, ...]:
    """The answers that count, as far as the task tells them."""
    target = task.doc_to_target(doc)
    if isinstance(target, int) and task.config.doc_to_choice is not None:
        target = task.doc_to_choice(doc)[target]
    several = target if isinstance(target, list | tuple) else [target]
    return tuple(str(answer) for answer in several) or ("",)


def _dialogue(turns: Sequence[Mapping[str, Any]], name: str, index: int) -> tuple[list[Message], list[Any]]:
    """Messages with a placeholder for each image, and the images; raises UserError for video and sound."""
    messages, images = [], []
    for turn in turns:
        parts = [{"type": "text", "text": turn["content"]}] if isinstance(turn["content"], str) else turn["content"]
        other = {part["type"] for part in parts} - {"text", "image"}
        if other:
            raise UserError(f"row {index} shows {', '.join(sorted(other))}; supported: text and images", file=name)
        shown = [part["url"] for part in parts if part["type"] == "image"]
        images += [Path(image) if isinstance(image, str) else image for image in shown]
        messages.append(Message(turn["role"], _text(parts, len(shown))))
    return messages, images


def _text(parts: Sequence[Mapping[str, Any]], shown: int) -> str:
    """The words of a turn. Where they say themselves where each image goes, images go there; else as the parts stand."""
    texts = [part["text"] for part in parts if part["type"] == "text"]
    if shown and sum(text.count(IMAGE_PLACEHOLDER) for text in texts) == shown:
        return "\n".join(texts)
    pieces = [
        IMAGE_PLACEHOLDER if part["type"] == "image" else part["text"].replace(IMAGE_PLACEHOLDER, "") for part in parts
    ]
    return "\n".join(piece for piece in pieces if piece.strip())


def _value(benchmark: EvalTask, task: Any, prediction: str, example: Example) -> Any:
    """What the task's `process_results` says of one answer under the benchmark's metric."""
    from lmms_eval.api.instance import Instance
    from lmms_eval.api.reasoning import parse_reasoning_tags_config, strip_reasoning_tags
    from tenacity import RetryError

    doc = task.eval_docs_no_media[int(example.id)]
    # of several ways to filter an answer the first counts
    ensemble = task._filters[0]
    asked = Instance(request_type="generate_until", arguments=(), idx=0, metadata=_place(benchmark, example))
    asked.resps = [prediction]
    ensemble.apply([asked], [doc])
    kept = asked.filtered_resps[ensemble.name]
    tags = parse_reasoning_tags_config(task_value=task.config.reasoning_tags)
    if tags is not None and isinstance(kept, str):
        kept = strip_reasoning_tags(kept, tags)
    more = {"full_docs": task.eval_docs} if task.config.full_docs else {}
    try:
        with _seeded(f"{benchmark.task} {example.id}"):  # MMMU, for one, guesses where an answer names no option
            values = task.process_results(doc, [kept], **more)
    except RetryError as error:
        raise UserError(
            f"lmms-eval cannot score {prediction!r}: {_bottom(error)}", place=f"row {example.id}"
        ) from error
    if benchmark.metric not in values:
        raise UserError(
            f"lmms-eval gives it no {benchmark.metric}; supported: every question", place=f"row {example.id}"
        )
    return values[benchmark.metric]


@contextmanager
def _seeded(seed: str) -> Iterator[None]:
    """Python's and NumPy's dice thrown from `seed`, so that a score is the same whenever it is computed; put back after."""
    state, other = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(zlib.crc32(seed.encode()))
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(other)


def _place(benchmark: EvalTask, example: Example) -> dict[str, Any]:
    return {"task": benchmark.task, "doc_id": int(example.id), "repeats": 1}


def _aggregation(benchmark: EvalTask, task: Any) -> Callable[[Sequence[Any]], float]:
    """The task's aggregation as a function of values alone; raises UserError for one that is not a number in [0, 1]."""
    function = task.aggregation()[benchmark.metric]
    if "args" in inspect.signature(function).parameters:
        raise _refused(benchmark, "writes a file, as a submission does")

    def aggregate(values: Sequence[Any]) -> float:
        try:
            total = float(function(list(values)))
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise _refused(benchmark, f"has no value over some questions alone ({_bottom(error)})") from error
        if not math.isfinite(total) or not -1e-9 <= total <= 1 + 1e-9:
            raise _refused(benchmark, f"can be {total:g}, outside [0, 1]")
        return total

    return aggregate


def _refused(benchmark: EvalTask, why: str) -> UserError:
    return UserError(
        f"its {benchmark.metric} {why}; supported are metrics of lmms-eval in [0, 1] that are a mean over the questions",
        file=f"benchmark {benchmark.name}",
    )


def _score(benchmark: EvalTask, prediction: str, example: Example) -> float:
    return _scores(benchmark, [(prediction, example)])[0][0]


def _scores(benchmark: EvalTask, answers: Sequence[tuple[str, Example]]) -> tuple[list[float], float]:
    """The score of each answer, and lmms-eval's own score of all of them."""
    task = load_task(benchmark.task, benchmark.file.parent, benchmark.digest)
    aggregate = _aggregation(benchmark, task)
    values = [_value(benchmark, task, prediction, example) for prediction, example in answers]
    with _silent():  # aggregations report what they were given, which is one question at a time here
        return [aggregate([value]) for value in values], aggregate(values)


def _together(benchmark: EvalTask, answers: Sequence[tuple[str, Example]]) -> list[float]:
    """The score of each answer; raises UserError where their mean is not lmms-eval's own score of all."""
    scores, whole = _scores(benchmark, answers)
    mean = sum(scores) / len(scores)
    if abs(mean - whole) > ROUNDING:
        raise _refused(benchmark, f"is {whole:.4f} over {len(scores)} answers whose own have the mean {mean:.4f}")
    return scores


@contextmanager
def _pillow(*, truncated: bool, most: int | None = None) -> Iterator[None]:
    """Pillow set to read images that end too soon, or not to, and none of more than `most` pixels.

    Both are put back after, as other benchmarks' images must not change.
    """
    from PIL import Image, ImageFile

    before = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    ImageFile.LOAD_TRUNCATED_IMAGES = truncated
    if most is not None:
        Image.MAX_IMAGE_PIXELS = most // 2  # Pillow warns above it, and refuses above twice as many
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = before


@contextmanager
def _silent() -> Iterator[None]:
    from loguru import logger

    logger.disable("")
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.enable("")


def _rehearse(benchmark: EvalTask, rows_asked: Questions) -> None:
    """Score known answers to some questions, right ones and none, before a model spends hours on all."""
    count = min(len(rows_asked), REHEARSED)
    rows = [rows_asked[place * len(rows_asked) // count] for place in range(count)]
    if rows:
        _together(benchmark, [("" if place % 3 == 1 else row.target, row) for place, row in enumerate(rows)])
