"""Code, messages, docs and tests are written in plain English: phrases that send a reader to a dictionary stay out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
ROOMS = ("lmmcl", "docs", "sweeps", "cluster", "tests", "README.md", "CITATION.cff")
KINDS = {".py", ".md", ".yaml", ".yml", ".js", ".html", ".css", ".sh", ".cff", ".ipynb"}
PHRASES = {
    r"\b(is|are|was|were|be|been|being|gets?) told\b(?! apart)": "is reported, is named, gets, knows",
    r"\bwithout a word\b": "silently",
    r"\bso many\b": "a number of, up to N",
    r"\banew\b": "again",
    r"\bheld against\b": "compared with",
    r"\b(go|goes|going|went|gone) on\b": "continue, resume",
    r"\basked of\b": "evaluated on, requested from",
    r"\bof which\b": "two sentences",
    r"(?<!there )\b(is|are|was|were) no\b(?! (longer|more|less|fewer|larger)\b)(?!\.)": "is not a",
    r"\b(puts?|putting) \w* ?aside\b": "quarantine",
    r"\bnothing like\b": "no similar",
    r"\ball the same\b(?! (to|as))": "anyway",
    r"\bholds other bytes\b": "checksum mismatch",
    r"\bwas cut, or is\b": "truncated or not valid JSON",
    r"\bone step after the other\b": "sequential",
    r"\bhas come to stage\b": "has finished stage",
    r"\brun the sweep on\b": "finish the sweep",
    r"\btold apart from none\b": "not significantly different from any",
    r"\bbeyond the budget\b": "exceed the budget",
    r"\bnot known yet\b": "unknown",
    r"\bsay which version\b": "show the version",
    r"\bstay and show\b": "refresh until",
    r"\beach GPU, about\b": "GPU memory (est.)",
    r"\bto be asked\b": "evaluation memory",
    r"\bis not sent\b": "would not be uploaded",
    r"\bleave out gpu_memory_gb\b": "remove gpu_memory_gb",
    r"\bno kind of\b": "unsupported",
    r"\bwho (writes|computes|reads|waits|removed|wants|asks|trains|evaluates|answers|runs)\b": "the process that …",
}  # fmt: skip
"""What is not written (a regular expression), and what is written instead."""


def texts() -> list[Path]:
    paths = [
        path for room in ROOMS for path in ([REPOSITORY / room] if "." in room else (REPOSITORY / room).rglob("*"))
    ]
    return [path for path in paths if path.suffix in KINDS and path != Path(__file__).resolve()]


def lines() -> list[tuple[str, int, str]]:
    return [
        (str(path.relative_to(REPOSITORY)), number, line)
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if len(line) < 2000  # not a minified file
    ]


@pytest.fixture(scope="module")
def everything() -> list[tuple[str, int, str]]:
    found = lines()
    assert len({path for path, _, _ in found}) > 500
    return found


@pytest.mark.parametrize("phrase", PHRASES)
def test_no_line_has_a_phrase_that_an_engineer_would_not_write(
    phrase: str, everything: list[tuple[str, int, str]]
) -> None:
    wrong = re.compile(phrase, re.IGNORECASE)
    hits = [f"{path}:{number}: {line.strip()}" for path, number, line in everything if wrong.search(line)]
    assert not hits, f"write: {PHRASES[phrase]}\n" + "\n".join(hits)


def test_the_phrases_match_what_they_are_for() -> None:
    seen = (
        "the store is no folder; a key is told; abc:// is no kind of store; so many steps; the run went on from there"
    )
    assert sum(bool(re.search(phrase, seen)) for phrase in PHRASES) == 5
    fine = "there is no such file; it is no longer needed; parts told apart; the same to all"
    assert not [phrase for phrase in PHRASES if re.search(phrase, fine)]


VAGUE = {"said", "told", "made", "given", "some", "found", "each"}


def _bound_names(file: Path) -> set[str]:
    """Names that functions of `file` bind: parameters, assignments, loops."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return stored | {node.arg for node in nodes if isinstance(node, ast.arg)}


@pytest.mark.parametrize(
    "room", sorted(path.name for path in (REPOSITORY / "lmmcl").iterdir() if path.suffix in ("", ".py"))
)
def test_variables_say_what_they_are(room: str) -> None:
    """A prediction is called `prediction`, not `said`; a match `match`, not `found`."""
    path = REPOSITORY / "lmmcl" / room
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    vague = {str(file.relative_to(REPOSITORY)): names for file in files if (names := _bound_names(file) & VAGUE)}
    assert not vague
