"""From a sweep file to trials: names become things, grids become products, and what cannot be is refused at the door."""

from __future__ import annotations

import itertools
import math
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from lmmcl.config.draws import Choice, Draw
from lmmcl.config.grid_point import Points, Space, check_updates
from lmmcl.config.name_lookup import Names
from lmmcl.config.orders import bounds_of
from lmmcl.config.search_settings import Search, check_search
from lmmcl.config.settings import Training
from lmmcl.config.stage_overrides import StageOverrides, read_overrides
from lmmcl.config.sweep_file import Grid, SweepFile
from lmmcl.config.trial_names import find_one, find_seeds
from lmmcl.config.validation import apply_overrides, from_override, join, read_yaml, refusal, validate
from lmmcl.errors import UserError, shown, unknown
from lmmcl.steps import Step
from lmmcl.steps.keys import canonical_json
from lmmcl.steps.trial import Trial

MOST_TRIALS = 100_000
"""Of one sweep: beyond, a list was probably longer than meant."""


@dataclass(frozen=True, repr=False)
class Sweep:
    """A sweep that was understood: its trials, all of them checked, and the spaces in which a search proposes more.

    `file` is where it was read, empty where it was built in Python; `overrides` are the `path=value` pairs that it was read with.
    `allow_overlap` names benchmarks and mixed-in data that may hold rows which a skill teaches (see `lmmcl.config.overlaps`).
    `stage_overrides` is what depends on the skill or the stage.
    """

    name: str
    description: str
    file: str
    trials: tuple[Trial, ...]
    search: Search = field(default_factory=Search)
    spaces: tuple[Space, ...] = ()
    overrides: tuple[str, ...] = ()
    allow_overlap: tuple[str, ...] = ()
    stage_overrides: StageOverrides = field(default_factory=StageOverrides)

    def __repr__(self) -> str:
        searches = f", {len(self.spaces)} searches" if self.spaces else ""
        return f"<Sweep {self.name}: {len(self.trials)} trials{searches}{f' from {self.file}' if self.file else ''}>"

    @property
    def words(self) -> str:
        """The file and its overrides, as they stand in a command that can be pasted; `SWEEP` where there is no file."""
        if not self.file:
            return "SWEEP"
        return shlex.join([self.file, *(word for pair in self.overrides for word in ("--set", pair))])

    @cached_property
    def steps(self) -> dict[str, Step]:
        """All steps that the sweep needs, by key, parents before children; steps that trials share appear once."""
        return {key: step for trial in self.trials for key, step in trial.steps().items()}

    def trial(self, wanted: str) -> Trial:
        """The trial with this key (or the beginning of it), name or part of a name; raises UserError with the near ones."""
        return find_one(wanted, self.trials, self.file)

    def seeds(self, wanted: str) -> list[Trial]:
        """As `trial`; for a name without a seed, all seeds of its grid point."""
        return find_seeds(wanted, self.trials, self.file)


def load_sweep(path: Path | str, overrides: Iterable[str] | None = None) -> Sweep:
    """Read, override, check and expand a sweep file. Raises UserError that names the file and the place in it."""
    path = Path(path)
    overrides = tuple(overrides or ())
    data = apply_overrides(read_yaml(path), overrides)
    try:
        return replace(build_sweep(data, file=str(path), folder=path.parent), overrides=overrides)
    except UserError as error:
        raise from_override(error, overrides) from error


def build_sweep(data: Mapping[str, Any], *, file: str = "", folder: Path = Path()) -> Sweep:
    """Check and expand the settings of a sweep, as its YAML holds them. Raises UserError that names the place in them.

    `file` is what messages call the sweep, and `folder` what its paths are relative to.
    """
    return _Builder(file, folder, validate(SweepFile, data, file=file)).sweep()


