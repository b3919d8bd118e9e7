"""Options of `lmmcl report`: those that would go without effect are refused, with what goes together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmmcl.cli import app
from lmmcl.errors import UserError

QUICKSTART = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"


def report(store: Path, *more: str | Path) -> str:
    words = ["report", str(QUICKSTART), "--store", str(store), *map(str, more)]
    return CliRunner().invoke(app, words, catch_exceptions=False).stdout


@pytest.mark.parametrize(
    "options",
    [["--mlflow", "sqlite:///made.db"], ["--pictures", "made"], ["--budget", "2"], ["--csv"]],
)
def test_what_does_not_go_with_against_is_refused(tmp_path: Path, options: list[str]) -> None:
    with pytest.raises(
        UserError, match=f"--against cannot be combined with {options[0]}; allowed with it: --format table, json or"
    ):
        report(tmp_path, "--against", "published", *options)


@pytest.mark.parametrize("options", [["--format", "json", "--to", "made.json"], ["--csv"], ["--budget", "2"]])
def test_pictures_are_written_in_place_of_a_table(tmp_path: Path, options: list[str]) -> None:
    named = ", ".join(each for each in options if each.startswith("--"))
    with pytest.raises(
        UserError, match=f"--pictures cannot be combined with {named}; allowed with it: --mlflow and --tracking"
    ):
        report(tmp_path, "--pictures", tmp_path / "made", *options)
    assert not (tmp_path / "made").exists()


def test_csv_is_a_format_and_not_two(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--csv means --format csv and contradicts --format json"):
        report(tmp_path, "--csv", "--format", "json")
    assert (
        report(tmp_path, "--csv", "--format", "csv") == report(tmp_path, "--csv") == report(tmp_path, "--format", "csv")
    )


def test_a_budget_goes_where_something_is_recommended(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--budget has no effect on csv, which recommends nothing"):
        report(tmp_path, "--csv", "--budget", "3")
    with pytest.raises(UserError, match="--budget has no effect on html, where the reader sets it"):
        report(tmp_path, "--format", "html", "--budget", "3")
    assert json.loads(report(tmp_path, "--format", "json", "--budget", "3"))["recommendation"]["budget"] == 3.0


@pytest.mark.parametrize("format", ["pdf", "svg"])
def test_a_figure_needs_a_file_of_its_own_ending(tmp_path: Path, format: str) -> None:
    with pytest.raises(UserError, match=f"--format {format} needs --to FILE"):
        report(tmp_path, "--format", format)
    with pytest.raises(UserError, match=f"writes a file that ends in .{format}, not a.png"):
        report(tmp_path, "--format", format, "--to", tmp_path / "a.png")
    report(tmp_path, "--format", format, "--to", tmp_path / f"a.{format}")
    assert (tmp_path / f"a.{format}").stat().st_size > 1000
