"""The measures of continual learning, each in signed percentage points and defined after any number of stages.

A measure is a function of a `Run` (who was taught when, and the score of each stage on each benchmark) and a stage `t` ≥ 1. It
raises Undefined where a score it needs is missing or its mean would be over nothing: no measure is 0 by default, and
no mean is taken over whatever happens to be there, since means over different benchmarks cannot be compared.

A score is a float, or an array of resamples: the same code gives the value and its bootstrap distribution.

Notation: R[t, i] is the score on the benchmark of skill i after stage t, R[0, ·] that of the base. **A skill that is taught
more than once counts once**: its own stage is the latest one up to t (what it knows now comes from there), except for forward
transfer, which looks at the stage before it was taught for the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Value: TypeAlias = "float | NDArray[np.float64]"


class Undefined(Exception):
    """A measure that does not exist at this stage or from these scores."""


@dataclass(frozen=True)
class Run:
    """Scores in percentage points by (stage, benchmark), target benchmarks in the order taught, held-out ones.

    Skills that one stage teaches together are a tuple in `order`.
    """

    order: tuple[str | tuple[str, ...], ...]
    held_out: tuple[str, ...]
    scores: Mapping[tuple[int, str], Value]
    _known: dict[tuple[str, int, str], Value] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Parts of measures that later ones, or the same after later stages, are made of too: as resamples each takes a while."""

    def at(self, stage: int, benchmark: str) -> Value:
        """R[stage, benchmark]; raises Undefined when it was not measured."""
        try:
            return self.scores[stage, benchmark]
        except KeyError:
            raise Undefined(f"no score of {benchmark} at stage {stage}") from None

    def gain(self, stage: int, benchmark: str) -> Value:
        """R[stage, benchmark] − R[0, benchmark]."""
        return self.once("gain", stage, lambda: self.at(stage, benchmark) - self.at(0, benchmark), benchmark)

    def once(self, what: str, stage: int, make: Callable[[], Value], benchmark: str = "") -> Value:
        """What `make` gives, which is made once."""
        part = what, stage, benchmark
        if part not in self._known:
            self._known[part] = make()
        return self._known[part]

    def own_stages(self, t: int) -> dict[str, int]:
        """The skills learnt up to stage t, each with the latest stage that taught it."""
        return _own_stages(self.order, t)

    def earlier(self, t: int) -> dict[str, int]:
        """As own_stages, without the skill that stage t itself taught."""
        return {name: stage for name, stage in self.own_stages(t).items() if stage < t}


@lru_cache(maxsize=256)  # every measure of every trial asks
def _own_stages(order: tuple[str | tuple[str, ...], ...], t: int) -> dict[str, int]:
    return {name: stage for stage, taught in enumerate(order[:t], start=1) for name in together(taught)}


def together(taught: str | tuple[str, ...]) -> tuple[str, ...]:
    """What one stage teaches, as an entry of an order says."""
    return (taught,) if isinstance(taught, str) else taught


def _mean(values: Iterable[Value]) -> Value:
    terms = list(values)
    if not terms:
        raise Undefined("a mean over nothing")
    return sum(terms) / len(terms)


def learning(run: Run, t: int) -> Value:
    """Gain right after being taught: mean over learnt skills of R[own stage, i] − R[0, i] (LMM-CL, arXiv 2510.08564)."""
    return _mean(run.gain(own, name) for name, own in run.own_stages(t).items())


def target_forgetting(run: Run, t: int) -> Value:
    """Change since being taught: mean over skills learnt before stage t of R[t, i] − R[own stage, i] (LMM-CL); below 0: forgot."""
    return _mean(run.at(t, name) - run.at(own, name) for name, own in run.earlier(t).items())


def overall(run: Run, t: int) -> Value:
    """What is left of the gain: mean over learnt skills of R[t, i] − R[0, i] (LMM-CL)."""
    return _mean(run.gain(t, name) for name in run.own_stages(t))


def held_out_forgetting(run: Run, t: int) -> Value:
    """Mean over held-out benchmarks of R[t, h] − R[0, h] (LMM-CL); below 0: forgot."""
    return _mean(run.gain(t, name) for name in run.held_out)


