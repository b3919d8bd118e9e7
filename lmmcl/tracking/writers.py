"""Trackers beside MLflow, each in a process of its own: `python -m lmmcl.tracking.writers NAME FOLDER` takes documents as lines.

Trackio and W&B print, start threads and keep state for the whole process; here they may. A document (see `run_document`)
comes as one line of JSON on standard input, and one line answers it: `{}`, or `{"error": …}`. A trial is always written whole,
over what an earlier document of the same trial has left, so that a resumed run adds nothing twice.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lmmcl.atomic_files import replacing

Document = Mapping[str, Any]
TRIAL_KEY = "trial_key"


def write_tensorboard(document: Document, folder: Path) -> None:
    """Event files in `<folder>/<name>-<key>`: scalars by update, and a row for the HPARAMS page."""
    from tensorboardX import SummaryWriter

    name = re.sub(r"[^\w.=+-]+", "_", document["name"]).strip("_")[:80]
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / f"{name}-{document['key'][:8]}") as partial, SummaryWriter(str(partial)) as writer:
        for update, values in document["rows"]:
            for metric, value in values.items():
                writer.add_scalar(metric, value, update)
        if document["summary"]:
            config = {axis: str(value) for axis, value in document["config"].items()}
            last = document["rows"][-1][0]
            writer.add_hparams(config, dict(document["summary"]), name="settings", global_step=last)


def write_trackio(document: Document, folder: Path) -> None:
    """A run of the project that is called like the sweep, where Trackio keeps its projects (TRACKIO_DIR)."""
    import trackio

    project = document["project"]
    try:
        runs = list(trackio.Api().runs(project))
    except ValueError:  # no such project yet
        runs = []
    for run in runs:
        if (run.config or {}).get(TRIAL_KEY) == document["key"]:
            run.delete()
    trackio.init(
        project=project,
        name=document["name"],
        config=dict(document["config"]),
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    for update, values in document["rows"]:
        trackio.log(dict(values), step=update)
    trackio.finish()


def write_wandb(document: Document, folder: Path) -> None:
    """A run of the project that is called like the sweep; WANDB_MODE=offline keeps it in `folder`, for `wandb sync`.

    Without `resume`, a run with the id of an earlier one takes its place.
    """
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        project=document["project"],
        id=document["key"],
        name=document["name"],
        config=dict(document["config"]),
        dir=str(folder),
        reinit="finish_previous",
        settings=wandb.Settings(silent=True, x_disable_stats=True, x_disable_meta=True),
    )
    for update, values in document["rows"]:
        run.log(dict(values), step=update)
    run.summary.update(dict(document["summary"]))
    run.finish()


WRITERS: dict[str, Callable[[Document, Path], None]] = {
    "tensorboard": write_tensorboard,
    "trackio": write_trackio,
    "wandb": write_wandb,
}


def main(name: str, folder: str) -> None:
    """The process of one writer: reads calls from standard input, a JSON line each, and answers on standard output."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the libraries print is not an answer
    for line in sys.stdin:
        try:
            WRITERS[name](json.loads(line), Path(folder))
            answer: dict[str, str] = {}
        except Exception as error:  # noqa: BLE001 - whatever it is, the process that asked tells the user
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
