"""Engines answer a benchmark's questions: one file each, with `ENGINES = (…,)`; the cluster file names it (`evaluation.engine`).

An engine is where and how, as an attention kernel is, and in no key: the same questions are asked in the same tokens and
answered greedily, and scored by the same code. Kernels round differently, so near ties may fall otherwise:
`lmmcl eval STEP --benchmark NAME --engine vllm --parity` tells how often, and each record names its engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar, Protocol

from lmmcl.config.cluster import EvaluationPlacement
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.registry import member
from lmmcl.steps import Checkpoint
from lmmcl.tasks.examples import Example
from lmmcl.tasks.skills import Benchmark


class Engine(ABC):
    """A loaded checkpoint that answers."""

    name: ClassVar[str]
    image_backend: str | None
    """What resizes its images: `pil`, `torchvision`, or the engine's own way."""

    @abstractmethod
    def answers(
        self, benchmark: Benchmark, limit: int | None, *, answered: Sequence[str] = ()
    ) -> Iterator[tuple[Example, str]]:
        """The questions that `limit` takes (None: all) with what was said, in the benchmark's order.

        `answered` are the answers to the first of them, where an earlier try has given them. Raises UserError that names benchmark
        and example for a question that cannot be read.
        """

    def facts(self) -> Mapping[str, Any]:
        """Further fields for the record of the benchmark that was answered last."""
        return {}


class Opens(Protocol):
    """Loads a recorded checkpoint into an engine for the time of a `with` block; `precision` is fp32, bf16 or fp16."""

    def __call__(
        self, checkpoint: Checkpoint, ledger: Ledger, placement: EvaluationPlacement, precision: str
    ) -> AbstractContextManager[Engine]: ...


@dataclass(frozen=True)
class EngineKind:
    """An engine by name. `package` is what has to be installed, as `pip install lmmcl[<extra>]` does."""

    name: str
    open: Opens
    package: str | None = None
    extra: str | None = None

    def check(self) -> None:
        """Raises UserError when the package is not installed; imports nothing."""
        if self.package and find_spec(self.package) is None:
            raise UserError(
                f"the engine {self.name} needs the package {self.package}, which is not installed here; install it with "
                f'`pip install "lmmcl[{self.extra}]"`, or use `engine: transformers`',
                place="evaluation.engine",
            )


def get_engine(name: str) -> EngineKind:
    """The engine called `name`; raises UserError with the nearest names."""
    return member(__name__, "ENGINES", "evaluation engine", name)
