"""Data that is taught and asked: data check · data prepare · data list."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmmcl.cli.options import AsJson, print_json
from lmmcl.terminal import say

app = typer.Typer()
data_app = typer.Typer(no_args_is_help=True, help="Data of the papers' skills and benchmarks, and your own files.")
app.add_typer(data_app, name="data")


@data_app.command("check")
def data_check(
    file: Annotated[Path, typer.Argument(help="LLaVA JSON or messages: .json, .jsonl, .parquet")],
    images: Annotated[Path | None, typer.Option(help="folder of the images; default that of the file")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="also report how this model's tokenizer reads the texts (name or directory of the model)"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report every bad row of a data file, by row number and field. Exit code 2 when there is one."""
    from lmmcl.tasks.files.check import check_file

    check_text = None
    if model is not None:
        from lmmcl.models import get_model
        from lmmcl.models.processing.check_text import TextReader

        check_text = TextReader(get_model(model).load_processor())
    found = check_file(file, images, check_text)
    if as_json:
        print_json(found.to_dict())
    else:
        for problem in found.problems:
            say(str(problem))
        for note in found.notes():
            say(f"note: {note}")
        say(found.summary())
    if found.problems:
        raise typer.Exit(2)


@data_app.command("prepare")
def data_prepare(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="skills (train and test data) and benchmarks")],
    to: Annotated[Path | None, typer.Option("--to", help="folder; else LMMCL_DATA, else the user's cache")] = None,
    copies: Annotated[Path | None, typer.Option(help="folder with local copies, each at <owner>/<name>")] = None,
    images: Annotated[
        Path | None, typer.Option(help="folder of images, for data sets that hold only the names of their images")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="prepare again even if the data is already there")] = False,
) -> None:
    """Fetch, convert and check data of the hub, once. The same command continues after an interruption."""
    from lmmcl.tasks.hub import client, prepare
    from lmmcl.tasks.hub.hub_data import data_folder

    folder = to or data_folder()
    hub = client.Hub(folder / "downloads", copies, images)
    prepare.prepare(names, hub, folder, again=again, say=say)


@data_app.command("list")
def data_list(as_json: AsJson = False) -> None:
    """List the data sets of the hub: where each comes from, its licence, and how many rows are prepared here."""
    from lmmcl.tasks.hub.prepare import data_rows

    rows = data_rows()
    if as_json:
        print_json(rows)
    for row in [] if as_json else rows:
        state = "not prepared" if row["rows"] is None else f"{row['rows']} rows"
        say(f"{row['name']:16} {row['part']:6} {state:14} {row['hub']} ({row['licence']})")
