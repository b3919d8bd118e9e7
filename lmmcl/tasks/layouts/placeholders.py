"""What looks like a placeholder for an image, a video or a sound, and is none: `<Image>`, `< image >`, `<video>`, `<audio>`.

Where a placeholder stands (alone on a line, at the beginning or the end of a user's turn) it was meant as one, and the row is
refused. Inside a sentence it may be spoken of (the `<video>` element of a page): it is read as plain text, and `lmmcl data check`
notes it.
"""

from __future__ import annotations

import re

from lmmcl.tasks.examples import IMAGE_PLACEHOLDER

_LIKE = re.compile(r"<\s*(?:image|video|audio)s?\s*/?\s*>", re.IGNORECASE)


def like_placeholders(text: str) -> list[str]:
    """All that looks like a placeholder and is none, in its order."""
    if text.count("<") == text.count(IMAGE_PLACEHOLDER):
        return []
    return [match for match in _LIKE.findall(text) if match != IMAGE_PLACEHOLDER]


def meant_placeholder(text: str) -> str | None:
    """The first that stands where a placeholder stands; None where there is none."""
    if text.count("<") == text.count(IMAGE_PLACEHOLDER):
        return None
    lines = [line.strip() for line in text.replace(IMAGE_PLACEHOLDER, "\n").strip().splitlines() if line.strip()]
    for number, line in enumerate(lines):
        for placeholder in like_placeholders(line):
            begins = not number and line.startswith(placeholder)
            ends = number == len(lines) - 1 and line.endswith(placeholder)
            if line == placeholder or begins or ends:
                return placeholder
    return None


def refusal_of(placeholder: str) -> str:
    """Why a row with such a text is refused, and what to do."""
    if "image" in placeholder.casefold():
        return f"holds {placeholder!r}, which shows no image: the placeholder is {IMAGE_PLACEHOLDER}"
    return f"holds {placeholder!r}: only text and images are supported"
