"""Task arithmetic: add the task vectors of all skills (Ilharco et al. 2023, "Editing Models with Task Arithmetic")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from lmmcl.methods.merging.task_vectors import moved_by, summed, task_vector
from lmmcl.methods.mitigation import MergeMitigation

if TYPE_CHECKING:
    from torch import Tensor


def task_arithmetic(anchor: Tensor, tuned: Sequence[Tensor], scale: float) -> Tensor:
    """θ0 + λ·Σ τ_t with τ_t = θ_t − θ0: all of one shape and dtype, which the result has too."""
    return moved_by(anchor, scale * summed(task_vector(anchor, value) for value in tuned))


class TaskArithmetic(MergeMitigation[None]):
    """`scale` is λ; 0.4 is what the TIES paper (Yadav et al. 2023, section 5) uses for it when nothing can be validated."""

    name = "task_arithmetic"
    version = 1

    scale: float = Field(default=0.4, gt=0, description="λ")
    continues_from: Literal["merged", "tuned", "base"] = "base"

    def merge(self, state: None, name: str, anchor: Tensor, tuned: Sequence[Tensor]) -> Tensor:
        return task_arithmetic(anchor, tuned, self.scale)


MITIGATIONS = (TaskArithmetic,)
