"""The sweep as one HTML file that needs no network, with a folder beside it where pictures and answers make it too large."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from lmmcl.atomic_files import replacing, write_text
from lmmcl.errors import UserError
from lmmcl.reports.page.page_data import page_data
from lmmcl.reports.page.page_extras import PageExtras
from lmmcl.reports.results import SweepResults

FILES = "page_files"
SCRIPTS = (
    "data.js",
    "labels.js",
    "plots.js",
    "recommendation.js",
    "probes.js",
    "trial.js",
    "answer_cards.js",
    "answers.js",
    "matrices.js",
    "side_by_side.js",
    "parallel.js",
    "spread.js",
    "tables.js",
    "start.js",
)
"""In this order they are one script: each uses what those before it declare, and `start.js` draws everything."""
LARGEST = 15_000_000
"""Bytes up to which a page is one file; of a larger one answers and pictures lie in a folder beside it."""
MARK = ".lmmcl-page"
"""A file that says of a folder that it belongs to a page, and may be replaced or removed with it."""


def write_page(results: SweepResults, path: Path, extras: PageExtras | None = None) -> list[Path]:
    """Write the page to `path` at once, making its folder; gives `path`, and where there is one the folder beside it.

    `extras` are what the results do not hold: answers with their pictures, and pairs of trials. The folder of `report.html` is
    `report_files`. It is written first: until the page follows, the earlier one stays. Raises UserError where that folder holds
    other files.
    """
    folder = path.with_name(f"{path.stem}_files")
    data, extras = _data(results, extras), extras or PageExtras()
    if extras.size() <= LARGEST:
        parts = _parts(results.name, data, _inline(extras))
        if sum(len(part.encode("utf-8", "backslashreplace")) for part in parts) <= LARGEST or not extras.answers.blocks:
            write_text(path, parts)
            if (folder / MARK).is_file():
                shutil.rmtree(folder)
            return [path]
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise UserError(
            f"{folder} holds files that do not belong to this page, which would keep its answers and pictures there. "
            "Move them, or write the page under another name."
        )
    with replacing(folder) as partial:
        files = _write_folder(partial, extras)
    data["answers"] |= {
        "blocks": [
            block | {"file": f"{folder.name}/{name}"}
            for block, name in zip(data["answers"]["blocks"], files, strict=True)
        ],
        "pictures": {digest: f"{folder.name}/{digest}.{kind}" for digest, (_, kind) in extras.answers.pictures.items()},
    }
    write_text(path, _parts(results.name, data, "", beside=True))
    return [path, folder]


def page(results: SweepResults, extras: PageExtras | None = None) -> str:
    """The page as one text, however large. Strings of the sweep are JSON in it, which the scripts set as text, never as markup."""
    return "".join(_parts(results.name, _data(results, extras), _inline(extras or PageExtras())))


def _data(results: SweepResults, extras: PageExtras | None) -> dict[str, Any]:
    return page_data(results, _for_script) | (extras or PageExtras()).summary(results)


def _parts(name: str, data: dict[str, Any], answers: str, *, beside: bool = False) -> list[str]:
    """The text of the page in parts: whole, it is several times as large in memory as in its file."""
    from plotly.offline import get_plotlyjs

    parts = {
        "title": html.escape(name),
        "css": _template("page.css"),
        "js": script(),
        "plotly": get_plotlyjs(),
        "answers": answers,
    }
    parts["policy"] = _policy([parts["plotly"], parts["js"]], beside=beside)
    filled: list[str] = []
    for place, text in enumerate(re.split(r"\{\{(\w+)\}\}", _template("page.html"))):
        # texts and names take turns; what is filled in is not looked at, so that nothing in it can hold a place of its own
        if place % 2 == 0:
            filled.append(text)
        elif text == "data":
            filled += _data_parts(data)
        else:
            filled.append(parts[text])
    return filled


def _data_parts(data: dict[str, Any]) -> Iterator[str]:
    """The JSON of the page's data, in which trials are text already."""
    for place, (name, value) in enumerate(data.items()):
        yield f"{',' if place else '{'}{_for_script(name)}:"
        if name == "trials":
            yield "["
            for at, trial in enumerate(value):
                yield f"{',' if at else ''}{trial}"
            yield "]"
        elif name == "single" and value is not None:
            yield from _data_parts(value)
        else:
            yield _for_script(value)
    yield "}"


def _policy(scripts: list[str], *, beside: bool) -> str:
    """What a browser may run and fetch: the scripts of the page by their digests, and pictures; nothing from a network."""
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    own = " 'self' file:" if beside else ""
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}{own}; style-src 'unsafe-inline'; img-src data: blob:{own}; "
        "base-uri 'none'; form-action 'none'"
    )


def _inline(extras: PageExtras) -> str:
    """Answers and pictures as blocks of JSON, which the page reads when they are looked at."""
    blocks = [
        f'<script type="application/json" id="answers-{place}">{_for_script(block)}</script>'
        for place, block in enumerate(extras.answers.blocks)
    ]
    pictures = {
        digest: f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
        for digest, (content, kind) in extras.answers.pictures.items()
    }
    if blocks:
        blocks.append(f'<script type="application/json" id="pictures">{_for_script(pictures)}</script>')
    return "\n".join(blocks)


def _write_folder(folder: Path, extras: PageExtras) -> list[str]:
    """Write what a large page has beside it; gives the names of the scripts that bring the answers, by benchmark."""
    folder.mkdir()
    (folder / MARK).write_text("belongs to the page beside this folder\n", encoding="utf-8")
    for digest, (content, kind) in extras.answers.pictures.items():
        (folder / f"{digest}.{kind}").write_bytes(content)
    names = []
    for place, block in enumerate(extras.answers.blocks):
        text = f"lmmclAnswers({place}, {_for_script(block)});\n"
        names.append(f"answers-{place}-{hashlib.sha256(text.encode('utf-8', 'backslashreplace')).hexdigest()[:12]}.js")
        (folder / names[-1]).write_text(text, encoding="utf-8", errors="backslashreplace")
    return names


def script() -> str:
    """What the page does, as one script whose names stay its own."""
    return '"use strict";\n(() => {\n' + "\n".join(map(_template, SCRIPTS)) + "})();\n"


def _for_script(data: Any) -> str:
    """JSON that no string of it can break out of: `</script>` and `<!--` have no `<` left to start with."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _template(name: str) -> str:
    return resources.files("lmmcl.reports.page").joinpath(FILES, name).read_text(encoding="utf-8")
