"""Sweeps for Python: read from a YAML file, or built from the same settings as keyword arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lmmcl.config import sweep as sweeps
from lmmcl.config.sweep import Sweep
from lmmcl.errors import UserError

WRITTEN_BY = "# Written by lmmcl.make_sweep: change it there.\n"


def load_sweep(path: str | Path, overrides: Mapping[str, Any] | Iterable[str] | None = None) -> Sweep:
    """Read a sweep file, check it, and expand its grids into trials.

    `overrides` change settings as `--set` does: `{"training.epochs": 2, "grids[0].seed": [0, 1]}`, or `["training.epochs=2"]`.
    Raises UserError that names the file, the place in it, what is allowed and the nearest match.
    """
    if isinstance(overrides, str):
        raise UserError(
            f"overrides are a mapping such as {{'training.epochs': 2}} or a list of texts, not {overrides!r}"
        )
    if isinstance(overrides, Mapping):
        overrides = [f"{name}={_one_line(value)}" for name, value in overrides.items()]
    return sweeps.load_sweep(path, overrides)


def make_sweep(*, file: str | Path | None = None, **settings: Any) -> Sweep:
    """Build a sweep from the keys of a sweep file (docs/sweep_file.md): `name`, `orders`, `grids`, `training`, and so on.

    Values are lists, mappings, texts and numbers, as in YAML; tuples, NumPy arrays and NumPy numbers are converted. Paths are
    relative to the working directory. With `file`, the sweep is also written there as YAML, for `lmmcl` commands and jobs, and
    paths are relative to that file's folder; a file that `make_sweep` has not written is never replaced.
    Raises UserError that names the place in the settings, what is allowed and the nearest match.
    """
    data = _plain(settings)
    if file is None:
        return sweeps.build_sweep(data)
    path = Path(file)
    if path.exists() and not path.read_text(encoding="utf-8").startswith(WRITTEN_BY):
        raise UserError("exists and was not written by make_sweep; name another file, or remove it", file=str(path))
    sweep = sweeps.build_sweep(data, file=str(path), folder=path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(WRITTEN_BY + yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return sweep


def _one_line(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(_plain(value), default_flow_style=True, width=float("inf"), allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _plain(value: Any) -> Any:
    """The value with YAML's own types, whatever kind of mapping, sequence or number it was."""
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple | range):
        return [_plain(item) for item in value]
    return value
