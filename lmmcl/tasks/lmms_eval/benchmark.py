"""Tasks of lmms-eval as held-out benchmarks by name (`lmms_eval/mmmu_val`): what is known of one without importing lmms-eval.

Supported are tasks that generate one answer to text and images, without examples in the prompt, and whose first metric is in
[0, 1], better when higher, needs no judge model, and is a mean over the questions: only that can be shown with intervals, flips
and paired tests. What the task's YAML tells is refused at the door; what only its code knows, when it is first asked
(task_rows.py). Answers are our own generator's (greedy, the task's `max_new_tokens`), prompts and scores are lmms-eval's.

A key holds the task's name and lmms-eval's version, which settle prompt and scoring; of the data set that it names lmms-eval
pins no revision. A task of the sweep's own folder (`benchmarks.lmms_eval.include`) enters by the content of that folder, and
what it reads from elsewhere on this machine is refused.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from lmmcl.errors import UserError, unknown
from lmmcl.tasks.examples import Example
from lmmcl.tasks.lmms_eval.includes import BUILDERS, check_inside, folder_digest
from lmmcl.tasks.skills import Benchmark
from lmmcl.yaml_text import parse_yaml

if TYPE_CHECKING:
    from lmmcl.tasks.metrics.metric import Metric

PREFIX = "lmms_eval/"
ADAPTER = 2
"""Raised whenever the same task of the same lmms-eval would be asked or scored otherwise."""
MAX_NEW_TOKENS = 1024
"""For a task that names none, as lmms-eval's LLaVA-OneVision has it."""

_TASK = re.compile(r"""^["']?task["']?[ \t]*:[ \t]*["']?([^\s"'#\[]+)""", re.MULTILINE)
_GROUPS = re.compile(r"""^["']?(?:group|tag)["']?[ \t]*:.*(?:\n[ \t]*-.*)*""", re.MULTILINE)


class Installed(NamedTuple):
    """lmms-eval as it lies here: its version and the folder of its tasks."""

    version: str
    tasks: Path


@dataclass(frozen=True)
class LmmsEvalBenchmark(Benchmark):
    """A task of lmms-eval. `file` is its YAML; `digest` stands for the folder of tasks that are not lmms-eval's own."""

    task: str = field(kw_only=True)
    release: str = field(kw_only=True)
    digest: str | None = field(default=None, kw_only=True)
    file: Path = field(kw_only=True, compare=False)
    include: Path | None = field(default=None, kw_only=True, compare=False)
    data: str | None = field(default=None, kw_only=True, compare=False)

    def scoring(self) -> Metric:
        """The task's own `process_results` and aggregation."""
        from lmmcl.tasks.lmms_eval.task_rows import scoring

        return scoring(self)

    def identity(self) -> dict[str, Any]:
        """What of this enters a step's key."""
        own = {"data": self.digest} if self.digest else {}
        return {"name": self.name, "version": self.version, "metric": self.metric, "lmms_eval": self.release, **own}

    def missing(self) -> str | None:
        """Why the data set cannot be read: it is in no cache, and the network is switched off."""
        off = any(
            os.environ.get(name, "").upper() in ("1", "TRUE", "YES", "ON")
            for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
        )
        if not off or self.data is None or self.data in BUILDERS or Path(self.data).exists():
            return None
        name = self.data.replace("/", "___")
        if any((folder / spelling).is_dir() for folder in _caches() for spelling in (name, name.lower())):
            return None
        command = f"from lmms_eval.tasks import get_task_dict; get_task_dict({self.task!r})"
        return (
            f"the data set {self.data} of {self.name} is not in the cache, and HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set; fetch "
            f'it where there is a network with `python -c "{command}"`'
        )


def is_lmms_eval(name: str) -> bool:
    """Whether a benchmark's name is that of a task of lmms-eval."""
    return name.startswith(PREFIX)


def lmms_eval_benchmark(name: str, include: Path | None = None) -> LmmsEvalBenchmark:
    """The benchmark of a task; `include` is a folder of own tasks. Raises UserError for what is not there or not supported.

    Imports nothing of lmms-eval and needs no network.
    """
    here = installed(name)
    task = name.removeprefix(PREFIX)
    shipped, own = _shipped(here.tasks), {} if include is None else _own_tasks(include)
    if task in shipped and task in own:
        raise UserError(
            f"{task!r} is the name of a task that ships with lmms-eval; choose another", file=str(own[task])
        )
    if task not in shipped and task not in own:
        raise UserError(_unknown(task, [*shipped, *own], here.tasks))
    file = own.get(task) or shipped[task]
    config = task_config(file)
    _check(name, config)
    if include is not None and task in own:
        check_inside(file, config, include, here.tasks)
    generation = config.get("generation_kwargs") or {}
    metric = config["metric_list"][0]
    digest = folder_digest(include) if include is not None and task in own else None
    return LmmsEvalBenchmark(
        name=name,
        version=ADAPTER,
        metric=str(metric["metric"]),
        load=partial(_load, name, include, here.version, digest),
        max_new_tokens=int(generation.get("max_new_tokens", MAX_NEW_TOKENS)),
        description=f"{task} of lmms-eval {here.version}, scored by its {metric['metric']}",
        task=task,
        release=here.version,
        digest=digest,
        file=file,
        include=include if task in own else None,
        data=config.get("dataset_path"),
    )


