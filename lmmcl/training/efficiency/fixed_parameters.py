"""A model's parameters as a list while a stage trains: the Trainer asks for them twice an update, which walks over all modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def fixed_parameters(model: nn.Module, *, applies: bool = True) -> Iterator[None]:
    """Inside the `with`, where it `applies`, `model.parameters()` gives those of now: no module may be added or divided."""
    if not applies:
        yield
        return
    listed = list(model.parameters())

    def parameters(recurse: bool = True) -> Iterator[nn.Parameter]:
        return iter(listed) if recurse else nn.Module.parameters(model, recurse=False)

    model.parameters = parameters  # type: ignore[method-assign]  # of this one model
    try:
        yield
    finally:
        del model.parameters  # of the class again
