"""What must hold of a run that was disturbed: the scores of an undisturbed one, nothing that was finished computed again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fault_lives import Ended

from lmmcl.config.cluster import ClaimSettings
from lmmcl.config.sweep import Sweep
from lmmcl.inspection.audit import check_store
from lmmcl.ledger import Ledger
from lmmcl.ledger.leases import Leases
from lmmcl.steps import Finetune

DELTA = "delta.safetensors"


@dataclass(frozen=True)
class Expected:
    """What an undisturbed run gives: every question's score by step, and the digest of the weights of each stage."""

    scores: Mapping[str, Sequence[float]]
    weights: Mapping[str, str]

    @classmethod
    def of(cls, sweep: Sweep, ledger: Ledger) -> Expected:
        """What a run of `sweep` gave."""
        return cls(scores(sweep, ledger), weights(sweep, ledger))

    def only(self, sweep: Sweep) -> Expected:
        """The part that belongs to a smaller sweep."""
        return Expected(
            {key: value for key, value in self.scores.items() if key in sweep.steps},
            {key: value for key, value in self.weights.items() if key in sweep.steps},
        )


@dataclass
class Verdict:
    """What a fault cost: updates that were made again, steps that were begun again before they were finished."""

    updates: int = 0
    steps: int = 0


def scores(sweep: Sweep, ledger: Ledger) -> dict[str, list[float]]:
    """Every question's score by step."""
    records = {key: ledger.find(step) for key, step in sweep.steps.items() if step.kind == "evaluate"}
    return {key: record["sample_scores"] for key, record in records.items() if record}


def weights(sweep: Sweep, ledger: Ledger) -> dict[str, str]:
    """The digest of the weights of each stage, but for those that `lmmcl gc` dropped."""
    records = {key: ledger.find(step) for key, step in sweep.steps.items() if isinstance(step, Finetune)}
    return {key: record.files[DELTA]["sha256"] for key, record in records.items() if record and record.has_weights}


def recorded(sweep: Sweep, ledger: Ledger) -> set[str]:
    """Keys of the steps that are recorded."""
    return {key for key, step in sweep.steps.items() if ledger.has(step)}


def judge(
    sweep: Sweep,
    ledger: Ledger,
    lives: Sequence[Ended],
    before: Sequence[Collection[str]],
    expected: Expected,
    *,
    interval: int,
    damaged: Collection[str] = (),
) -> Verdict:
    """Hold a run, which has ended well, to an undisturbed one.

    `before` are the keys that were recorded when each life began, `interval` bounds the updates that one try makes again, and
    `damaged` are keys of steps whose files were changed: those alone may be computed again.
    """
    assert scores(sweep, ledger) == expected.scores, "the scores of an undisturbed run"
    trained = weights(sweep, ledger)
    same = {key: digest for key, digest in trained.items() if expected.weights.get(key, digest) == digest}
    assert trained == same, "the weights of an undisturbed run, bit by bit"
    assert check_store(ledger).damages == []
    assert ledger.sizes("runs") == {}, "nothing is left to resume"
    assert ledger.sizes(".partial") == {}, "nothing is left that was being written"
    assert Leases(ledger.files, ClaimSettings()).active() == {}, "nothing is claimed"
    repeated = set(_repeated(lives, before)) - set(damaged)
    assert not repeated, f"finished, and begun again: {[sweep.steps[key].label for key in repeated]}"
    verdict = Verdict(steps=_begun_again(lives))
    for key, again in _made_again(sweep, lives):
        if key not in damaged:
            assert 0 <= again <= interval, f"{again} updates of {sweep.steps[key].label} were made again"
            verdict.updates += again
    return verdict


def _begins(lives: Sequence[Ended]) -> Iterator[tuple[int, str, bool]]:
    """(life, key, whether the step is recorded now; else it begins), in order."""
    for number, life in enumerate(lives):
        answered = {event["key"] for event in life.of("asks")}
        for event in life.of("asks", "writes", "published"):
            if event["point"] == "writes" and event["key"] in answered:
                continue  # an evaluation, which began before
            yield number, event["key"], event["point"] == "published"


def _repeated(lives: Sequence[Ended], before: Sequence[Collection[str]]) -> Iterator[str]:
    """Keys of the steps that were recorded, and begun again nevertheless."""
    published: set[str] = set()
    for number, key, is_recorded in _begins(lives):
        if is_recorded:
            published.add(key)
        elif key in published or key in before[number]:
            yield key


def _begun_again(lives: Sequence[Ended]) -> int:
    """How often a step was begun that had been begun before."""
    begun = [key for _, key, is_recorded in _begins(lives) if not is_recorded]
    return len(begun) - len(set(begun))


def _made_again(sweep: Sweep, lives: Sequence[Ended]) -> Iterator[tuple[str, int]]:
    """For each try that resumed a stage: its key, and how many updates it made that had been made before."""
    reached: dict[str, int] = {}
    tries: set[str] = set()
    for event in (event for life in lives for event in life.of("update")):
        key, update = event["key"], event["update"]
        if key in reached and event["attempt"] not in tries:
            yield key, reached[key] + 1 - update
        tries.add(event["attempt"])
        reached[key] = max(update, reached.get(key, 0))
    stages = {key: step.training.max_steps for key, step in sweep.steps.items() if isinstance(step, Finetune)}
    assert reached == stages, "every update of every stage was made"
