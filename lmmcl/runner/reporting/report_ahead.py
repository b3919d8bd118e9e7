"""What a report needs whatever comes of the sweep, got ready while the last steps are computed: libraries, pictures of questions.

When all is computed one process writes the report, and the other CPUs have nothing to do; what it did before, it need not do then.
"""

from __future__ import annotations

import importlib
import logging
import threading

from lmmcl.config.sweep import Sweep
from lmmcl.errors import UserError, explain
from lmmcl.tasks.skills import Benchmark
from lmmcl.tasks.synthetic.draw import Examples
from lmmcl.weights.freed_memory import collection_paused

LIBRARIES = ("matplotlib.figure", "matplotlib.backends.backend_agg", "scipy.special", "lmmcl.reports.page.page")
"""What the page and its figures import when they are drawn."""

log = logging.getLogger(__name__)


def start_report_ahead(sweep: Sweep) -> threading.Thread:
    """Begin on a thread of its own, which ends with the process; the report makes what is not ready by then."""
    thread = threading.Thread(target=get_ready, args=(sweep,), name="lmmcl-report-ahead", daemon=True)
    thread.start()
    return thread


def get_ready(sweep: Sweep) -> None:
    """Import what draws the page, and draw and encode the questions of benchmarks that draw themselves: both are remembered."""
    with collection_paused():
        for name in LIBRARIES:
            importlib.import_module(name)
    steps = [step for trial in sweep.trials for step in trial.stages[0].evaluations]
    for name, step in {step.benchmark.name: step for step in steps}.items():
        try:
            _draw(step.benchmark, step.evaluation.limit)
        except (UserError, OSError) as error:  # whoever asks the questions reports it
            log.debug("the questions of %s are not drawn ahead: %s", name, explain(error))


def _draw(benchmark: Benchmark, limit: int | None) -> None:
    from lmmcl.reports.page.question_pictures import encode_picture

    if isinstance(benchmark.load(), Examples):
        for example in benchmark.take(limit):
            for picture in example.open_images():
                encode_picture(picture)
