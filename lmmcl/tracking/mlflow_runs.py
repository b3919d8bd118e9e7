"""The runs of a sweep in an experiment of MLflow: found by tag before they are made, remembered, and written in few calls."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lmmcl.tracking.database import alone
from lmmcl.tracking.mlflow_names import batches, metric_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.entities import Run as MlflowRun

KEY_TAGS = {"trial": "lmmcl.trial_key", "report": "lmmcl.report_key"}
MOST_NESTED = 1000


@dataclass
class Run:
    """What is known of a run without asking the server again."""

    id: str
    start: int
    status: str
    name: str = ""
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class Runs:
    """The runs of one experiment that belong to `sweep`, for one thread."""

    def __init__(self, client: MlflowClient, experiment_id: str, sweep: str) -> None:
        self._client, self._sweep, self.experiment_id = client, sweep, experiment_id
        self._known: dict[tuple[str, str], Run] = {}

    def top(self, kind: str, key: str, name: str, *, since: float = 0.0) -> Run:
        """The top-level run of this kind and key: remembered, or found by tag, or made (`since` seconds ago)."""
        key = metric_name(key)  # a quote would end the query's string
        if (kind, key) not in self._known:
            tag = KEY_TAGS[kind]
            with alone(self._client.tracking_uri):  # two runs that share a store log the same trials
                runs = self._search(f"tags.`{tag}` = '{key}' and tags.`lmmcl.kind` = '{kind}'", 1)
                start = int((time.time() - since) * 1000)
                self._known[kind, key] = runs[0] if runs else self._create(name, {"lmmcl.kind": kind, tag: key}, start)
        return self._known[kind, key]

    def nested(self, run: Run) -> list[Run]:
        """The runs that an earlier version nested in this one."""
        return self._search(f"tags.`mlflow.parentRunId` = '{run.id}'", MOST_NESTED)

    def ids(self, query: str) -> list[str]:
        """The ids of the runs that `query` finds, the first ones started first."""
        return [run.id for run in self._search(query, MOST_NESTED)]

    def remove(self, run: Run) -> None:
        """Move a run, after those nested in it, to MLflow's trash, from which a person may restore it."""
        for one in [*self.nested(run), run]:
            self._client.delete_run(one.id)
        self.forget(run)

    def forget(self, run: Run) -> None:
        """Remember nothing of a run; should it be asked for again, it is found by its tag."""
        self._known = {key: known for key, known in self._known.items() if known.id != run.id}

    def log(self, run: Run, points: Sequence[Metric], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Log in as few calls as the limits allow. A parameter that is there already is left as it is."""
        from mlflow.entities import Param, RunTag

        fresh: list[Param] = [Param(name, value) for name, value in params.items() if name not in run.params]
        changed: list[RunTag] = [RunTag(name, value) for name, value in tags.items() if run.tags.get(name, "") != value]
        for some_points, some_params, some_tags in batches(points, fresh, changed):
            self._client.log_batch(run.id, metrics=some_points, params=some_params, tags=some_tags)
        run.params |= _shared({param.key: param.value for param in fresh})
        run.tags |= _shared({tag.key: tag.value for tag in changed})

    def rename(self, run: Run, name: str) -> None:
        """Give a run another name."""
        if run.name != name:
            self._client.update_run(run.id, name=name)
            run.name = name

    def set_status(self, run: Run, status: str) -> None:
        """Show a run as RUNNING, FINISHED, FAILED or KILLED."""
        if run.status == status:
            return
        if status == "RUNNING":
            self._client.update_run(run.id, status)
        else:
            self._client.set_terminated(run.id, status)
        run.status = status

    def _search(self, query: str, most: int) -> list[Run]:
        runs = self._client.search_runs([self.experiment_id], query, max_results=most, order_by=["start_time ASC"])
        return [_remember(run) for run in runs]

    def _create(self, name: str, tags: Mapping[str, str], start: int) -> Run:
        created = self._client.create_run(self.experiment_id, start, {"lmmcl.sweep": self._sweep, **tags}, name)
        return _remember(created)


def _remember(run: MlflowRun) -> Run:
    info, data = run.info, run.data
    name = info.run_name or ""
    return Run(info.run_id, info.start_time, info.status, name, _shared(data.params), _shared(data.tags))


def _shared(texts: Mapping[str, str]) -> dict[str, str]:
    """The same texts, each once in memory: thousands of runs have the same names, and mostly the same values."""
    return {sys.intern(name): sys.intern(value) for name, value in texts.items()}
