"""What a person is told when the input is wrong: one message with place, remedy and the nearest allowed name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The command line prints it as one message and exits with code 2; nothing finished is lost."""

    def __init__(self, message: str, *, file: str | None = None, place: str | None = None) -> None:
        where = ": ".join(part for part in (file, place) if part)
        super().__init__(f"{where}: {message}" if where else message)
        self.message = message
        self.file = file
        self.place = place

    def at(self, *, file: str | None = None, place: str | None = None) -> UserError:
        """The same error, told with the file and the place in it that the thrower did not know."""
        return UserError(self.message, file=file or self.file, place=place or self.place)

    def __reduce__(self) -> tuple:  # errors cross process borders (Ray), and the default loses the keywords
        return (_rebuild, (self.message, self.file, self.place))


def _rebuild(message: str, file: str | None, place: str | None) -> UserError:
    return UserError(message, file=file, place=place)


def unknown(kind: str, word: str, allowed: Iterable[str]) -> str:
    """'unknown recipe 'sa_prj'; did you mean 'sa_proj'? allowed: full, gate_up, …'"""
    names = sorted(allowed)
    near = difflib.get_close_matches(word, names, n=2, cutoff=0.6)
    hint = f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ";"
    return f"unknown {kind} {word!r}{hint} allowed: {', '.join(names) or '(none)'}"


def explain(error: BaseException) -> str:
    """One line on what went wrong at the bottom of it: Ray wraps an error once for each process that it passes."""
    root: BaseException = error
    while isinstance(cause := getattr(root, "cause", None), BaseException) and cause is not root:
        root = cause
    return str(root) if isinstance(root, UserError) else f"{type(root).__name__}: {root}"
