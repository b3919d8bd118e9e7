"""Sweeps of sequential fine-tuning for large multimodal models, with held-out forgetting measured at every stage.

    import lmmcl

    sweep = lmmcl.load_sweep("sweeps/quickstart.yaml")
    print(lmmcl.plan(sweep))
    results = lmmcl.run(sweep)                     # or lmmcl.results(sweep), which computes nothing
    results.trials()                               # a pandas DataFrame, one row a trial
    results.scores()                               # trial, stage, benchmark, score, low, high, n
    model = lmmcl.load_model(results.trials().checkpoint_key[0])

Every name below is imported when it is first used: `import lmmcl` itself is instant. docs/python.md has examples.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from lmmcl.version import __version__

if TYPE_CHECKING:
    from lmmcl.api.dataframes import Results
    from lmmcl.api.definition import load_sweep, make_sweep
    from lmmcl.api.loading import load_model, load_processor
    from lmmcl.api.operations import plan, results, run
    from lmmcl.config.sweep import Sweep
    from lmmcl.errors import UserError
    from lmmcl.planning.plan import Plan

# transformers imports bitsandbytes wherever it is installed; on some CPUs it then warns that it cannot fetch a kernel from the hub.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__all__ = [
    "Plan",
    "Results",
    "Sweep",
    "UserError",
    "__version__",
    "load_model",
    "load_processor",
    "load_sweep",
    "make_sweep",
    "plan",
    "results",
    "run",
]

_MODULES = {
    "Plan": "lmmcl.planning.plan",
    "Results": "lmmcl.api.dataframes",
    "Sweep": "lmmcl.config.sweep",
    "UserError": "lmmcl.errors",
    "load_model": "lmmcl.api.loading",
    "load_processor": "lmmcl.api.loading",
    "load_sweep": "lmmcl.api.definition",
    "make_sweep": "lmmcl.api.definition",
    "plan": "lmmcl.api.operations",
    "results": "lmmcl.api.operations",
    "run": "lmmcl.api.operations",
}
"""Where each public name lives."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
