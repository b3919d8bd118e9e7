"""Images that a text holds: data URLs, and the base64 cells of tables."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any

from lmmcl.tasks.readers.image_folder import is_image_name

_DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)
_BEGINNINGS = ("/9j/", "iVBORw0KGgo", "UklGR", "R0lGOD", "Qk0")
"""How JPEG, PNG, WebP, GIF and BMP files begin in base64."""
SHORTEST = 200
"""Characters; a path that begins alike is shorter."""


def embedded_image(text: str, place: str, complain: Callable[[str, str], Any]) -> bytes | None:
    """The bytes of an image that a text holds; None where it holds none, and empty after a complaint."""
    url = _DATA_URL.match(text)
    if url is None and (len(text) < SHORTEST or not text.startswith(_BEGINNINGS)):
        return None
    try:
        return base64.b64decode(text[url.end() if url else 0 :], validate=True)
    except ValueError as error:
        complain(place, f"is not base64: {error}")
        return b""


def unasked_image(rest: Mapping[str, Any], has_image: bool) -> str | None:
    """A column that nobody asked for and that holds an image: bytes of one at any time, a name of one where the row has none."""
    for name, value in rest.items():
        if isinstance(value, bytes) or (isinstance(value, dict) and isinstance(value.get("bytes"), bytes)):
            return name
        if not has_image and isinstance(value, str) and _names_image(value):
            return name
    return None


def _names_image(value: str) -> bool:
    return value.startswith("data:image/") or (len(value) < 300 and "\n" not in value and is_image_name(value))
