"""What a terminal may be sent: no control characters of data and names, and no character that its encoding lacks.

A model's answer or a folder's name may hold an escape sequence that moves the cursor or rewrites what stands there, or
marks that turn the direction of text; they are shown as `\\x1b`. A terminal or a log that is not UTF-8 gets plain letters.
"""

from __future__ import annotations

import codecs
import json
import logging
import re
import sys
import unicodedata
from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.segment import Segment
from rich.text import Text

from lmmcl.masking import mask

PIPE_WIDTH = 200
"""Characters of a line where output goes to a file or a pipe: no table is folded."""
PLAIN = {
    "·": "-", "…": "...", "–": "-", "—": "-", "−": "-", "×": "x", "→": "->", "←": "<-", "≤": "<=", "≥": ">=", "±": "+-",
    "●": "#", "○": ".", "★": "*", "‘": "'", "’": "'", "“": '"', "”": '"', "°": "deg", "Δ": "delta", "ρ": "rho", "α": "alpha",
    "λ": "lambda", "θ": "theta", "∞": "inf", "‖": "||",
}  # fmt: skip
_FALLBACK = "lmmcl.plain"
# C0 (but tab and newline), DEL, C1, and what changes the direction of text or breaks lines unseen.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)

_COLOURS = re.compile("\x1b\\[[0-9;]*m")
_NOT_ASCII = re.compile("[^\n\t\x20-\x7e]")


def escape_controls(text: str) -> str:
    """`text` with its control characters as `\\x1b`; tabs and newlines stay."""
    return _CONTROLS.sub(lambda match: _escaped(ord(match[0])), text)


def strip_colours(text: str) -> str:
    """`text` without the codes that only colour it; others stay."""
    return _COLOURS.sub("", text)


def plain_streams(*streams: IO[str]) -> None:
    """Let `streams` (default: standard output and error) replace what their encoding lacks, in place of a traceback."""
    codecs.register_error(_FALLBACK, _replace)
    for stream in streams or (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what a test or a notebook puts in its place may have no encoding
            stream.reconfigure(errors=_FALLBACK)


def say(text: str, *, err: bool = False) -> None:
    """Print lines of plain text, safe for a terminal."""
    # Not click's echo: it writes UTF-8 to a terminal that says it is ASCII.
    print(escape_controls(mask(text)), file=sys.stderr if err else sys.stdout, flush=True)


def say_json(text: str) -> None:
    """Print a JSON text; what a terminal must not be sent, or its encoding lacks, is written as JSON's own `\\u001b`."""
    is_utf8 = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "") == "utf8"
    print((_CONTROLS if is_utf8 else _NOT_ASCII).sub(_json_escaped, mask(text)), flush=True)


def safe_console(**settings: Any) -> Console:
    """A console on which data cannot act: see the module."""
    console = Console(**settings)
    console.push_render_hook(_Escape())
    return console


def wide_console() -> Console:
    """The terminal; where output goes to a file or pipe, wide enough that no table is folded."""
    return safe_console() if sys.stdout.isatty() else safe_console(width=PIPE_WIDTH)


def masking_handler() -> logging.Handler:
    """A log handler that writes messages, as Python's own of last resort does, without secrets and control characters."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_MaskingFormatter())
    return handler


class _MaskingFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return escape_controls(mask(super().format(record)))


class _Escape(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Escaped(_masked(renderable)) for renderable in renderables]


def _masked(renderable: RenderableType) -> RenderableType:
    """A text that holds a secret without its marks: rich colours the parts of a URI, and no part alone holds the secret."""
    if not isinstance(renderable, Text) or mask(renderable.plain) == renderable.plain:
        return renderable
    plain = renderable.blank_copy(mask(renderable.plain))
    plain.end = renderable.end
    return plain


class _Escaped:
    """Something to draw, drawn with its control characters escaped; rich's own codes are kept."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _segments(console.render(self._inner, options))


def _segments(segments: Iterable[Segment]) -> Iterable[Segment]:
    for segment in segments:
        yield segment if segment.control else Segment(escape_controls(mask(segment.text)), segment.style)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_plain(character, error.encoding) for character in text), error.end


def _plain(character: str, encoding: str) -> str:
    """The nearest that the encoding has: `é` → `e` in ASCII, a box's line → `-`."""
    if character in PLAIN:
        return PLAIN[character]
    if 0xD800 <= ord(character) <= 0xDFFF:  # a byte of a file's name that is not UTF-8
        return _escaped(ord(character))
    if 0x2500 <= ord(character) <= 0x257F:
        return "-" if "HORIZONTAL" in unicodedata.name(character, "") else "|"
    base = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return base or _escaped(ord(character))


def _json_escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\u{code:04x}" if code < 0x10000 else json.dumps(match[0])[1:-1]


def _escaped(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