def bwt(run: Run, t: int) -> Value:
    """Backward transfer: mean over i < t of R[t, i] − R[i, i] (Lopez-Paz & Ranzato 2017, eq. 3).

    The literature's name for target_forgetting; the two are equal. Below 0: forgot.
    """
    return target_forgetting(run, t)


def fwt(run: Run, t: int) -> Value:
    """Forward transfer: mean over skills first taught at stage 2 … t of R[i−1, i] − R[0, i] (Lopez-Paz & Ranzato, eq. 4)."""
    stages = reversed(list(enumerate(run.order[:t], start=1)))
    first = {name: stage for stage, taught in stages for name in together(taught)}
    return _mean(run.gain(stage - 1, name) for name, stage in first.items() if stage > 1)


def chaudhry_forgetting(run: Run, t: int) -> Value:
    """Mean over skills learnt before stage t of max over stages 1 … t−1 of R[·, i], − R[t, i] (Chaudhry et al. 2018, eq. 3).

    Above 0: forgot. It is negative when the skill is now better than it ever was.
    """
    return _mean(_best(run, name, t) - run.at(t, name) for name in run.earlier(t))


def _best(run: Run, name: str, t: int) -> Value:
    """The highest score before stage t, from stage 1 on."""
    if t <= 2:
        return run.at(1, name)
    return run.once("best", t, lambda: np.maximum(_best(run, name, t - 1), run.at(t - 1, name)), name)


def mft(run: Run, t: int) -> Value:
    """Mean fine-tune accuracy: mean over learnt skills of R[own stage, i] (MCITlib)."""
    return _mean(run.at(own, name) for name, own in run.own_stages(t).items())


def mfn(run: Run, t: int) -> Value:
    """Mean final accuracy: mean over learnt skills of R[t, i] (MCITlib)."""
    return run.once("mfn", t, lambda: _mean(run.at(t, name) for name in run.own_stages(t)))


def maa(run: Run, t: int) -> Value:
    """Mean average accuracy: mean over stages s = 1 … t of the mean over skills learnt by s of R[s, i] (MCITlib)."""
    return _mean(mfn(run, stage) for stage in range(1, t + 1))


def h_score(run: Run, t: int) -> Value:
    """Harmonic mean of the held-out mean and the learnt skills' mean after stage t (Model Tailor, arXiv 2402.12048)."""
    old, new = _mean(run.at(t, name) for name in run.held_out), mfn(run, t)
    return 2 * old * new / np.maximum(old + new, 1e-12)


MEASURES: dict[str, Callable[[Run, int], Value]] = {
    measure.__name__: measure
    for measure in (
        learning,
        target_forgetting,
        overall,
        held_out_forgetting,
        bwt,
        fwt,
        chaudhry_forgetting,
        mft,
        mfn,
        maa,
        h_score,
    )
}
"""Every measure by name."""
ABOVE_0_FORGOT = frozenset({"chaudhry_forgetting"})
"""Measures for which less is better; for all others more is."""
OLD_NAMES = {"forgetting": "chaudhry_forgetting"}
"""Measures that had another name in earlier versions, whose sweep files and stores still use it."""
EQUAL_TO = {"bwt": "target_forgetting"}
"""Second names of a measure: where each measure is shown once, only the first name is."""
BELOW_0_FORGOT = "below 0: forgot"
"""What is said of the sign wherever `target_forgetting` or `held_out_forgetting` is shown."""
SHOWN = ("learning", "target_forgetting", "overall", "held_out_forgetting")
"""The four measures that every report shows."""


def better(name: str) -> Literal["max", "min"]:
    """Whether more or less of a measure is better."""
    return "min" if name in ABOVE_0_FORGOT else "max"


def all_measures(run: Run, t: int, names: Collection[str] | None = None) -> dict[str, Value]:
    """Every measure (or those of these `names`) that is defined after stage t; none at stage 0."""
    defined: dict[str, Value] = {}
    for name, measure in MEASURES.items() if t >= 1 else ():
        if names is not None and name not in names:
            continue
        if EQUAL_TO.get(name) in defined:
            defined[name] = defined[EQUAL_TO[name]]
            continue
        try:
            defined[name] = measure(run, t)
        except Undefined:
            continue
    return defined
