"""What kept features of images save a sweep: pictures that are shown again to a frozen tower, and not encoded again."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

from lmmcl.config.cluster import Cluster
from lmmcl.models.lmm import LMM
from lmmcl.planning.flops import known_size
from lmmcl.reports import formatting
from lmmcl.steps import Evaluate, Finetune
from lmmcl.steps.frozen_vision import FAMILIES, can_cache, sees_as_base, trains_vision
from lmmcl.steps.keys import canonical_json


class Shown(NamedTuple):
    """What a step shows to a tower: `pictures` names tower, precision and data; rows that it shows, and how many of them differ
    (None where nothing tells). They are the most that there can be unless the size of the data is known."""

    pictures: Hashable
    rows: float | None
    distinct: float | None
    is_known: bool


def feature_notes(missing: Iterable[Any], cluster: Cluster) -> tuple[str, ...]:
    """A sentence for each of training and evaluation whose features the cluster file keeps; nothing where it keeps none."""
    steps = list(missing)
    kept: dict[str, tuple[str | None, list[Any]]] = {
        "stages": (cluster.training.features, [step for step in steps if isinstance(step, Finetune)]),
        "evaluations": (cluster.evaluation.features, [step for step in steps if isinstance(step, Evaluate)]),
    }
    return tuple(_note(word, group) for word, (folder, group) in kept.items() if folder and group)


def _note(word: str, steps: list[Any]) -> str:
    frozen = [_shown(step) for step in steps if _is_frozen(step)]
    data = len({shown.pictures for shown in frozen})
    text = (
        f"image features: {len(frozen)} of {len(steps)} {word} show the pictures of {formatting.plural(data, 'data set')} to a "
        f"frozen tower; each picture is encoded once on a node{_saving(frozen)}"
    )
    if rest := len(steps) - len(frozen):
        families = sorted({_lmm(step).family for step in steps if not can_cache(_lmm(step))})
        unknown = f" or their family ({', '.join(families)}) is not one of {', '.join(FAMILIES)}" if families else ""
        text += f"; {rest} encode theirs each time: their tower or projector is trained{unknown}"
    return text


def _saving(frozen: list[Shown]) -> str:
    """`: those of 2,000 rows instead of 36,000`, as far as sizes or limits are known."""
    rows, distinct = 0.0, dict[Hashable, float]()
    for shown in frozen:
        if shown.rows is not None and shown.distinct is not None:
            rows += shown.rows
            distinct[shown.pictures] = max(distinct.get(shown.pictures, 0), shown.distinct)
    unknown = len({shown.pictures for shown in frozen} - distinct.keys())
    if not distinct:
        return ""
    more = f", besides {formatting.plural(unknown, 'data set')} of unknown size" if unknown else ""
    most = "" if all(shown.is_known for shown in frozen if shown.pictures in distinct) else "at most "
    return f": those of {most}{sum(distinct.values()):,.0f} rows instead of {rows:,.0f}{more}"


def _is_frozen(step: Finetune | Evaluate) -> bool:
    if not can_cache(_lmm(step)):
        return False
    if isinstance(step, Evaluate):
        return sees_as_base(step.checkpoint)
    return sees_as_base(step.parent) and not trains_vision(step)


def _shown(step: Finetune | Evaluate) -> Shown:
    model = canonical_json(_lmm(step).identity())
    if isinstance(step, Evaluate):
        asked, precision, limit = step.benchmark, step.evaluation.precision, step.evaluation.limit
        count = _least(_size(asked), limit)
        pictures = model, precision, canonical_json(asked.identity())
        return Shown(pictures, count, count, is_known=_size(asked) is not None)
    training = step.training
    size = _least(_size(step.skill), training.examples)
    shown: float | None = training.max_steps * training.global_batch_size if training.max_steps else None
    if shown is None and size is not None:
        shown = training.epochs * size
    pictures = model, training.precision, canonical_json(step.skill.identity())
    return Shown(pictures, shown, _least(size, shown), is_known=_size(step.skill) is not None)


def _size(data: Any) -> int | None:
    rows: int | None = data.known_rows()
    return known_size(data) if rows is None else rows


def _least(*counts: float | None) -> float | None:
    """The least of those that are known."""
    return min((count for count in counts if count is not None), default=None)


def _lmm(step: Finetune | Evaluate) -> LMM:
    model: LMM = step.checkpoint.model if isinstance(step, Evaluate) else step.model
    return model
