"""Rows of .json (a list of objects, read piece by piece) and .jsonl (an object a line).

A .json file may be larger than memory: the text is decoded a window at a time, and a row that the window cuts is decoded again
when more of it has been read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from lmmcl.errors import UserError
from lmmcl.tasks.readers.row_values import JsonReader, Unreadable, kind

WINDOW = 1 << 20
"""Characters read at a time; a row that is longer makes the window grow."""
NEAR_END = 16
"""Characters before the end of a window within which an error may come from the cut alone (`tru`, `\\u12`, `-`)."""
SPACE = " \t\n\r"


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The rows of a .jsonl file by line number; a line that is not JSON comes as `Unreadable`."""
    reader = JsonReader()
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row = reader.decode(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                row = Unreadable(f"is not JSON: {error}")
            yield number, row


def json_list(path: Path) -> Iterator[tuple[int, Any]]:
    """The rows of a .json file, which holds one list."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        window = _Window(stream)
        try:
            if window.next_character() != "[":
                value = window.value()
                window.check_end()
                raise UserError(f"holds {kind(value)} where a list of rows is expected", file=str(path))
            yield from enumerate(_elements(window), start=1)
            window.check_end()
        except json.JSONDecodeError as error:
            hint = "; one object a line? then name it .jsonl" if error.msg == "Extra data" else ""
            message = f"is not JSON: {error.msg}: {window.place(error.pos)}{hint}"
            raise UserError(message, file=str(path)) from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"is not JSON: {error}", file=str(path)) from error


def _elements(window: _Window) -> Iterator[Any]:
    window.at += 1
    if window.next_character() == "]":
        window.at += 1
        return
    while True:
        yield window.value()
        mark = window.next_character()
        if mark not in (",", "]"):
            raise json.JSONDecodeError("Expecting ',' delimiter", window.text, window.at)
        window.at += 1
        if mark == "]":
            return
        window.next_character()


class _Window:
    """A part of a JSON text, and how far it has been read."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.reader = JsonReader()
        self.text, self.at = "", 0
        self.is_last = False
        self._lines, self._columns = 0, 0

    def grow(self) -> None:
        """Forget what has been read, and read at least as much again as is left."""
        passed = self.text[: self.at]
        lines = passed.count("\n")
        self._columns = len(passed) - passed.rfind("\n") - 1 if lines else self._columns + len(passed)
        self._lines += lines
        rest = self.text[self.at :]
        more = self.stream.read(max(WINDOW, len(rest)))
        self.text, self.at, self.is_last = rest + more, 0, not more

    def next_character(self) -> str:
        """The next character other than space, where the window is then at; empty at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in SPACE:
                self.at += 1
            if self.at < len(self.text) or self.is_last:
                return self.text[self.at : self.at + 1]
            self.grow()

    def value(self) -> Any:
        """The value that begins here; raises JSONDecodeError."""
        self.next_character()
        while True:
            try:
                value, end = self.reader.decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos >= len(self.text) - NEAR_END
                if self.is_last or not cut:
                    raise
            else:
                if end < len(self.text) or self.is_last:  # else a number may continue behind the window
                    self.at = end
                    return self.reader.checked(value)
            self.grow()

    def check_end(self) -> None:
        """Raises JSONDecodeError unless nothing follows."""
        if self.next_character():
            raise json.JSONDecodeError("Extra data", self.text, self.at)

    def place(self, at: int) -> str:
        """Line and column of a position in the window."""
        before = self.text[:at]
        lines = before.count("\n")
        column = len(before) - before.rfind("\n") if lines else self._columns + len(before) + 1
        return f"line {self._lines + lines + 1} column {column}"
