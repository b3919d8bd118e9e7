"""`lmmcl data prepare SWEEP`: the rows of a data set of the hub, read as local files are and written once.

`datasets` says which files belong to a split. Its readers of JSON and tables turn texts that look like numbers into
numbers ("007" becomes 7), so those files are read by the readers of local data; of all other kinds the rows come from `datasets`,
with images as the bytes of their files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from lmmcl.errors import UserError, unknown
from lmmcl.tasks.examples import Example
from lmmcl.tasks.files.formats import ParsedRow, parse_row
from lmmcl.tasks.files.parse_rows import SUFFIXES, read_rows
from lmmcl.tasks.files.prepared import PreparedWriter, about
from lmmcl.tasks.hub.client import Hub, told
from lmmcl.tasks.hub.own_data_set import HubPiece
from lmmcl.tasks.images import EncodedImage, ImageSource

SAMPLED = 64
"""Examples looked at before the first is written, to learn the names of their metadata."""
AS_TEXT = ("json", "csv")
"""Kinds of data set whose values `datasets` changes."""


@dataclass
class Prepared:
    """What became of the rows of a piece."""

    piece: HubPiece
    file: Path
    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    fresh: bool = True

    def __str__(self) -> str:
        if not self.fresh:
            return f"{self.piece.name}: {self.rows} rows, prepared already"
        out = ", ".join(f"{count} left out: {why}" for why, count in sorted(self.left_out.items()))
        return f"{self.piece.name}: {self.rows} rows to {self.file}" + (f" ({out})" if out else "")


def prepare_piece(piece: HubPiece, hub: Hub, folder: Path | None = None, *, again: bool = False) -> Prepared:
    """Fetch, convert, check and write the rows of a piece, unless they are there.

    A row that is wrong in one of its values is left out and counted; one whose layout is not known ends it with a UserError.
    """
    from lmmcl.tasks.files.check import check_file

    done = Prepared(piece, piece.file(folder))
    if not again and done.file.is_file():
        return replace(done, rows=about(done.file).get("rows", 0), fresh=False)
    examples = _examples(piece, hub, done)
    first = list(islice(examples, SAMPLED))
    if not first:
        why = "; ".join(f"{count} left out: {reason}" for reason, count in done.left_out.items())
        raise UserError(f"has no usable row ({why or 'it holds none'})", file=piece.place)
    names = dict.fromkeys(name for example in first for name in example.metadata)
    writer = PreparedWriter(done.file, dict.fromkeys(names, str))
    try:
        for example in chain(first, examples):
            writer.add(example)
        done.rows = writer.count
        problems = check_file(
            writer.finish({**piece.identity(), "rows": done.rows, "left_out": dict(done.left_out)})
        ).problems
        if problems:
            raise UserError(f"{len(problems)} problems after conversion: {problems[0]}", file=piece.place)
        writer.close()
    finally:
        writer.discard()
    return done


def prepare_pieces(
    pieces: list[HubPiece], hub: Hub, folder: Path, *, again: bool, say: Callable[[str], object]
) -> list[Prepared]:
    """Prepare all, telling each by `say` as it comes."""
    done = []
    for piece in dict.fromkeys(pieces):
        done.append(prepare_piece(piece, hub, folder, again=again))
        say(str(done[-1]))
    return done


def _examples(piece: HubPiece, hub: Hub, done: Prepared) -> Iterator[Example]:
    seen: Counter[str] = Counter()
    unseen = piece.columns.theirs()
    for number, row in enumerate(_rows(piece, hub), start=1):
        parsed = ParsedRow(number)
        example = parse_row(row, parsed, Path(), piece.columns)
        unseen -= row.keys() if isinstance(row, dict) else set()
        if example is None or parsed.problems:
            place, message = parsed.problems[0]
            if place == "row" and isinstance(row, dict):
                raise UserError(message, file=piece.place, place=f"row {number}")
            done.left_out[f"{place}: {message}"[:120]] += 1
            continue
        images = tuple(_embedded(image, piece, hub, number) for image in example.images)
        seen[example.id] += 1
        id = example.id if seen[example.id] == 1 else f"{example.id}#{seen[example.id]}"
        metadata = {name: str(value) for name, value in example.metadata.items()}
        yield replace(example, id=id, images=images, metadata=metadata)
    if unseen:
        raise UserError(f"no row has the column {sorted(unseen)[0]!r} that `columns` names", file=piece.place)


def _embedded(image: ImageSource, piece: HubPiece, hub: Hub, number: int) -> EncodedImage:
    """An image as bytes: a name is of a file in the folder of `--images`, or in the repository."""
    if isinstance(image, EncodedImage):
        return image
    try:
        data = hub.named_image(str(image)) if hub.images else None
        if data is None:
            data = hub.file(piece.hub, str(image), revision=piece.commit).read_bytes()
    except UserError as error:
        raise UserError(
            f"names the image {str(image)!r}, which is not in the data set; say where its images are with `--images FOLDER`",
            file=piece.place,
            place=f"row {number}",
        ) from error
    return EncodedImage(data)


def _rows(piece: HubPiece, hub: Hub) -> Iterator[Any]:
    """The rows of the split, as they are stored."""
    kind, files = _files(piece, hub)
    if kind not in AS_TEXT:
        yield from hub.rows(piece.hub, piece.split, config=piece.config, revision=piece.commit)
        return
    for file in files:
        if Path(file).suffix.lower() not in SUFFIXES:
            raise UserError(f"{file} is compressed; only {', '.join(SUFFIXES)} are read", file=piece.place)
        path = hub.file(piece.hub, file, revision=piece.commit)
        yield from (row for _, row in read_rows(path))


def _files(piece: HubPiece, hub: Hub) -> tuple[str, list[str]]:
    """What kind of data set it is, and the files of its split below the repository."""
    import datasets

    copy = hub.copy_of(piece.hub)
    with told(piece.hub, piece.commit):
        source = str(copy or piece.hub)
        builder = datasets.load_dataset_builder(source, piece.config, revision=None if copy else piece.commit)
    named: Any = builder.config.data_files or {}
    if named and piece.split not in named:
        raise UserError(unknown("split", piece.split, map(str, named)), file=f"data set {piece.hub}")
    root = f"{copy}/" if copy else f"@{piece.commit}/"
    files = [str(file).partition(root)[2] or str(file) for file in named.get(piece.split, [])]
    return type(builder).__module__.rpartition(".")[2], files
