"""What each worker process of vLLM runs of ours: weights of another checkpoint put in the place of the ones it has.

vLLM takes the class by its name (`worker_extension_cls`) and gives its methods to the worker. The worker's own `reload_weights`
does the rest: it maps names, joins fused layers, shards, and copies into the memory that compiled graphs use. It counts which
weights of a layer have come, so it is given all of them, in the base's order, and not only those that differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

EXTENSION = f"{__name__}.WeightSwap"


class WeightSwap:
    """Methods that `LLM.collective_rpc` calls in every worker."""

    def swap_weights(self, base: str, changed: str) -> None:
        """Take the weights of the directory `base`, those that the directory `changed` has too from there."""
        worker: Any = self
        worker.reload_weights(weights_iterator=merged_tensors(Path(base), Path(changed)))


def merged_tensors(base: Path, changed: Path) -> Iterator[tuple[str, Tensor]]:
    """All tensors of `base` by name, one at a time; where `changed` has one of the name, that one."""
    from safetensors import safe_open

    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(path, framework="pt")) for path in sorted(changed.glob("*.safetensors"))]
        holder = {name: file for file in files for name in file.keys()}  # noqa: SIM118
        for path in sorted(base.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118
                    yield name, holder.get(name, file).get_tensor(name)
