"""Proof of what trained: digests of every tensor before and after a stage.

Frozen tensors must be bit-identical. A trained tensor may stand still (SigLIP's last layers get no gradient under `full`,
a bf16 weight may be left by updates below its resolution): it is reported. But what a recipe names must have moved somewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lmmcl.models.roles import resolve, selects
from lmmcl.steps import Finetune
from lmmcl.training.stage_errors import StageError


@dataclass(frozen=True)
class Proof:
    """Names of the trained tensors that moved and that did not, and how many frozen tensors were shown to be identical."""

    frozen: int
    moved: tuple[str, ...]
    unmoved: tuple[str, ...]

    def fields(self) -> dict[str, Any]:
        """For the record: counts, and the names of what did not move."""
        return {"frozen": self.frozen, "moved": len(self.moved), "unmoved": list(self.unmoved)}


def verify_updates(
    step: Finetune,
    roles: Mapping[str, str],
    trained: Collection[str],
    before: Mapping[str, str],
    after: Mapping[str, str],
    *,
    must_move: bool = True,
) -> Proof:
    """Compare digests of all parameters and buffers by name, from before and after a stage.

    `roles` are those of the parameters, `trained` the names of what may differ. Raises StageError when a frozen
    tensor changed, a tensor appeared or vanished, or (if `must_move`) none of the tensors of a selector moved.
    """
    if before.keys() != after.keys():
        raise StageError.of(step, f"tensors appeared or disappeared: {_some(set(before) ^ set(after))}")
    changed = {name for name in before if before[name] != after[name]}
    if wrong := changed - set(trained):
        raise StageError.of(step, f"{len(wrong)} frozen tensors changed: {_some(wrong)}")
    for selector in step.recipe.moves if must_move else ():
        resolved = resolve(selector, roles.values(), model=step.model.name)
        if not any(selects(resolved, roles[name]) for name in changed):
            raise StageError.of(
                step,
                f"no parameter that {selector!r} selects changed: it got no gradient, or learning rate "
                f"{step.training.learning_rate:g} is too small for {step.training.precision}",
            )
    still = set(trained) - changed
    return Proof(len(before) - len(trained), tuple(sorted(changed)), tuple(sorted(still)))


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
