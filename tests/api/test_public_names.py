"""`import lmmcl`: instant, and every public name is there, documented, and the one that it says it is."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import lmmcl

PUBLIC = [name for name in lmmcl.__all__ if name != "__version__"]


def test_all_names_what_there_is() -> None:
    assert len(PUBLIC) >= 10
    assert set(lmmcl._MODULES) == set(PUBLIC)
    assert set(lmmcl.__all__) <= set(dir(lmmcl))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_documented(name: str) -> None:
    thing = getattr(lmmcl, name)
    assert inspect.getdoc(thing), name
    if inspect.isclass(thing):
        return
    documentation, parameters = str(inspect.getdoc(thing)), inspect.signature(thing).parameters
    assert "UserError" in documentation or name in ("plan", "load_processor")
    named = f"{documentation}{inspect.getdoc(lmmcl.plan)}{inspect.getdoc(lmmcl.load_model)}"
    assert all(f"`{parameter}`" in named for parameter in parameters if parameter not in ("path", "settings", "device"))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'lmmcl' has no attribute 'sweeps'"):
        lmmcl.sweeps  # noqa: B018


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import lmmcl; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    new = [name for name in eval(done.stdout) if name.split(".")[0] not in sys.stdlib_module_names]
    assert set(new) <= {"lmmcl", "lmmcl.version"}