def _load(name: str, include: Path | None, release: str, digest: str | None) -> Sequence[Example]:
    """The questions, if lmms-eval and the folder of own tasks are still those of the key."""
    from lmmcl.tasks.lmms_eval.task_rows import questions

    now = lmms_eval_benchmark(name, include)
    if now.release != release:
        raise UserError(f"{name} was planned with lmms-eval {release}, but {now.release} is installed here")
    if now.digest != digest:
        raise UserError("a file of this folder changed since the sweep was read; run again", file=str(include))
    return questions(now)


def installed(name: str = "lmms_eval") -> Installed:
    """lmms-eval, found and not imported; raises UserError with the way to install it."""
    spec = importlib.util.find_spec("lmms_eval")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f'{name} needs lmms-eval, which is not installed here: pip install -e ".[lmms-eval]"')
    return Installed(importlib.metadata.version("lmms-eval"), Path(spec.submodule_search_locations[0]) / "tasks")


def task_files(folder: Path) -> dict[str, Path]:
    """The YAML file of every task below a folder, by the task's name, from the text alone (a second for thousands)."""
    files: dict[str, Path] = {}
    for file in sorted(folder.rglob("*.yaml")):
        if named := _TASK.search(file.read_text(encoding="utf-8", errors="replace")):
            files.setdefault(named[1], file)
    return files


_shipped = cache(task_files)  # nobody edits an installed package while it is used; own tasks are looked up each time


def _own_tasks(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError("no such folder of tasks", file=str(folder))
    if not (files := task_files(folder)):
        raise UserError("holds no task: none of its .yaml files says `task: name`", file=str(folder))
    return files


def _unknown(task: str, names: list[str], folder: Path) -> str:
    texts = (file.read_text(encoding="utf-8", errors="replace") for file in folder.rglob("*.yaml"))
    if any(task in re.findall(r"[\w.\-]+", groups) for text in texts for groups in _GROUPS.findall(text)):
        same = ", ".join(name for name in sorted(names) if name.startswith(task))
        return f"{task!r} is a group of tasks of lmms-eval; name its tasks one by one{f': {same}' if same else ''}"
    message, _, _ = unknown("task of lmms-eval", task, names).partition(" allowed: ")
    return f"{message} allowed: {len(names)} names (`python -m lmms_eval --tasks list` prints them)"


class _Loader(yaml.SafeLoader):
    """Reads a task's YAML and leaves its functions alone."""


_Loader.add_constructor("!function", lambda loader, node: f"!function {node.value}")


def task_config(file: Path, including: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The settings of a task with those that it includes, functions as their names; raises UserError for broken YAML.

    `including` are the files on the way to this one.
    """
    if file.resolve() in including:
        raise UserError("includes itself", file=str(file))
    try:
        config = parse_yaml(file.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot be read as a task of lmms-eval: {error}", file=str(file)) from error
    if not isinstance(config, dict):
        raise UserError("a mapping of settings is expected at the top", file=str(file))
    included = config.pop("include", [])
    merged: dict[str, Any] = {}
    for parent in reversed([included] if isinstance(included, str) else included):
        merged |= task_config(file.parent / parent, (*including, file.resolve()))
    return merged | config


def _check(name: str, config: Mapping[str, Any]) -> None:
    if problem := _problem(config):
        raise UserError(
            f"{name} {problem}. Supported are tasks of lmms-eval that generate one answer to text and images without examples in "
            "the prompt, and whose first metric is in [0, 1], better when higher, needs no judge model, and is a mean over the "
            "questions"
        )


def _problem(config: Mapping[str, Any]) -> str | None:
    """What of a task cannot be done here, as far as its settings tell."""
    first = (config.get("metric_list") or [None])[0] or {}
    metric, generation = first.get("metric"), config.get("generation_kwargs") or {}
    judge = _judge(config.get("metadata"))
    asks = {
        f"has output_type {config.get('output_type')}": config.get("output_type", "generate_until") != "generate_until",
        "is a task written as a Python class": "class" in config,
        "names no metric": metric is None,
        "only writes a file for a server to score": metric == "submission",
        f"is scored by a judge model ({judge or metric})": bool(judge)
        or re.search("gpt|judge", str(metric)) is not None,
        f"is better when its {metric} is lower": not first.get("higher_is_better", True),
        "is about video": bool((config.get("dataset_kwargs") or {}).get("video")),
        f"shows {config.get('num_fewshot')} examples in the prompt": bool(config.get("num_fewshot")),
        f"asks {config.get('repeats')} times": (config.get("repeats") or 1) > 1,
        "samples its answers (do_sample)": bool(generation.get("do_sample")),
        "searches with beams": (generation.get("num_beams") or 1) > 1,
    }
    return next((problem for problem, met in asks.items() if met), None)


def _judge(metadata: Any) -> str | None:
    """The setting by which a task's metadata names a judge model."""
    several = metadata if isinstance(metadata, list) else [metadata]
    settings = {str(key): value for entry in several if isinstance(entry, dict) for key, value in entry.items()}
    return next((key for key, value in settings.items() if value and re.search("gpt_eval|judge", key)), None)


def _caches() -> list[Path]:
    """Where lmms-eval may have put a data set before."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    named = [os.environ.get(name) for name in ("LMMS_EVAL_DATASETS_CACHE", "HF_DATASETS_CACHE")]
    return [*(Path(cache).expanduser() for cache in named if cache), home / "datasets"]
