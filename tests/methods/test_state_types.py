"""A mitigation's state has a type that the checker holds, and that costs nothing where torch is not imported."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

from lmmcl.methods.losses.lwf import LwF
from lmmcl.methods.merging.ties import Ties
from lmmcl.methods.mitigation import MergeMitigation, TrainingMitigation
from lmmcl.registry import members


def test_every_mitigation_names_the_type_of_its_state() -> None:
    for kind in members("lmmcl.methods", "MITIGATIONS").values():
        assert issubclass(kind, TrainingMitigation | MergeMitigation)
        written = [
            _line_of(parent) for parent in kind.__mro__ if issubclass(parent, TrainingMitigation | MergeMitigation)
        ]
        assert any("(TrainingMitigation[" in line or "(MergeMitigation[" in line for line in written), kind


def _line_of(kind: type) -> str:
    """`class LwF(TrainingMitigation[LwFState]):`"""
    lines = Path(inspect.getfile(kind)).read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith(f"class {kind.__name__}("))


def test_the_type_makes_no_other_class() -> None:
    assert TrainingMitigation in LwF.__bases__ and MergeMitigation in Ties.__bases__


def test_naming_the_type_imports_no_torch() -> None:
    code = "import sys, lmmcl.methods; lmmcl.methods.get_mitigation('lwf'); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
