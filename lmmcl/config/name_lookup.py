"""What the names in a sweep file stand for: skills, benchmarks, orders, probes and values of axes, refused with their place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lmmcl.config.data_entries import LocalBenchmarkEntry, LocalSkillEntry
from lmmcl.config.orders import DrawnOrders, bound_orders, named_orders
from lmmcl.config.own_data import OwnData
from lmmcl.config.sweep_file import SweepFile
from lmmcl.config.validation import join
from lmmcl.errors import UserError, shown, unknown
from lmmcl.methods import RECIPES, Mitigation, get_mitigation, get_recipe
from lmmcl.methods.combination import combine
from lmmcl.models import ModelSettings, get_model, model_names
from lmmcl.models.sources.reference import entry_name
from lmmcl.named_settings import build
from lmmcl.steps.keys import canonical_json
from lmmcl.tasks import benchmark_names, get_benchmark, get_skill, skill_names
from lmmcl.tasks.lmms_eval.benchmark import is_lmms_eval, lmms_eval_benchmark
from lmmcl.tasks.probes import Probe, get_probe
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.tasks.tags import tagged
from lmmcl.tasks.wordings import WordedBenchmark, read_wording, worded

T = TypeVar("T")


class Names:
    """Resolves the names of one file; every error says where the name stands.

    `file` is what messages call it, and `folder` what its paths are relative to. `orders` are skills by the order's name;
    `held_out` benchmarks have the tags that the file gives them.
    """

    def __init__(self, file: str, folder: Path, entry: SweepFile) -> None:
        self._file, self._folder, self._entry = file, folder, entry
        self._named_values: dict[tuple[str, str], tuple[str, str]] = {}
        self._own_data = OwnData(file, folder)
        self._settings = self._model_settings()
        self._own_skills = {name: self._skill(name, definition) for name, definition in entry.skills.items()}
        self._own_benchmarks = {
            name: self._benchmark(name, definition) for name, definition in entry.benchmarks.own.items()
        }
        orders, self.order_groups = named_orders(entry.orders, file)
        self._check_drawn()
        self.orders = {name: self._order(name, skills) for name, skills in orders.items()}
        self.bounds = bound_orders(self.orders, entry.bounds)
        self.held_out = self._held_out()
        self.wordings = self._wordings()
        self.probes = self._probes()

    def value(self, axis: str, value: Any, place: str) -> Any:
        """What a value of an axis stands for; names are looked up, and stand for one thing in the whole file."""
        match axis:
            case "recipe":
                recipe = self._named(get_recipe, place, value)
                if recipe.name in RECIPES and recipe.identity() != RECIPES[recipe.name].identity():
                    why = f"{shown(recipe.name)} is the name of a built-in recipe that trains something else; choose another name"
                    raise UserError(why, file=self._file, place=place)
                return self._one_of_its_name(axis, recipe.name, recipe, place)
            case "mitigation":
                mitigation = self._mitigation(value, place)
                return mitigation and self._one_of_its_name(axis, mitigation.label, mitigation, place)
            case "model":
                model = self._named(get_model, place, value, self._folder)
                if self._entry.thinking:
                    model = self._named(model.with_thinking, place)
                if (name := entry_name(value)) in self._entry.models:
                    model = self._named(model.with_settings, join("models", name), self._settings[name])
                return self._one_of_its_name(axis, model.name, model, place)
            case "order" if value not in self.orders and value not in self.order_groups:
                raise UserError(
                    unknown("order", value, [*self.order_groups, *self.orders]), file=self._file, place=place
                )
        return value

    def _model_settings(self) -> dict[str, ModelSettings]:
        """The settings of models by their names in the grids; of models that ship also where no grid has them (now)."""
        known = [entry_name(model) for grid in self._entry.grids for model in grid.model]  # type: ignore[attr-defined]
        known = list(dict.fromkeys([*known, *model_names()]))
        for name in self._entry.models:
            if name not in known:
                raise UserError(unknown("model", name, known), file=self._file, place=join("models", name))
        return {
            name: self._named(build, join("models", name), ModelSettings, name, settings)
            for name, settings in self._entry.models.items()
        }

    def _one_of_its_name(self, axis: str, name: str, value: Any, place: str) -> Any:
        """`value`, unless another of its name stands in the file: reports would take their trials for seeds of one."""
        identity = canonical_json(value.identity())
        first, where = self._named_values.setdefault((axis, name), (identity, place))
        if first != identity:
            raise UserError(
                f"{shown(name)} is already the name of another {axis}, at {where}; reports need distinct names: rename one",
                file=self._file,
                place=place,
            )
        return value

    def _mitigation(self, value: Any, place: str) -> Mitigation | None:
        if value in (None, "none"):
            return None
        one = partial(get_mitigation, skills=self._own_skills, folder=self._folder)
        if not isinstance(value, list):
            return self._named(one, place, value)
        return self._named(combine, place, [self._named(one, join(place, i), member) for i, member in enumerate(value)])

    def _skill(self, name: str, entry: LocalSkillEntry) -> Skill:
        place = join("skills", name)
        if name in skill_names():
            raise UserError(
                f"{shown(name)} is the name of a built-in skill; choose another name", file=self._file, place=place
            )
        return self._own_data.skill(name, entry, place)

    def _benchmark(self, name: str, entry: LocalBenchmarkEntry) -> Benchmark:
        place = join("benchmarks", "own", name)
        if name in benchmark_names():
            raise UserError(
                f"{shown(name)} is the name of a built-in benchmark; choose another name", file=self._file, place=place
            )
        return self._own_data.benchmark(name, entry, place)

    def _check_drawn(self) -> None:
        """Refuse an unknown skill of orders that are drawn, where it stands."""
        for name, entry in self._entry.orders.items():
            for i, skill in enumerate(entry.of if isinstance(entry, DrawnOrders) else ()):
                place = join("orders", name, "of", i)
                self._lookup("skill", skill, self._own_skills, skill_names(), get_skill, place)

    def _order(self, order: str, names: list[str]) -> tuple[Skill, ...]:
        return tuple(
            self._lookup("skill", name, self._own_skills, skill_names(), get_skill, join("orders", order, i))
            for i, name in enumerate(names)
        )

    def _held_out(self) -> tuple[Benchmark, ...]:
        taught = {skill.name for skills in self.orders.values() for skill in skills}
        asked = {skill.benchmark.name: skill.name for skills in self.orders.values() for skill in skills}
        benchmarks = []
        for i, name in enumerate(self._entry.benchmarks.held_out):
            place = join("benchmarks", "held_out", i)
            if name in asked and name not in taught:
                order = self._order_of(asked[name])
                why = f"{shown(name)} is the benchmark of {shown(asked[name])}, a skill of {order}, so it cannot be held out"
                raise UserError(why, file=self._file, place=place)
            if name in taught or name in self._entry.benchmarks.held_out[:i]:
                order = self._order_of(name) if name in taught else ""
                why = f"is a skill of {order}, so it cannot be held out" if order else "is listed twice"
                raise UserError(f"{shown(name)} {why}", file=self._file, place=place)
            if is_lmms_eval(name):
                benchmarks.append(self._named(lmms_eval_benchmark, place, name, self._include()))
            else:
                known = benchmark_names()
                benchmarks.append(self._lookup("benchmark", name, self._own_benchmarks, known, get_benchmark, place))
        return self._tagged(benchmarks, taught)

    def _order_of(self, skill: str) -> str:
        """The first order that teaches a skill, as messages call it."""
        return f"order {shown(next(name for name, skills in self.orders.items() if skill in {one.name for one in skills}))}"

    def _include(self) -> Path | None:
        """The folder of the user's own tasks for lmms-eval."""
        entry = self._entry.benchmarks.lmms_eval
        return (self._folder / entry.include).absolute() if entry else None

    def _tagged(self, held_out: Sequence[Benchmark], taught: Collection[str]) -> tuple[Benchmark, ...]:
        by_name = {benchmark.name: benchmark for benchmark in held_out}
        for name, tags in self._entry.benchmarks.tags.items():
            place = join("benchmarks", "tags", name)
            if name not in by_name:
                raise UserError(unknown("held-out benchmark", name, by_name), file=self._file, place=place)
            try:
                by_name[name] = tagged(by_name[name], tags, sorted(taught))
            except UserError as error:
                where = join(place, error.place) if error.place else place
                raise UserError(error.message, file=self._file, place=where) from error
        return tuple(by_name.values())

    def _wordings(self) -> tuple[WordedBenchmark, ...]:
        """Held-out benchmarks in the other wordings that the file gives them."""
        held_out = {benchmark.name: benchmark for benchmark in self.held_out}
        by_name: dict[str, WordedBenchmark] = {}
        for name, wordings in self._entry.benchmarks.wordings.items():
            place = join("benchmarks", "wordings", name)
            if name not in held_out:
                raise UserError(unknown("held-out benchmark", name, held_out), file=self._file, place=place)
            for i, text in enumerate(wordings):
                reworded = worded(held_out[name], self._named(read_wording, join(place, i), text))
                if reworded.name in by_name:
                    raise UserError("this wording is listed twice", file=self._file, place=join(place, i))
                by_name[reworded.name] = reworded
        return tuple(by_name.values())

    def _probes(self) -> tuple[Probe, ...]:
        by_name: dict[str, Probe] = {}
        for i, entry in enumerate(self._entry.probes):
            place = join("probes", i)
            probe = self._named(get_probe, place, entry)
            if probe.name in by_name:
                raise UserError(f"{shown(probe.name)} is listed twice", file=self._file, place=place)
            taught = [one for skills in self.orders.values() for skill in skills for one in skill.benchmarks]
            self._named(partial(probe.benchmarks, taught=taught), place, self.held_out)
            by_name[probe.name] = probe
        return tuple(by_name.values())

    def _lookup(self, kind: str, name: str, own: Mapping[str, Any], shipped: list[str], get: Any, place: str) -> Any:
        if name in own:
            return own[name]
        if name not in shipped:
            raise UserError(unknown(kind, name, [*shipped, *own]), file=self._file, place=place)
        return get(name)

    def _named(self, make: Callable[..., T], place: str, *args: Any, **more: Any) -> T:
        """Call `make`; its UserError gets the file and the place."""
        try:
            return make(*args, **more)
        except UserError as error:
            raise UserError(str(error), file=self._file, place=place) from error
