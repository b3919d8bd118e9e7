"""Words that a shell completes: sweep files, trials, checkpoints, benchmarks. Found without reading a sweep or opening a store.

A shell waits for each answer, so this reads names alone: files here, and in a store that is a folder its `sweep.json` files and
the names of its folders. Typer's own completion asks these functions, and does the commands and options by itself.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lmmcl.config.trial_names import short_names

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_LMMCL_COMPLETE"
"""Set by the script of a shell: Typer's name for this program."""
NAMES = Path(__file__).with_name("benchmark_names.txt")
"""Skills and benchmarks that ship, one a line; made by `python tests/architecture_tree.py`."""
MOST_FILES = 500
_GRIDS = re.compile(rb"^grids\s*:", re.MULTILINE)
_NAME = re.compile(r"^name\s*:\s*[\"']?([^\s\"'#]+)", re.MULTILINE)
Completer = Callable[[Any, Any, str], list[str]]


def script(shell: str) -> str:
    """The script for a shell, as Typer has it: the shell is to evaluate it."""
    code = "from lmmcl.cli import app; app(prog_name='lmmcl')"
    words = {**os.environ, VARIABLE: f"source_{shell}"}
    return subprocess.run([sys.executable, "-c", code], env=words, capture_output=True, text=True, check=True).stdout


def one_of(words: Iterable[str]) -> Completer:
    """Completes one of a few words."""
    return lambda ctx, param, incomplete: _fitting(words, incomplete)


def sweep_files(ctx: Any, param: Any, incomplete: str) -> list[str]:
    """Sweep files in the folder that is named, and in those directly below it; nothing (then the shell completes files) else."""
    base, slash, _ = incomplete.rpartition("/")
    folder, start = Path(base or ("/" if slash else ".")), base + slash
    return _fitting(
        (f"{start}{path.relative_to(folder)}" for path in _yaml_files(folder) if _is_sweep(path)), incomplete
    )


def trials(ctx: Any, param: Any, incomplete: str) -> list[str]:
    """Names of trials without the parts that all share, else whole, else keys; those of the sweep that stands before."""
    return _trials(_sweeps(ctx), incomplete)


def checkpoints(ctx: Any, param: Any, incomplete: str) -> list[str]:
    """Recorded checkpoints by folder name or key, and trials for their last checkpoints."""
    folder = _store(ctx)
    single = folder.glob("checkpoints/*/*-*/record.json") if folder else ()
    packed = folder.glob("packs/*/*-*.zip") if folder else ()
    names = sorted({path.parent.name for path in single} | {path.stem for path in packed})
    keys = [name.rpartition("-")[2] for name in names] if incomplete else []
    of_trials = _trials(_sweeps(ctx), incomplete)
    return list(dict.fromkeys([*_fitting(names, incomplete), *of_trials, *_fitting(keys, incomplete)]))


def shown(ctx: Any, param: Any, incomplete: str) -> list[str]:
    """What `lmmcl show` takes."""
    return [*_fitting(["model"], incomplete), *checkpoints(ctx, param, incomplete)]


def sweep_benchmarks(ctx: Any, param: Any, incomplete: str) -> list[str]:
    """Benchmarks of the sweep that stands before, as it was run; else all that ship."""
    trials = [trial for sweep in _sweeps(ctx) for trial in sweep["trials"]]
    names = [name for trial in trials for part in ("skills", "held_out") for name in trial.get(part, ())]
    return _fitting(names or _shipped(), incomplete)


def benchmarks(ctx: Any, param: Any, incomplete: str) -> list[str]:
    """Skills and benchmarks that ship."""
    return _fitting(_shipped(), incomplete)


def _shipped() -> list[str]:
    return NAMES.read_text(encoding="utf-8").split()


def _trials(sweeps: Iterable[Mapping[str, Any]], incomplete: str) -> list[str]:
    names, whole, keys = [], [], []
    for sweep in sweeps:
        of_sweep = [str(trial["name"]) for trial in sweep["trials"]]
        names += short_names(of_sweep)
        whole += of_sweep
        keys += [str(trial["key"]) for trial in sweep["trials"]]
    return _fitting(names, incomplete) or _fitting(whole, incomplete) or _fitting(keys, incomplete)


def _sweeps(ctx: Any) -> Iterator[Mapping[str, Any]]:
    """What runs and reports wrote of their sweeps: of the one whose file stands before, else of all in the store."""
    folder = _store(ctx)
    if folder is None:
        return
    file = ctx.params.get("sweep")
    for path in sorted(folder.glob("reports/*/sweep.json")):
        try:
            sweep = json.loads(path.read_bytes())
        except (OSError, ValueError):  # a damaged file is for `lmmcl ledger check` to tell of, not for a shell
            continue
        if isinstance(sweep, dict) and "trials" in sweep and (file is None or sweep.get("name") == _sweep_name(file)):
            yield sweep


def _sweep_name(file: Any) -> str | None:
    try:
        text = Path(str(file)).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    match = _NAME.search(text)
    return match[1] if match else None


def _store(ctx: Any) -> Path | None:
    """The store that the command would use, where it is a folder: another one can only be read over a network."""
    named = ctx.params.get("store") or os.environ.get("LMMCL_STORE") or "lmmcl-store"
    return None if "://" in str(named) else Path(str(named)).expanduser()


def _yaml_files(folder: Path) -> Iterator[Path]:
    """YAML files of a folder and of those directly below it, hidden ones left out."""
    count = 0
    for below in (folder, *sorted(_children(folder, lambda path: path.is_dir()))):
        for path in sorted(_children(below, lambda path: path.suffix in (".yaml", ".yml"))):
            count += 1
            if count > MOST_FILES:
                return
            yield path


def _children(folder: Path, fits: Callable[[Path], bool]) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".") and fits(path)]
    except OSError:
        return []


def _is_sweep(path: Path) -> bool:
    """A cluster file is YAML, too; a sweep has grids."""
    try:
        with path.open("rb") as file:
            return _GRIDS.search(file.read(1_000_000)) is not None
    except OSError:
        return False


def _fitting(words: Iterable[str], incomplete: str) -> list[str]:
    """Those that begin as typed, each once and as the shell takes it."""
    return [_for_shell(word) for word in dict.fromkeys(words) if word.startswith(incomplete)]


def _for_shell(word: str) -> str:
    """Bash puts a completion into the line as it is: without quotes, spaces and marks need a backslash."""
    if not os.environ.get(VARIABLE, "").endswith("bash"):
        return word
    typed = os.environ.get("COMP_WORDS", "").split("\n")
    current = int(os.environ.get("COMP_CWORD", "0"))
    if current < len(typed) and typed[current][:1] in ("'", '"'):
        return word
    return re.sub(r"([^\w@%+=:,./-])", r"\\\1", word)
