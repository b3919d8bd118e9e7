"""What happens to memory that a computation on a CPU has freed: the process keeps it for the next, up to a bound.

An update frees and takes the same few megabytes hundreds of times. The GNU C library hands freed memory back to the system above a
threshold that is as low as one activation of a small model; each page then has to be mapped and zeroed again, and is far from the
caches. Nothing that is computed depends on it. Other C libraries are left as they are.

Python looks for garbage as objects pile up, also while libraries are imported, whose objects stay (`collection_paused`).
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache

KEPT_BYTES = 256 * 2**20
"""Freed memory that a process keeps."""
MAPPED_BYTES = 32 * 2**20
"""Larger pieces are mapped and unmapped each time: the most that the library would come to by itself."""
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Numbers of `mallopt` (malloc.h)."""
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
TUNABLES = "GLIBC_TUNABLES"
HUGE_PAGES = {TUNABLES: "glibc.malloc.hugetlb=1"}
"""Read when a process begins: it may use large pages for what it allocates, where the system gives them to those who ask."""


@cache
def keep_freed_memory() -> bool:
    """Let this process keep memory that it frees; whether it does. A person's own settings in the environment win."""
    if sys.platform != "linux" or _is_set(os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    return all([mallopt(TRIM_THRESHOLD, KEPT_BYTES), mallopt(MMAP_THRESHOLD, MAPPED_BYTES)])


def _is_set(environment: Mapping[str, str]) -> bool:
    return any(name in environment for name in VARIABLES) or "trim_threshold" in environment.get(TUNABLES, "")


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
