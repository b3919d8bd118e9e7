"""Words completed by a shell: bash itself asks for them where it is there."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import docs_reference
import pytest
from synthetic_ledger import finished_sweep
from typer.testing import CliRunner

from lmmcl.cli import app, catalog_commands, completion, result_commands
from lmmcl.cli.options import Precision
from lmmcl.config import settings
from lmmcl.config.sweep import Sweep
from lmmcl.config.trial_names import find_one
from lmmcl.inspection.catalog import catalogue
from lmmcl.ledger import Ledger
from lmmcl.runner.reporting.report_command import FORMATS
from lmmcl.runner.reporting.sweep_label import find_label

BASH = shutil.which("bash")
needs_bash = pytest.mark.skipif(BASH is None, reason="bash is not installed")
SHIM = f"#!/bin/sh\nexec {sys.executable} -c 'from lmmcl.cli import main; main()' \"$@\"\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sweep]:
    """A folder with a finished sweep, its store, a cluster file, and `lmmcl` on the path."""
    folder = tmp_path_factory.mktemp("place")
    sweep = finished_sweep(folder)
    find_label(sweep, Ledger(str(folder / "store"))).keep(sweep)
    (folder / "below").mkdir()
    (folder / "below" / "other.yaml").write_text("name: other\ngrids: []\n")
    (folder / "gpu.yaml").write_text("evaluation: {gpus: 1}\n")
    (folder / "bin").mkdir()
    (folder / "bin" / "lmmcl").write_text(SHIM)
    (folder / "bin" / "lmmcl").chmod(0o755)
    script = CliRunner().invoke(app, ["completion", "bash"], catch_exceptions=False)
    (folder / "script").write_text(script.stdout)
    return folder, sweep


def completed(folder: Path, *words: str) -> list[str]:
    """What bash offers for the last of `words`, as it stands in the line."""
    line = " ".join("'" + word.replace("'", "'\\''") + "'" for word in ("lmmcl", *words))
    code = (
        f"source ./script; COMP_WORDS=({line}); COMP_CWORD={len(words)}; "
        "$(complete -p lmmcl | sed 's/.*-F //; s/ .*//') lmmcl; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "LMMCL_STORE": "store"}
    assert BASH is not None
    done = subprocess.run([BASH, "--norc", "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return [line for line in done.stdout.splitlines() if line]


@needs_bash
def test_bash_completes_commands_options_and_words_of_few(place: tuple[Path, Sweep]) -> None:
    folder, _ = place
    assert completed(folder, "re") == ["report"]
    assert "--budget" in completed(folder, "report", "small.yaml", "--b")
    assert completed(folder, "report", "small.yaml", "--format", "la") == ["latex"]


@needs_bash
def test_bash_completes_sweep_files_and_no_cluster_file(place: tuple[Path, Sweep]) -> None:
    folder, _ = place
    assert completed(folder, "run", "") == ["small.yaml", "below/other.yaml"]
    assert completed(folder, "run", "./s") == ["./small.yaml"]
    assert completed(folder, "gc", "small.yaml", "below/") == ["below/other.yaml"]
    assert completed(folder, "run", "nothing") == [], "bash completes files then"


@needs_bash
def test_bash_completes_trials_as_the_line_takes_them(place: tuple[Path, Sweep]) -> None:
    folder, sweep = place
    offered = completed(folder, "compare", "small.yaml", "sa")
    assert offered == [r"sa_proj\ \·\ lr\ 1e-3", r"sa_proj\ \·\ lr\ 3e-4"]
    assert completed(folder, "compare", "small.yaml", r"sa_proj\ \·\ lr\ 3") == offered[1:]
    assert completed(folder, "compare", "small.yaml", "'sa_proj · lr 3") == ["sa_proj · lr 3e-4"], "inside quotes"
    assert find_one("sa_proj · lr 3e-4", sweep.trials).name.startswith("sa_proj · lr 3e-4")
    key = sweep.trials[0].key
    assert completed(folder, "compare", "small.yaml", key[:6]) == [key]
    assert completed(folder, "compare", "below/other.yaml", "sa") == [], "trials of another sweep"


@needs_bash
def test_bash_completes_checkpoints_and_benchmarks(place: tuple[Path, Sweep]) -> None:
    folder, sweep = place
    last = sweep.trials[0].stages[-1].checkpoint
    name = last.path.rpartition("/")[2]
    assert completed(folder, "export", name[:-4]) == [name]
    assert completed(folder, "eval", last.key[:8]) == [last.key]
    assert completed(folder, "eval", last.key, "-b", "pat") == ["path_vqa", "pattern"]
    trial = sweep.trials[0]
    known = {benchmark.name for benchmark in trial.held_out} | {skill.name for skill in trial.skills}
    assert set(completed(folder, "samples", "small.yaml", "-b", "")) == known


@pytest.mark.bench
@needs_bash
def test_an_answer_costs_little(place: tuple[Path, Sweep]) -> None:
    folder, _ = place
    assert min(_seconds(folder) for _ in range(3)) < 0.5, "0.2 s of a processor, and room for a slow one"


def test_an_answer_opens_no_heavy_library() -> None:
    heavy = "{'torch', 'ray', 'pydantic', 'numpy', 'fsspec', 'transformers'}"
    code = f"import sys, lmmcl.cli; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def _seconds(folder: Path) -> float:
    """Of a processor, not of the clock: other tests may run beside."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert completed(folder, "compare", "small.yaml", "sa")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_each_shell_has_its_script(shell: str) -> None:
    text = CliRunner().invoke(app, ["completion", shell], catch_exceptions=False).stdout
    assert f"{completion.VARIABLE}=complete_{shell}" in text


def test_a_store_elsewhere_and_a_damaged_file_offer_nothing(tmp_path: Path) -> None:
    elsewhere, damaged = (SimpleNamespace(params={"store": store}) for store in ("s3://bucket/store", str(tmp_path)))
    assert completion.trials(elsewhere, None, "") == [] and completion.checkpoints(elsewhere, None, "") == []
    (tmp_path / "reports" / "cut").mkdir(parents=True)
    (tmp_path / "reports" / "cut" / "sweep.json").write_text('{"name": "cut", "tri')
    assert completion.trials(damaged, None, "") == []


def test_the_words_that_are_completed_are_those_that_there_are() -> None:
    assert completion.NAMES.read_text() == docs_reference.shipped_names(), "run: python tests/architecture_tree.py"
    assert get_args(Precision) == get_args(settings.Precision)
    assert result_commands.FORMATS == FORMATS
    assert all(catalogue(kind, Ledger("nowhere")) for kind in catalog_commands.KINDS if kind != "steps")
