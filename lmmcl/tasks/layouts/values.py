"""Values of a row as texts: what may stand for a text, several answers, several images in one cell."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from lmmcl.tasks.readers.row_values import kind


def text_of(value: Any, place: str, complain: Callable[[str, str], Any]) -> Any:
    """A text (or a list of parts) as it is, a whole number as its digits; None after a complaint."""
    if isinstance(value, str | list):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    hint = "; write it as a text, so that it is taught as you mean it" if isinstance(value, float | bool) else ""
    return complain(place, f"is {kind(value)} where a text is expected{hint}")


def several(value: Any) -> list[Any]:
    """The items of a list, or of a text that is a JSON list of texts (a cell of a table); else the value alone, if any."""
    if value is None or value == "":
        return []
    if isinstance(value, str) and value.startswith("["):
        try:
            parsed = json.loads(value)
        except ValueError:
            return [value]
        return parsed if isinstance(parsed, list) and all(isinstance(item, str) for item in parsed) else [value]
    return value if isinstance(value, list) else [value]


def accepted_answers(
    value: Any, place: str, complain: Callable[[str, str], Any], *, cell: bool = False
) -> list[str] | None:
    """All answers that a value holds: a text, a list of texts, or VQAv2's list of {"answer": …}; None after a complaint.

    A text in a `cell` of a table may be a JSON list of them.
    """
    if not isinstance(value, list):
        items = several(value) if cell and isinstance(value, str) else [value]
    else:
        items = [
            element["answer"] if isinstance(element, dict) and "answer" in element else element for element in value
        ]
    if not items:
        return complain(place, "is empty")
    answers = []
    for number, item in enumerate(items):
        where = f"{place}[{number}]" if isinstance(value, list) else place
        text = (
            text_of(item, where, complain)
            if not isinstance(item, list)
            else complain(where, "is a list where a text is expected")
        )
        if text is None:
            return None
        if not text.strip():
            return complain(where, "is empty")
        answers.append(text)
    return answers


def most_common(answers: list[str]) -> str:
    """The answer that most gave; of several the first."""
    return Counter(answers).most_common(1)[0][0]
