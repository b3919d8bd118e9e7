"""Which modules use a parameter in a forward pass: hooks on all modules, and every tensor operation on a parameter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LOOKS = {"__get__", "size", "dim", "numel", "stride", "is_floating_point", "is_complex", "data_ptr", "__hash__", "storage_offset",
          "is_contiguous", "get_device", "element_size", "untyped_storage", "__repr__"}  # fmt: skip


class Uses:
    """Of each parameter that a forward pass used: the names of the modules that were running, each time."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.running: list[str] = []
        self.stacks: dict[str, list[tuple[str, ...]]] = {}
        self.calls: dict[str, tuple[tuple, dict]] = {}

    @contextmanager
    def watch(self) -> Iterator[None]:
        import torch
        from torch.overrides import TorchFunctionMode

        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        uses = self

        class Mode(TorchFunctionMode):
            def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                if getattr(function, "__name__", "") not in _LOOKS:
                    for value in flat((args, kwargs or {})):
                        if isinstance(value, torch.nn.Parameter) and (name := names.get(id(value))):
                            uses.stacks.setdefault(name, []).append(tuple(uses.running))
                return function(*args, **(kwargs or {}))

        handles = []
        for name, module in self.model.named_modules():
            handles.append(module.register_forward_pre_hook(_enter(self, name), with_kwargs=True))
            handles.append(module.register_forward_hook(_leave(self), always_call=True))
        try:
            with torch.no_grad(), Mode():
                yield
        finally:
            for handle in handles:
                handle.remove()
            self.running.clear()


def _enter(uses: Uses, name: str) -> Any:
    def hook(module: Any, args: Any, kwargs: Any) -> None:
        uses.running.append(name)
        uses.calls.setdefault(name, (args, kwargs))

    return hook


def _leave(uses: Uses) -> Any:
    def hook(*_: Any) -> None:
        uses.running.pop()

    return hook


def flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for inner in value:
            yield from flat(inner)
    elif isinstance(value, dict):
        yield from flat(list(value.values()))
    else:
        yield value
