"""What is said of rows whose layout is not known, or is two: the columns, what is needed, and a line that settles it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from lmmcl.tasks.readers.image_folder import is_image_name

NEEDED = (
    "conversations (LLaVA, ShareGPT), messages (Hugging Face, OpenAI), question + answer or answers, query + response, "
    "instruction + output, prompt + completion, or an image with caption, text or label"
)
KNOWN = (
    "conversations",
    "messages",
    "question",
    "answer",
    "answers",
    "query",
    "response",
    "instruction",
    "completion",
    "caption",
)
QUESTION, ANSWER = (
    re.compile(r"^q|quest|query|prompt|instruct|input", re.I),
    re.compile(r"^a|answer|label|resp|output|target|class|capt", re.I),
)


def unrecognised(row: Mapping[str, Any]) -> str:
    """Of a row that has none of the known layouts."""
    if len(row) == 1 and not _near(row) and isinstance(next(iter(row.values())), str):
        return (
            f"unknown layout: {_columns_of(row)}, but a row needs a question and an answer, or an image with a caption. Add a "
            f"column with what is missing. Known layouts: {NEEDED}"
        )
    return (
        f"unknown layout: {_columns_of(row)}, but a row needs a question and an answer.{_near(row)} Known layouts: {NEEDED}. "
        f"If your columns have other names, map them in the skill's entry of the sweep file: {_example(row)}"
    )


def _columns_of(row: Mapping[str, Any]) -> str:
    if not row:
        return "it has no columns"
    return f"its only column is {str(next(iter(row)))!r}" if len(row) == 1 else f"its columns are {_listed(row)}"


def _near(row: Mapping[str, Any]) -> str:
    """A column that is nearly one of those that settle a layout."""
    for name in map(str, row):
        if near := get_close_matches(name[:40], KNOWN, n=1, cutoff=0.8):
            return f" {name!r} is nearly {near[0]!r}."
    return ""


def ambiguous(row: Mapping[str, Any], layouts: Sequence[str]) -> str:
    """Of a row that has several."""
    return f"may be read as {' or as '.join(layouts)}; its columns: {_listed(row)}. Say which is meant: {_example(row)}"


def _listed(row: Mapping[str, Any]) -> str:
    names = [str(name) for name in row]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "(none)"


def _example(row: Mapping[str, Any]) -> str:
    """A `columns:` line with the columns of the row, guessed by name and value."""
    texts = [str(name) for name, value in row.items() if isinstance(value, str | int) and name != "id"]
    images = [str(name) for name, value in row.items() if _is_image(name, value)]
    texts = [name for name in texts if name not in images]
    question = next(filter(QUESTION.search, texts), None) or next(iter(texts), "<your question column>")
    others = [name for name in texts if name != question]
    behind = texts[texts.index(question) + 1 :] if question in texts else []
    answer = next(filter(ANSWER.search, others), None) or next(iter([*behind, *others]), "<your answer column>")
    image = f"image: {images[0]}, " if images else ""
    return f"`columns: {{{image}question: {question}, answer: {answer}}}`"


def _is_image(name: Any, value: Any) -> bool:
    if isinstance(value, dict):
        return "bytes" in value or "path" in value
    return isinstance(value, bytes) or (isinstance(value, str) and is_image_name(value)) or name in ("image", "images")
