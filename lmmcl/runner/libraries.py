"""Imports of the heavy libraries: once a process, and without looking for garbage in what stays anyway."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@contextmanager
def collection_paused() -> Iterator[None]:
    """Inside the `with`, where libraries are imported, no garbage is collected.

    torch and transformers make 400,000 objects that stay. Walking over them again and again as they grow takes a quarter of
    the time of their import.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@cache
def load_libraries() -> None:
    """Import what asking questions needs, so that a process that is to ask has it by then; collections pass over it from now on."""
    with collection_paused():
        from lmmcl.evaluation import evaluate, probes  # noqa: F401
        from lmmcl.weights import checkpoint  # noqa: F401

        gc.freeze()
