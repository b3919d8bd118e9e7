"""Looking at a large sweep: plan, status, report, JSON and HTML of made-up records, by this build and an earlier one.

    python tests/bench/large_sweep.py [--trials 1000] [--repeats 3] [--baseline WORKTREE] [--keep FOLDER] [--up-to 2500 5000]

Each build fills (and packs) a store of its own (5 stages, 13 benchmarks of 200 questions), since their keys may differ; commands are
alternated. `first` is the first command on a store without an index, which it writes. Prints a table and one JSON object;
with `--up-to` also the power of the number of trials with which CPU seconds of this build grow.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

from sides import HERE, Cost, fill, folder_of, lmmcl, middle, parser_of, roots_of

COMMANDS = {
    "plan": ["plan"],
    "status": ["status"],
    "report": ["report"],
    "JSON": ["report", "--format", "json", "--to", "out.json"],
    "HTML": ["report", "--format", "html", "--to", "out.html"],
}
FILL = """
import sys
from pathlib import Path
from made import write_sweep
from synthetic_ledger import fill
try:
    from lmmcl.config.sweep import load_sweep
except ImportError:
    from lmmcl.spec.sweep import load_sweep
number, folder = int(sys.argv[1]), Path(sys.argv[2])
rates = ", ".join(f"{1e-5 * (place + 1):.5f}" for place in range(number // 4))
text = f'''
name: large
orders:
  main: [birds, counting, microscopy, digits, clock]
benchmarks: {{held_out: [colour, shape, size, pattern, presence, chart, characters, position]}}
evaluation: {{limit: 200}}
grids:
  - {{model: [tiny-onevision], recipe: [llm, sa_proj, gate_up, mlp], learning_rate: [{rates}]}}
'''
fill(load_sweep(write_sweep(folder, text)), folder / "store", questions=200, updates=50)
"""


def run(name: str, root: Path, folder: Path) -> Cost:
    sweep = next(folder.glob("*.yaml")).name
    first, *rest = COMMANDS[name]
    cost = lmmcl([first, sweep, "--store", "store", *rest], root, folder=folder)
    print(f"{folder.name} {name}: {cost.cpu:.2f} s CPU, {cost.megabytes:.0f} MB", file=sys.stderr, flush=True)
    return cost


def measure(trials: int, repeats: int, roots: dict[str, Path], folder: Path) -> dict[str, dict[str, Cost]]:
    """Costs by side and command."""
    found: dict[str, dict[str, list[Cost]]] = {side: {"first": []} for side in roots}
    for side, root in roots.items():
        new = not (folder / side / "store").exists()
        fill(FILL, trials, {side: root}, folder)
        if new and (root / "lmmcl" / "ledger" / "packs").exists():  # as a run leaves it
            lmmcl(["ledger", "pack", "--store", "store"], root, folder=folder / side)
        found[side]["first"].append(run("plan", root, folder / side))
    for name in COMMANDS:
        for _ in range(repeats):
            for side, root in roots.items():
                found[side].setdefault(name, []).append(run(name, root, folder / side))
    return {side: {name: middle(costs) for name, costs in of.items()} for side, of in found.items()}


def growth(sizes: list[int], measured: list[dict[str, Cost]]) -> dict[str, list[float]]:
    """By command, the power of the number of trials with which CPU time grows from each size to the next, then from first to last."""
    found = {}
    for name in COMMANDS:
        pairs = [*zip(range(len(sizes)), range(1, len(sizes)), strict=False), *([(0, -1)] if len(sizes) > 2 else [])]
        found[name] = [
            round(
                math.log(measured[end][name].cpu / measured[start][name].cpu) / math.log(sizes[end] / sizes[start]), 3
            )
            for start, end in pairs
        ]
    return found


def main() -> None:
    parser = parser_of(__doc__, trials=1000)
    parser.add_argument(
        "--up-to", type=int, nargs="*", default=[], help="larger numbers of trials, measured of this build"
    )
    arguments = parser.parse_args()
    sizes, measured = [arguments.trials, *arguments.up_to], []
    with folder_of(arguments) as folder:
        for trials in sizes:
            first = trials == arguments.trials
            roots, place = (roots_of(arguments), folder) if first else ({"this": HERE}, folder / f"of-{trials}")
            measured.append(measure(trials, arguments.repeats, roots, place))
    for trials, found in zip(sizes, measured, strict=True):
        print(f"{trials} trials")
        show(found)
    if len(sizes) > 1:
        exponents = growth(sizes, [found["this"] for found in measured])
        for name, powers in exponents.items():
            print(f"{name:8} grows with the number of trials to the power of {', '.join(map(str, powers))}")
        print(json.dumps({"sizes": sizes, "exponents": exponents}))


def show(found: dict[str, dict[str, Cost]]) -> None:
    for name in ["first", *COMMANDS]:
        parts = [f"{side} {of[name].cpu:6.2f} s CPU {of[name].megabytes:5.0f} MB" for side, of in found.items()]
        ratio = f"  {found['this'][name].cpu / found['baseline'][name].cpu:.2f} ×" if "baseline" in found else ""
        print(f"{name:8} {'   '.join(parts)}{ratio}")
    print(json.dumps({side: {name: vars(cost) for name, cost in of.items()} for side, of in found.items()}))


if __name__ == "__main__":
    main()
