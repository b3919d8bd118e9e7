"""Imports of many modules, without garbage collection: what they make stays, and each collection would look at all of it again.

Of the seconds that torch and transformers, Ray Tune or MLflow take to import, a quarter goes to collections that free nothing.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports(module: str, *, keep: bool = False) -> Iterator[None]:
    """Nothing is collected inside the `with`, where `module` is imported; nothing is different where it has been imported before.

    With `keep` no later collection looks at what is there at the end (`gc.freeze`): not in a process of the user, who may have
    a model there that is to be freed. Threads may import at once; collections begin again when the first of them has ended.
    """
    if module in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        if keep:
            gc.freeze()
    finally:
        gc.enable()
