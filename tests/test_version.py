"""The commit that made a result is this project's, and not that of whatever repository an installed package lies in."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from lmmcl.ledger.provenance import report_provenance
from lmmcl.version import git, source_commit

PACKAGE = Path(__file__).parents[1] / "lmmcl"
ASK = "import json; from lmmcl.version import source_commit; print(json.dumps(source_commit()))"


def test_a_checkout_tells_its_commit() -> None:
    assert source_commit() == git("rev-parse", "HEAD")
    assert str(report_provenance()["commit"]).startswith(str(source_commit())[:7])


def test_a_package_installed_inside_another_repository_does_not_tell_that_ones_commit(tmp_path: Path) -> None:
    installed = tmp_path / "venv" / "site-packages" / "lmmcl"
    installed.mkdir(parents=True)
    for name in ("__init__.py", "version.py"):
        shutil.copy(PACKAGE / name, installed)
    who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    for words in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    environment = {"PYTHONPATH": str(installed.parent), "PATH": "/usr/bin:/bin:/usr/local/bin"}
    done = subprocess.run(
        [sys.executable, "-c", ASK], capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
    )
    assert json.loads(done.stdout) is None


def test_the_command_is_told_only_where_lmmcl_was_the_program(monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/lmmcl", "run", "x.yaml"])
    assert report_provenance()["command"] == "lmmcl run x.yaml"
    monkeypatch.setattr(sys, "argv", ["/usr/lib/lmmcl/__main__.py", "run", "x.yaml"])
    assert report_provenance()["command"] == "lmmcl run x.yaml"
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    assert report_provenance()["command"] == "Python"
