"""From a sweep file to trials: names become things, grids become products, and what cannot be is refused at the door."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError

from lmmcl.errors import UserError, unknown
from lmmcl.methods import Mitigation, get_mitigation, get_recipe
from lmmcl.models import get_model
from lmmcl.spec.door import apply_overrides, join, read_yaml, refusal, validate
from lmmcl.spec.file import Grid, LocalBenchmarkEntry, LocalSkillEntry, SweepFile
from lmmcl.spec.point import Points, Space
from lmmcl.spec.search import Choice, Draw, Search, check_search
from lmmcl.spec.settings import Training
from lmmcl.spec.steps import Finetune, Step
from lmmcl.spec.trial import Trial
from lmmcl.tasks import benchmark_names, get_benchmark, get_skill, skill_names
from lmmcl.tasks.base import Benchmark, Skill
from lmmcl.tasks.lmms_eval import is_lmms_eval, lmms_eval_benchmark
from lmmcl.tasks.local import local_benchmark, local_skill
from lmmcl.tasks.probes import Probe, get_probe
from lmmcl.tasks.tags import tagged

Named = TypeVar("Named")


@dataclass(frozen=True)
class Sweep:
    """A sweep file that was understood: its trials, all of them checked, and the spaces in which a search proposes more."""

    name: str
    description: str
    file: str
    trials: tuple[Trial, ...]
    search: Search = field(default_factory=Search)
    spaces: tuple[Space, ...] = ()

    @cached_property
    def steps(self) -> dict[str, Step]:
        """All steps that the sweep needs, by key, parents before children; steps that trials share appear once."""
        return {key: step for trial in self.trials for key, step in trial.steps().items()}

    def trial(self, wanted: str) -> Trial:
        """The trial with this key (or an unambiguous beginning of it) or name; raises UserError with the near ones."""
        hits = [trial for trial in self.trials if trial.name == wanted or trial.key.startswith(wanted)]
        if len(hits) != 1:
            raise UserError(unknown("trial", wanted, [trial.name for trial in self.trials]), file=self.file)
        return hits[0]


def load_sweep(path: Path | str, overrides: Iterable[str] | None = None) -> Sweep:
    """Read, override, check and expand a sweep file. Raises UserError that names the file and the place in it."""
    path = Path(path)
    data = apply_overrides(read_yaml(path), overrides or ())
    entry = validate(SweepFile, data, file=str(path))
    return _Builder(path, entry).sweep()


class _Builder:
    """Resolves the names of one file; every error says where the name stands."""

    def __init__(self, path: Path, entry: SweepFile) -> None:
        self.path, self.entry = path, entry
        self.own_skills = {name: self._skill(name, each) for name, each in entry.skills.items()}
        self.own_benchmarks = {name: self._benchmark(name, each) for name, each in entry.benchmarks.own.items()}
        self.orders = {name: self._order(name, skills) for name, skills in entry.orders.items()}
        self.held_out = self._held_out()
        self.probes = self._probes()
        self.points = Points(
            file=str(path),
            training=entry.training,
            evaluation=entry.evaluation,
            orders=self.orders,
            held_out=self.held_out,
            probes=self.probes,
            stop=entry.search.stop,
        )

    def sweep(self) -> Sweep:
        trials: dict[str, Trial] = {}
        spaces: dict[str, Space] = {}
        for found in self._grids():  # grids may overlap; equal work is one trial, and one search
            trials.setdefault(found.key, found) if isinstance(found, Trial) else spaces.setdefault(found.key, found)
        self._check_updates(trials.values(), spaces.values())
        used = {each.order for each in (*trials.values(), *(space.corners[0] for space in spaces.values()))}
        orders = [self.orders[name] for name in used]
        check_search(self.entry.search, orders, self.held_out, bool(spaces), str(self.path))
        search, kept = self.entry.search, tuple(spaces.values())
        return Sweep(self.entry.name, self.entry.description, str(self.path), tuple(trials.values()), search, kept)

    def _files(self, entry: LocalBenchmarkEntry, place: str) -> dict[str, Any]:
        """Paths of an entry, relative to the sweep file; a file that is not there is refused here."""
        names = {"test": entry.test, "images": entry.images}
        if isinstance(entry, LocalSkillEntry):
            names["train"] = entry.train
        paths = {key: (self.path.parent / value).absolute() for key, value in names.items() if value is not None}
        for key, path in paths.items():
            if not path.exists():
                raise UserError(f"{path} does not exist", file=str(self.path), place=join(place, key))
        return {**paths, "metric": entry.metric, "max_new_tokens": entry.max_new_tokens}

    def _skill(self, name: str, entry: LocalSkillEntry) -> Skill:
        place = join("skills", name)
        if name in skill_names():
            raise UserError(
                f"{name!r} is the name of a skill that ships; choose another", file=str(self.path), place=place
            )
        return self._named(local_skill, place, name, **self._files(entry, place))

    def _benchmark(self, name: str, entry: LocalBenchmarkEntry) -> Benchmark:
        place = join("benchmarks", "own", name)
        if name in benchmark_names():
            raise UserError(
                f"{name!r} is the name of a benchmark that ships; choose another", file=str(self.path), place=place
            )
        return self._named(local_benchmark, place, name, **self._files(entry, place))

    def _order(self, order: str, names: list[str]) -> tuple[Skill, ...]:
        return tuple(
            self._lookup("skill", name, self.own_skills, skill_names(), get_skill, join("orders", order, i))
            for i, name in enumerate(names)
        )

    def _held_out(self) -> tuple[Benchmark, ...]:
        taught = {skill.name for skills in self.orders.values() for skill in skills}
        found = []
        for i, name in enumerate(self.entry.benchmarks.held_out):
            place = join("benchmarks", "held_out", i)
            if name in taught or name in self.entry.benchmarks.held_out[:i]:
                why = "is taught in an order, so it is not held out" if name in taught else "is listed twice"
                raise UserError(f"{name!r} {why}", file=str(self.path), place=place)
            if is_lmms_eval(name):
                found.append(self._named(lmms_eval_benchmark, place, name, self._include()))
            else:
                known = benchmark_names()
                found.append(self._lookup("benchmark", name, self.own_benchmarks, known, get_benchmark, place))
        return self._tagged(found, taught)

    def _include(self) -> Path | None:
        """The folder of the user's own tasks for lmms-eval."""
        entry = self.entry.benchmarks.lmms_eval
        return (self.path.parent / entry.include).absolute() if entry else None

    def _tagged(self, held_out: Sequence[Benchmark], taught: Collection[str]) -> tuple[Benchmark, ...]:
        found = {benchmark.name: benchmark for benchmark in held_out}
        for name, tags in self.entry.benchmarks.tags.items():
            place = join("benchmarks", "tags", name)
            if name not in found:
                raise UserError(unknown("held-out benchmark", name, found), file=str(self.path), place=place)
            try:
                found[name] = tagged(found[name], tags, sorted(taught))
            except UserError as error:
                where = join(place, error.place) if error.place else place
                raise UserError(error.message, file=str(self.path), place=where) from error
        return tuple(found.values())

    def _probes(self) -> tuple[Probe, ...]:
        found: dict[str, Probe] = {}
        for i, entry in enumerate(self.entry.probes):
            place = join("probes", i)
            probe = self._named(get_probe, place, entry)
            if probe.name in found:
                raise UserError(f"{probe.name!r} is listed twice", file=str(self.path), place=place)
            self._named(probe.benchmarks, place, self.held_out)
            found[probe.name] = probe
        return tuple(found.values())

    def _check_updates(self, trials: Iterable[Trial], spaces: Iterable[Space]) -> None:
        """Refuse a probe that would look inside stages, but only after updates that no stage has."""
        if not any(probe.updates for probe in self.probes):
            return
        trials = [*trials, *(trial for space in spaces for trial in space.lengths())]
        lengths = [step.updates for trial in trials for step in trial.steps().values() if isinstance(step, Finetune)]
        known = [length for length in lengths if length is not None]
        for i, probe in enumerate(self.probes):
            if probe.updates and known and len(known) == len(lengths) and max(known) < probe.updates[0]:
                raise UserError(
                    f"{probe.name}.updates: no stage has {probe.updates[0]} updates; allowed: 1 to {max(known)}",
                    file=str(self.path),
                    place=join("probes", i),
                )

    def _lookup(self, kind: str, name: str, own: Mapping, shipped: list[str], get: Any, place: str) -> Any:
        if name in own:
            return own[name]
        if name not in shipped:
            raise UserError(unknown(kind, name, [*shipped, *own]), file=str(self.path), place=place)
        return get(name)

    def _named(self, make: Any, place: str, *args: Any, **more: Any) -> Any:
        """Call `make`; its UserError gets the file and the place."""
        try:
            return make(*args, **more)
        except UserError as error:
            raise UserError(str(error), file=str(self.path), place=place) from error

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
                name: [self._value(name, value, join(place, name, i)) for i, value in enumerate(values)]
                for name, values in axes.items()
                if name not in drawn
            }
            for name in drawn:
                self._check_draw(name, drawn[name], join(place, name))
            for values in itertools.product(*listed.values()):
                point = dict(zip(listed, values, strict=True))
                yield self._space(point, drawn, choices, place) if drawn else self.points.trial(point, place)

    def _value(self, axis: str, value: Any, place: str) -> Any:
        """What a value of an axis stands for; names are looked up."""
        match axis:
            case "recipe":
                return self._named(get_recipe, place, value)
            case "mitigation":
                return self._mitigation(value, place)
            case "model":
                return self._named(get_model, place, value, self.path.parent)
            case "order" if value not in self.orders:
                raise UserError(unknown("order", value, self.orders), file=str(self.path), place=place)
        return value

    def _choices(self, axis: str, draw: Draw | Choice, place: str) -> dict[Any, Any]:
        """The values of a choice by the plain words that a proposal holds."""
        found: dict[Any, Any] = {}
        for i, value in enumerate(draw.choice or ()):
            where = join(place, axis, "choice", i)
            made = self._typed(axis, self._value(axis, value, where), where)
            word = _word(axis, made)
            if word in found:
                raise UserError(f"{word!r} is listed twice", file=str(self.path), place=where)
            found[word] = made
        return found

    def _typed(self, axis: str, value: Any, place: str) -> Any:
        """A chosen value of a training setting as the setting holds it: `1e-4` is a text to YAML, and 1 epoch is 1.0."""
        if axis not in Training.model_fields:
            return value
        try:
            return TypeAdapter(Training.model_fields[axis].rebuild_annotation()).validate_python(value)
        except ValidationError as error:
            raise refusal(error, file=str(self.path), place=place) from error

    def _check_draw(self, axis: str, draw: Draw | Choice, place: str) -> None:
        if self.entry.search.optuna is None:
            raise UserError(
                f"{draw.kind} leaves the values to a search: add `search: {{optuna: {{trials: 30, objectives: {{learning: "
                "max, held_out_forgetting: max}}}}}}`, or list them",
                file=str(self.path),
                place=place,
            )
        whole = (
            int in (kind := Training.model_fields[axis].annotation, *get_args(kind))
            if axis in Training.model_fields
            else False
        )
        if whole and draw.kind in ("uniform", "log_uniform"):
            raise UserError(f"{axis} is a whole number: use int_uniform or choice", file=str(self.path), place=place)

    def _space(self, listed: dict[str, Any], drawn: dict[str, Any], choices: dict[str, Any], place: str) -> Space:
        assert self.entry.search.optuna is not None, "draws were checked"
        space = Space(self.points, listed, drawn, choices, self.entry.search.optuna, place)
        assert space.corners, "building them checks both ends of every range"
        return space

    def _only_order(self, place: str) -> list[str]:
        if len(self.orders) == 1:
            return list(self.orders)
        raise UserError(f"order is missing; allowed: {', '.join(self.orders)}", file=str(self.path), place=place)

    def _mitigation(self, value: Any, place: str) -> Mitigation | None:
        if value in (None, "none"):
            return None
        return self._named(get_mitigation, place, value, skills=self.own_skills, folder=self.path.parent)


def _word(axis: str, value: Any) -> Any:
    """What a proposal holds of a chosen value."""
    if axis == "recipe":
        return value.name
    if axis == "mitigation":
        return value.label if value else "none"
    return value