class _Builder:
    """Expands the grids of one file; every error says where it stands."""

    def __init__(self, file: str, folder: Path, entry: SweepFile) -> None:
        self.file, self.entry, self.names = file, entry, Names(file, folder, entry)
        self.overrides = read_overrides(entry, self.names, file)
        if self.names.bounds and self.overrides:
            why = "bounds teach each skill in another stage than the orders do, so per_skill and per_stage do not go with them"
            raise UserError(why, file=file, place="bounds")
        self.points = Points(
            file=self.file,
            training=entry.training,
            evaluation=entry.evaluation,
            orders={**self.names.orders, **self.names.bounds},
            bounds=frozenset(self.names.bounds),
            held_out=self.names.held_out,
            probes=self.names.probes,
            wordings=self.names.wordings,
            stop=entry.search.stop,
            overrides=self.overrides,
        )

    def sweep(self) -> Sweep:
        self._check_count()
        trials: dict[str, Trial] = {}
        spaces: dict[str, Space] = {}
        for entry in self._grids():  # grids may overlap; equal work is one trial, and one search
            if isinstance(entry, Trial):
                self._check_overridden(trials.setdefault(entry.key, entry), entry)
            else:
                spaces.setdefault(entry.key, entry)
        self._check_distinct(trials.values())
        check_updates(self.entry.evaluation, self.names.probes, trials.values(), spaces.values(), self.file)
        used = {trial.order for trial in (*trials.values(), *(space.extremes[0] for space in spaces.values()))}
        orders = [self.names.orders[name] for name in used if name in self.names.orders]
        check_search(self.entry.search, orders, self.names.held_out, bool(spaces), self.file)
        search, kept = self.entry.search, tuple(spaces.values())
        return Sweep(
            self.entry.name,
            self.entry.description,
            self.file,
            tuple(trials.values()),
            search,
            kept,
            allow_overlap=self._allowed_overlap(trials.values(), kept),
            stage_overrides=self.overrides,
        )

    def _check_count(self) -> None:
        """Refuse grids of more trials than anybody runs, before the first of them is made: a range with too many values."""
        counts = [
            {name: len(values) for name in Grid.model_fields if (values := _values(getattr(grid, name)))}
            for grid in self.entry.grids
        ]
        total = sum(math.prod(lengths.values()) for lengths in counts)
        if total <= MOST_TRIALS:
            return
        largest = max(range(len(counts)), key=lambda number: math.prod(counts[number].values()))
        factors = " × ".join(f"{length:,} {name}" for name, length in counts[largest].items() if length > 1)
        raise UserError(
            f"{total:,} trials ({factors}); allowed: {MOST_TRIALS:,}. Shorten the lists, or let a search pick from ranges "
            "(search.optuna)",
            file=self.file,
            place=join("grids", largest),
        )

    def _allowed_overlap(self, trials: Iterable[Trial], spaces: Iterable[Space]) -> tuple[str, ...]:
        """The names that may hold rows which are taught, each of something that is asked or mixed in."""
        allowed = self.entry.benchmarks.allow_overlap
        if allowed:
            all_trials = [*trials, *(trial for space in spaces for trial in space.extremes)]
            names = {benchmark.name for trial in all_trials for benchmark in trial.benchmarks}
            protected = [mitigation for trial in all_trials for mitigation in trial.mitigations]
            names |= {source.name for mitigation in protected for source in getattr(mitigation, "auxiliary", ())}
            for i, name in enumerate(allowed):
                if name not in names:
                    why = unknown("benchmark or mixed-in data", name, names)
                    raise UserError(why, file=self.file, place=join("benchmarks", "allow_overlap", i))
        return tuple(allowed)

    def _check_distinct(self, trials: Iterable[Trial]) -> None:
        """Refuse two trials that a report could not tell apart: it would take them for seeds of one."""
        seen: dict[str, Trial] = {}
        for trial in trials:
            other = seen.setdefault(canonical_json(dict(trial.axes)), trial)
            if other is not trial:
                why = f"two trials are called {shown(trial.name)} and are not the same ({other.key}, {trial.key}); name them apart"
                raise UserError(why, file=self.file, place="grids")

    def _check_overridden(self, first: Trial, trial: Trial) -> None:
        """Refuse an axis that has no effect, since overrides set the same in every stage: one of two trials would vanish."""
        other = [name for name, value in trial.axes.items() if first.axes.get(name) != value]
        if self.overrides and other:
            why = f"{shown(first.name)} and {shown(trial.name)} compute the same: per_skill or per_stage set {', '.join(other)} in "
            raise UserError(f"{why}every stage; leave one out", file=self.file, place="grids")

    def _grids(self) -> Iterator[Trial | Space]:
        for number, grid in enumerate(self.entry.grids):
            place = join("grids", number)
            axes = {name: values for name in Grid.model_fields if (values := getattr(grid, name)) is not None}
            axes["order"] = axes.get("order") or self._only_order(place)
            drawn = {name: values for name, values in axes.items() if isinstance(values, Draw | Choice)}
            choices = {
                name: self._choices(name, values, place) for name, values in drawn.items() if values.kind == "choice"
            }
            listed = {
                name: [self.names.value(name, value, join(place, name, i)) for i, value in enumerate(values)]
                for name, values in axes.items()
                if name not in drawn
            }
            for name, values in listed.items():
                self._check_once(name, values, join(place, name))
            listed["order"] = [order for name in listed["order"] for order in self.names.order_groups.get(name, [name])]
            for name in drawn:
                self._check_draw(name, drawn[name], join(place, name))
            for values in itertools.product(*listed.values()):
                point = dict(zip(listed, values, strict=True))
                yield self._space(point, drawn, choices, place) if drawn else self.points.trial(point, place, listed)
            if self.names.bounds:
                yield from self._bounds(listed, drawn, place)

    def _bounds(self, listed: Mapping[str, Sequence[Any]], drawn: Mapping[str, Any], place: str) -> Iterator[Trial]:
        """The trials that those of a grid are measured against: at each of its points, without mitigation."""
        if drawn:
            why = f"bounds are trials at the points of a grid, and this one draws {', '.join(drawn)}; list them"
            raise UserError(why, file=self.file, place="bounds")
        orders = bounds_of([self.names.orders[name] for name in listed["order"]], self.names.bounds)
        points = {**listed, "order": orders, "mitigation": [None]}
        for values in itertools.product(*points.values()):
            yield self.points.trial(dict(zip(points, values, strict=True)), place, listed)

    def _check_once(self, axis: str, values: Sequence[Any], place: str) -> None:
        """Refuse a value that a list holds twice: equal seeds would count as two."""
        seen: dict[Any, int] = {}
        for i, value in enumerate(values):
            identity = canonical_json(value.identity()) if axis in ("model", "recipe") else _word(axis, value)
            if identity in seen:
                why = f"{shown(_word(axis, value))} is already listed, at {axis}[{seen[identity]}]"
                raise UserError(why, file=self.file, place=join(place, i))
            seen[identity] = i

    def _choices(self, axis: str, draw: Draw | Choice, place: str) -> dict[Any, Any]:
        """The values of a choice by the plain words that a proposal holds."""
        choices: dict[Any, Any] = {}
        for i, value in enumerate(draw.choice or ()):
            where = join(place, axis, "choice", i)
            typed = self._typed(axis, self.names.value(axis, value, where), where)
            word = _word(axis, typed)
            if word in choices:
                raise UserError(f"{shown(word)} is listed twice", file=self.file, place=where)
            choices[word] = typed
        return choices

    def _typed(self, axis: str, value: Any, place: str) -> Any:
        """A chosen value of a training setting as the setting holds it: `1e-4` is a text to YAML, and 1 epoch is 1.0."""
        if axis not in Training.model_fields:
            return value
        try:
            return TypeAdapter(Training.model_fields[axis].rebuild_annotation()).validate_python(value)
        except ValidationError as error:
            raise refusal(error, file=self.file, place=place) from error

    def _check_draw(self, axis: str, draw: Draw | Choice, place: str) -> None:
        if self.entry.search.optuna is None:
            raise UserError(
                f"{draw.kind} is a range, which needs a search: add `search: {{optuna: {{trials: 30, objectives: {{learning: "
                "max, held_out_forgetting: max}}}`, or list the values",
                file=self.file,
                place=place,
            )
        whole = (
            int in (kind := Training.model_fields[axis].annotation, *get_args(kind))
            if axis in Training.model_fields
            else False
        )
        if whole and draw.kind in ("uniform", "log_uniform"):
            raise UserError(f"{axis} is an integer: use int_uniform or choice", file=self.file, place=place)

    def _space(self, listed: dict[str, Any], drawn: dict[str, Any], choices: dict[str, Any], place: str) -> Space:
        assert self.entry.search.optuna is not None, "draws were checked"
        space = Space(self.points, listed, drawn, choices, self.entry.search.optuna, place)
        assert space.extremes, "building them checks both ends of every range"
        return space

    def _only_order(self, place: str) -> list[str]:
        if len(self.entry.orders) == 1:
            return list(self.entry.orders)
        raise UserError(f"order is missing; allowed: {', '.join(self.entry.orders)}", file=self.file, place=place)


def _values(axis: Any) -> Sequence[Any]:
    """What is listed of an axis, or a choice: of each of its values the corners are checked. A range counts as one."""
    return axis if isinstance(axis, list) else getattr(axis, "choice", None) or ()


def _word(axis: str, value: Any) -> Any:
    """What a proposal holds of a chosen value."""
    if axis in ("model", "recipe"):
        return value.name
    if axis == "mitigation":
        return value.label if value else "none"
    return value
