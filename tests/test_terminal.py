"""What data and names hold cannot act on a terminal, and every terminal can show what is printed."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys

import pytest
from rich.table import Table
from rich.text import Text

from lmmcl import strict_json
from lmmcl.terminal import PLAIN, escape_controls, plain_streams, safe_console, say_json

ESCAPE = "red\x1b[2J\x1b]0;title\x07 \x9b31m \u202eevil\u2028 \x7f \r"


def test_control_characters_are_shown_and_lines_and_tabs_stay() -> None:
    shown = escape_controls("a\tb\n" + ESCAPE)
    assert shown == "a\tb\nred\\x1b[2J\\x1b]0;title\\x07 \\x9b31m \\u202eevil\\u2028 \\x7f \\x0d"
    assert escape_controls("é → 漢字 ★") == "é → 漢字 ★"


@pytest.mark.parametrize("kind", ["text", "markup", "table", "wrapped"])
def test_a_console_shows_them_too_and_keeps_its_own_colours(kind: str) -> None:
    out = io.StringIO()
    console = safe_console(file=out, force_terminal=True, width=200, color_system="standard")
    if kind == "table":
        table = Table("name")
        table.add_row(ESCAPE, style="bold")
        console.print(table)
    else:
        console.print(
            Text(ESCAPE, style="bold") if kind == "text" else ESCAPE, style="bold", soft_wrap=kind == "wrapped"
        )
    printed = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert "\\x1b[2J" in printed and "\\u202e" in printed
    assert "\x1b[2J" not in printed and "\x9b" not in printed and "\u202e" not in printed
    assert "\x1b[1m" in out.getvalue(), "bold"


def test_a_console_masks_secrets() -> None:
    out = io.StringIO()
    safe_console(file=out, width=200).print("postgresql://a:NOTASECRET@h/d")
    assert out.getvalue() == "postgresql://***@h/d\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-8"])
def test_every_encoding_gets_something_readable(encoding: str) -> None:
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding=encoding)
    plain_streams(stream)
    stream.write("trial · lr 1e-3 … ★ é 漢 ─│ \udcff " + "".join(PLAIN))
    stream.flush()
    text = buffer.getvalue().decode(encoding)
    assert "trial" in text and "\\xff" in text
    if encoding == "ascii":
        assert text.startswith("trial - lr 1e-3 ... * e \\u6f22 -| \\xff ")
    if encoding == "utf-8":
        assert text.startswith("trial · lr 1e-3 … ★ é 漢 ─│ ")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_stays_json_on_every_terminal(encoding: str) -> None:
    value = {"said": ESCAPE + "é … 漢 😀", "score": float("nan"), "list": [float("inf"), 1.5, True, None]}
    code = f"from lmmcl import strict_json; from lmmcl.terminal import say_json; say_json(strict_json.dumps({value!r}))"
    code = code.replace("nan,", "float('nan'),").replace("[inf", "[float('inf')")
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding)
    assert json.loads(text) == {**value, "score": None, "list": [None, 1.5, True, None]}
    assert not {"\x1b", "\x9b", "\u202e", "\x7f"} & set(text)


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(strict_json.dumps({"a": (float("-inf"), {"b": float("nan")})})) == {"a": [None, {"b": None}]}
    say_json(strict_json.dumps({"uri": "http://a:NOTASECRET@h"}))
    assert json.loads(capsys.readouterr().out) == {"uri": "http://***@h"}
