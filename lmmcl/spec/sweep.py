"""From a sweep file to trials: names become things, grids become products, and what cannot be is refused at the door."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from lmmcl.errors import UserError, unknown
from lmmcl.methods import Mitigation, get_mitigation, get_recipe
from lmmcl.models import get_model
from lmmcl.spec.door import apply_overrides, join, read_yaml, refusal, validate
from lmmcl.spec.file import Grid, LocalBenchmarkEntry, LocalSkillEntry, SweepFile
from lmmcl.spec.settings import Training
from lmmcl.spec.steps import Step
from lmmcl.spec.trial import Trial
from lmmcl.tasks import benchmark_names, get_benchmark, get_skill, skill_names
from lmmcl.tasks.base import Benchmark, Skill
from lmmcl.tasks.local import local_benchmark, local_skill
from lmmcl.tasks.probes import Probe, get_probe
from lmmcl.tasks.tags import tagged

Named = TypeVar("Named")


@dataclass(frozen=True)
class Sweep:
    """A sweep file that was understood: its trials, all of them checked."""

    name: str
    description: str
    file: str
    trials: tuple[Trial, ...]

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

    def sweep(self) -> Sweep:
        trials: dict[str, Trial] = {}
        for trial in self._trials():
            trials.setdefault(trial.key, trial)  # grids may overlap; equal work is one trial
        return Sweep(self.entry.name, self.entry.description, str(self.path), tuple(trials.values()))

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
            found.append(self._lookup("benchmark", name, self.own_benchmarks, benchmark_names(), get_benchmark, place))
        return self._tagged(found, taught)

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

    def _trials(self) -> Iterator[Trial]:
        for number, grid in enumerate(self.entry.grids):
            place = join("grids", number)
            axes = {name: values for name in Grid.model_fields if (values := getattr(grid, name)) is not None}
            axes["order"] = axes.get("order") or self._only_order(place)
            axes["recipe"] = [
                self._named(get_recipe, join(place, "recipe", i), v) for i, v in enumerate(axes["recipe"])
            ]
            axes["mitigation"] = [
                self._mitigation(v, join(place, "mitigation", i)) for i, v in enumerate(axes["mitigation"])
            ]
            axes["model"] = [
                self._named(get_model, join(place, "model", i), v, self.path.parent)
                for i, v in enumerate(axes["model"])
            ]
            for i, order in enumerate(axes["order"]):
                if order not in self.orders:
                    raise UserError(
                        unknown("order", order, self.orders), file=str(self.path), place=join(place, "order", i)
                    )
            for values in itertools.product(*axes.values()):
                yield self._trial(dict(zip(axes, values, strict=True)), place)

    def _only_order(self, place: str) -> list[str]:
        if len(self.orders) == 1:
            return list(self.orders)
        raise UserError(f"order is missing; allowed: {', '.join(self.orders)}", file=str(self.path), place=place)

    def _mitigation(self, value: Any, place: str) -> Mitigation | None:
        if value in (None, "none"):
            return None
        return self._named(get_mitigation, place, value, skills=self.own_skills, folder=self.path.parent)

    def _trial(self, point: dict[str, Any], place: str) -> Trial:
        varied = {name: value for name, value in point.items() if name in Training.model_fields}
        try:
            training = Training.model_validate({**self.entry.training.model_dump(), **varied})
        except ValidationError as error:
            raise refusal(error, file=str(self.path), place=place) from error
        mitigation = point["mitigation"]
        if mitigation:
            self._named(mitigation.check_recipe, join(place, "mitigation"), point["recipe"])
        axes = {
            "model": point["model"].name,
            "recipe": point["recipe"].name,
            "mitigation": mitigation.label if mitigation else None,
            "order": point["order"],
            "seed": point["seed"],
            "learning_rate": training.learning_rate,
            **varied,
        }
        trial = Trial(
            model=point["model"],
            recipe=point["recipe"],
            mitigation=mitigation,
            order=point["order"],
            skills=self.orders[point["order"]],
            held_out=self.held_out,
            training=training,
            evaluation=self.entry.evaluation,
            probes=self.probes,
            seed=point["seed"],
            axes=axes,
            name=self._name(axes),
        )
        self._named(trial.trained_parameters, join(place, "recipe"))
        return trial

    def _name(self, axes: Mapping[str, Any]) -> str:
        """`sa_proj · wise_ft(alpha=0.5) · lr 5e-06 · tiny-onevision · main · s0`: sorts by what differs most."""
        parts = [axes["recipe"], axes["mitigation"], f"lr {axes['learning_rate']:g}", axes["model"]]
        parts += [axes["order"]] if len(self.orders) > 1 else []
        fixed = ("model", "recipe", "mitigation", "order", "seed", "learning_rate")
        parts += [f"{name} {value}" for name, value in axes.items() if name not in fixed]
        return " · ".join(str(part) for part in [*parts, f"s{axes['seed']}"] if part is not None)
