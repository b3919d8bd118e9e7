"""Seconds until a run asks its first question, against Ray's floor: CPU seconds of all processes, and wall seconds.

    python tests/bench/first_question.py [--repeats 3] [--baseline FOLDER_OF_AN_EARLIER_BUILD] [--warm]

The floor is what anybody pays who works on Ray: `ray.init`, and one task that imports torch and transformers and loads the tiny
model. Ours is `lmmcl run sweeps/quickstart.yaml` with a new store, until the first batch of questions is given to the model. Sides
take turns. `--warm` lets ours use the encoded questions that an earlier run kept on this machine; else each run has new caches.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path
from statistics import median

from processes import PYTHON, Spent, marking, python_of, until_mark
from sides import HERE

FLOOR = """
import os, ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")

@ray.remote
def load():
    import torch, transformers
    from transformers import AutoModelForImageTextToText
    AutoModelForImageTextToText.from_pretrained(WEIGHTS, local_files_only=True)
    open(os.environ["BENCH_MARK"], "w").close()

ray.get(load.remote())
import time
time.sleep(60)
"""


def floor(folder: Path, weights: Path) -> Spent:
    code = FLOOR.replace("WEIGHTS", repr(str(weights)))
    environment = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    return until_mark([PYTHON, "-c", code], folder, environment)


def asking_module(root: Path) -> str:
    """The module whose `greedy` gives questions to the model; it had another place in earlier builds."""
    files = (file for file in sorted((root / "lmmcl").rglob("*.py")) if "\ndef greedy(" in file.read_text("utf-8"))
    return ".".join(next(files).relative_to(root).with_suffix("").parts)


def ours(folder: Path, root: Path, sweep: Path, caches: Path) -> Spent:
    cluster = folder / "cluster.yaml"
    cluster.write_text("ray: {cpus: 2}\n")
    with tempfile.TemporaryDirectory(dir=folder, prefix="store-") as store, tempfile.TemporaryDirectory() as hook:
        environment = python_of(root)
        os.environ["PYTHONPATH"] = environment["PYTHONPATH"]
        environment |= marking(Path(hook), asking_module(root), "greedy")
        environment |= {"XDG_CACHE_HOME": str(caches), "LMMCL_CACHE": str(caches)}
        command = [PYTHON, "-m", "lmmcl", "run", str(sweep), "--store", store, "--cluster", str(cluster)]
        return until_mark(command, folder, environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--baseline", type=Path, help="folder of an earlier build, measured too")
    parser.add_argument("--sweep", type=Path, default=HERE / "sweeps" / "quickstart.yaml")
    parser.add_argument("--warm", action="store_true")
    arguments = parser.parse_args()
    sides: dict[str, list[Spent]] = {}
    with tempfile.TemporaryDirectory(prefix="lmmcl-first-") as temporary:
        folder, weights = Path(temporary), Path(temporary, "tiny")
        code = f"from lmmcl.models import get_model; get_model('tiny-onevision').load_model().save_pretrained({str(weights)!r})"
        subprocess.run(
            [PYTHON, "-c", code], check=True, env={**os.environ, **python_of(HERE)}, stderr=subprocess.DEVNULL
        )
        roots = {"ours": HERE, **({"baseline": arguments.baseline.resolve()} if arguments.baseline else {})}
        for number in range(arguments.repeats + arguments.warm):
            each = {"floor": floor(folder, weights)}
            for name, root in roots.items():
                caches = folder / f"caches-{name}-{'warm' if arguments.warm else number}"
                each[name] = ours(folder, root, arguments.sweep.resolve(), caches)
            if number or not arguments.warm:
                for name, spent in each.items():
                    sides.setdefault(name, []).append(spent)
            for name, spent in each.items():
                parts = ", ".join(f"{part} {used:.1f}" for part, used in spent.by_name.items() if used >= 0.05)
                print(f"{name:9} {spent.cpu:6.2f} s CPU {spent.wall:6.2f} s wall: {parts}", flush=True)
    found = {
        name: {"cpu": median(one.cpu for one in spent), "wall": median(one.wall for one in spent)}
        for name, spent in sides.items()
    }
    ratios = {f"{what}_ratio": round(found["ours"][what] / found["floor"][what], 2) for what in ("cpu", "wall")}
    print(f"ours / floor: {ratios['cpu_ratio']:.2f} × in CPU, {ratios['wall_ratio']:.2f} × in wall seconds")
    print(json.dumps({**found, **ratios}))


if __name__ == "__main__":
    main()
