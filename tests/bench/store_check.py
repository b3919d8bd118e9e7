"""Files of a large store and the time of `lmmcl ledger check`: by this build (packed, as runs leave it) and an earlier one.

    python tests/bench/store_check.py [--trials 3000] [--repeats 3] [--baseline WORKTREE] [--keep FOLDER]

Made-up records of 3 stages and 5 benchmarks with answers, and weights of a few bytes; each with checksums and a seal. Each build
fills a store of its own, since their keys may differ; commands are alternated. `single` is this build before it packs. Prints a
table and one JSON object.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sides import Cost, arguments_of, fill, folder_of, lmmcl, middle, roots_of

FILL = """
import hashlib, json, sys
from pathlib import Path
from made import write_sweep
from synthetic_ledger import fill
try:
    from lmmcl.config.sweep import load_sweep
    from lmmcl.steps import Finetune
except ImportError:
    from lmmcl.spec.sweep import load_sweep
    from lmmcl.spec.steps import Finetune
number, folder = int(sys.argv[1]), Path(sys.argv[2])
rates = ", ".join(f"{1e-6 * (place + 1):.6f}" for place in range(number // 4))
text = f'''
name: large
orders:
  main: [birds, counting, clock]
benchmarks: {{held_out: [colour, shape]}}
evaluation: {{limit: 20}}
grids:
  - {{model: [tiny-onevision], recipe: [llm, sa_proj, gate_up, mlp], learning_rate: [{rates}]}}
'''
sweep = load_sweep(write_sweep(folder, text))
fill(sweep, folder / "store", questions=20, updates=50)
for step in sweep.steps.values():
    home = folder / "store" / step.path
    if isinstance(step, Finetune):
        (home / "delta.safetensors").write_bytes(step.key.encode() * 64)
    record = json.loads((home / "record.json").read_text())
    files = sorted(file for file in home.iterdir() if file.name != "record.json")
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    record["files"] = {file.name: {"bytes": file.stat().st_size, "sha256": sums[file.name]} for file in files}
    said = json.dumps(record).removesuffix("}")
    seal = hashlib.sha256(said.encode()).hexdigest()
    (home / "record.json").write_text(said + ', "seal": "' + seal + '"}')
"""


def number_of_files(store: Path) -> int:
    return sum(file.is_file() for kind in ("checkpoints", "scores", "packs") for file in (store / kind).rglob("*"))


def check(name: str, root: Path, folder: Path) -> Cost:
    cost = lmmcl(["ledger", "check", "--store", "store"], root, folder=folder)
    print(f"{name}: {cost.cpu:.2f} s CPU, {cost.wall:.1f} s, {cost.megabytes:.0f} MB", file=sys.stderr, flush=True)
    return cost


def measure(trials: int, repeats: int, roots: dict[str, Path], folder: Path) -> dict[str, tuple[int, Cost]]:
    """Files and the cost of a check, by side."""
    files: dict[str, int] = {}
    costs: dict[str, list[Cost]] = {}
    fill(FILL, trials, roots, folder)
    this = folder / "this"
    if not (this / "store" / "packs").exists():
        files["single"], costs["single"] = number_of_files(this / "store"), [check("single", roots["this"], this)]
        packing = lmmcl(["ledger", "pack", "--store", "store"], roots["this"], folder=this)
        print(f"pack: {packing.cpu:.2f} s CPU, {packing.wall:.1f} s", file=sys.stderr, flush=True)
    for _ in range(repeats):
        for side, root in roots.items():
            costs.setdefault(side, []).append(check(side, root, folder / side))
    files |= {side: number_of_files(folder / side / "store") for side in roots}
    return {side: (files[side], middle(found)) for side, found in costs.items()}


def main() -> None:
    arguments = arguments_of(__doc__, trials=3000)
    with folder_of(arguments) as folder:
        found = measure(arguments.trials, arguments.repeats, roots_of(arguments), folder)
    for side, (files, cost) in found.items():
        ratio = f"  {found['baseline'][1].cpu / cost.cpu:.2f} × faster" if "baseline" in found else ""
        print(
            f"{side:8} {files / arguments.trials:6.1f} files a trial   check {cost.cpu:6.2f} s CPU {cost.wall:6.1f} s wall{ratio}"
        )
    print(json.dumps({side: {"files": files, **vars(cost)} for side, (files, cost) in found.items()}))


if __name__ == "__main__":
    main()
