"""Data that is taught and asked: data check · data prepare · data list."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmmcl.cli.options import AsJson, print_json
from lmmcl.errors import UserError
from lmmcl.terminal import say

if TYPE_CHECKING:
    from lmmcl.tasks.hub.client import Hub

app = typer.Typer()
data_app = typer.Typer(no_args_is_help=True, help="Data of the papers' skills and benchmarks, and your own files.")
app.add_typer(data_app, name="data")


@data_app.command("check")
def data_check(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE…", help=".json, .jsonl, .parquet, .csv, .tsv, .arrow, .tar, or a folder (docs/own_data.md)"
        ),
    ],
    images: Annotated[Path | None, typer.Option(help="folder of the images; default that of the file")] = None,
    columns: Annotated[
        str | None, typer.Option(help="which column is which, such as image=photo,question=q,answer=a")
    ] = None,
    question: Annotated[str | None, typer.Option(help="the question for rows that hold none")] = None,
    skip_images: Annotated[
        bool, typer.Option("--skip-images", help="do not open the images; only see whether they are there")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(help="also report how this model's tokenizer reads the texts (name or directory of the model)"),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="with --model: how many rows training.max_length would cut")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report every kind of problem of data files, with rows and fields, and what they hold. Exit code 2 when there is one."""
    from lmmcl.tasks.files.check import check_file
    from lmmcl.tasks.layouts.columns import columns_from_text

    if max_length is not None and model is None:
        raise UserError("tokens are counted for a model: name it with --model", place="--max-length")
    reading: dict[str, Any] = _read_by(model, max_length, with_images=not skip_images) if model else {}
    named = columns_from_text(columns, question)
    reports = []
    for file in files:
        reports.append(check_file(file, images, columns=named, open_images=not skip_images, **reading))
        for line in [] if as_json else reports[-1].lines():
            say(line)
    if as_json:
        print_json(reports[0].to_dict() if len(reports) == 1 else [report.to_dict() for report in reports])
    if any(report.total for report in reports):
        raise typer.Exit(2)


def _read_by(model: str, max_length: int | None, *, with_images: bool) -> dict[str, Any]:
    """How a model's processor reads texts and rows."""
    from lmmcl.models import get_model
    from lmmcl.models.processing.check_text import TextReader
    from lmmcl.models.processing.encode import encode

    processor: Any = get_model(model).load_processor()
    own = getattr(processor.tokenizer, "model_max_length", None)
    limit = max_length or (own if isinstance(own, int) and own < 10**7 else None)
    return {
        "check_text": TextReader(processor),
        "count_tokens": (lambda example: len(encode(processor, example, with_answer=True)["input_ids"]))
        if with_images
        else None,
        "max_length": limit,
        "limit_of": "max_length" if max_length else "the tokenizer's own limit",
    }


@data_app.command("prepare")
def data_prepare(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME…", help="skills (train and test data) and benchmarks, or a sweep file with data of the hub"
        ),
    ],
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
    for sweep in [Path(name) for name in names if name.endswith((".yaml", ".yml"))]:
        _prepare_own(sweep, hub, folder, again=again)
    if shipped := [name for name in names if not name.endswith((".yaml", ".yml"))]:
        prepare.prepare(shipped, hub, folder, again=again, say=say)


def _prepare_own(sweep: Path, hub: Hub, folder: Path, *, again: bool) -> None:
    """Fetch what a sweep names by id."""
    from lmmcl.config.own_data import hub_pieces_of
    from lmmcl.tasks.hub.hub_rows import prepare_pieces

    pieces = hub_pieces_of(sweep)
    if not pieces:
        raise UserError("names no data set of the hub; there is nothing to prepare", file=str(sweep))
    prepare_pieces(pieces, hub, folder, again=again, say=say)


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
