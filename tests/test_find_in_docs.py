"""What a newcomer looks for is found from the index of the docs: a row that asks it, a link, and the answer where it leads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lmmcl.tasks.layouts.columns import FORMS, OURS
from lmmcl.tasks.layouts.dialogue import ROLES

DOCS = Path(__file__).parents[1] / "docs"
WANTED = {
    "add a model family": ["lmmcl/models/families", "MODELS"],
    "forgetting budget": ["stop", "edit the"],
    "resume a killed run": ["same command"],
    "as a DataFrame": ["results.scores()"],
    "tag a benchmark": ["tags:", "ood"],
    "submit a job": ["lmmcl submit", "--address"],
    "what enters a key": ["canonical JSON", "Finetune"],
    "run on two nodes": ["ray start --head", "--address=HEAD:6379"],
    "an adapter": ["lmmcl export", "--adapter"],
    "EXIF": ["turned upright"],
}
"""Words of the index's row, and what the section that it links must hold."""


def section(page: Path, anchor: str) -> str:
    """The text below a heading and its deeper ones; the whole page without an anchor."""
    text = page.read_text(encoding="utf-8")
    if not anchor:
        return text
    parts = re.split(r"^(#+ .+)$", text, flags=re.MULTILINE)
    heads, below = parts[1::2], parts[2::2]
    for at, head in enumerate(heads):
        if re.sub(r"[^\w\- ]", "", head.lstrip("# ").lower()).strip().replace(" ", "-") == anchor:
            level = len(head) - len(head.lstrip("#"))
            ends = next(
                (i for i in range(at + 1, len(heads)) if not heads[i].startswith("#" * (level + 1))), len(heads)
            )
            return "".join(below[at:ends])
    raise AssertionError(f"{page.name} has no section {anchor}")


@pytest.mark.parametrize("words", WANTED)
def test_a_question_of_a_newcomer_leads_to_its_answer(words: str) -> None:
    rows = [line for line in (DOCS / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    row = next((line for line in rows if words.lower() in line.lower() and "](" in line), None)
    assert row, f"the index has no row with {words!r}"
    linked = row + "".join(
        section(DOCS / page, anchor) for page, anchor in re.findall(r"\]\((\w+\.md)#?([\w-]*)\)", row)
    )
    assert all(answer in linked for answer in WANTED[words]), WANTED[words]


def test_the_readme_leads_to_the_index() -> None:
    assert "](docs/README.md" in (DOCS.parent / "README.md").read_text(encoding="utf-8")


def test_the_index_names_each_page_once() -> None:
    first = (DOCS / "README.md").read_text(encoding="utf-8").partition("## How do I")[0]
    pages = re.findall(r"^\| \[(\w+)\]", first, re.MULTILINE)
    assert len(pages) >= 15 and len(pages) == len(set(pages))


def test_the_page_of_own_data_names_every_column_of_a_row_and_every_role() -> None:
    page = (DOCS / "own_data.md").read_text(encoding="utf-8") + (DOCS / "sweep_file.md").read_text(encoding="utf-8")
    assert not [name for name in (*OURS, *FORMS, *ROLES) if not re.search(rf"\b{name}\b", page)]
