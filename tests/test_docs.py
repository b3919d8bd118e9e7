"""README and docs stay true where a test can hold them to the code."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import architecture_tree
import docs_reference
import pytest
import yaml
from own_data import write_receipts
from typer.testing import CliRunner

import lmmcl
from lmmcl.cli import app
from lmmcl.config.search_settings import Search
from lmmcl.config.settings import Training
from lmmcl.config.sweep_file import Grid, SweepFile
from lmmcl.methods import mitigation_names
from lmmcl.methods.recipes.recipe import Recipe
from lmmcl.tasks.probes import probe_names

REPOSITORY = Path(__file__).parents[1]
SILENT = re.compile(r"\| `\w+` \| .*\|  \|$")
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def test_every_module_says_what_it_is_for() -> None:
    modules = [path for path in (REPOSITORY / "lmmcl").rglob("*.py") if path.name != "__init__.py"]
    assert len(modules) >= 100
    assert not [str(path) for path in modules if not architecture_tree.purpose(path)]


def test_the_tree_of_the_architecture_page_is_the_tree_as_it_is() -> None:
    assert architecture_tree.written() == architecture_tree.tree(), "run: python tests/architecture_tree.py"


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_the_generated_parts_of_a_page_are_as_the_code_is_now(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert docs_reference.render(text) == text, "run: python tests/architecture_tree.py"


def test_every_setting_command_and_member_has_its_place_in_the_docs() -> None:
    parts = {tuple(found[1:3]) for page in PAGES for found in docs_reference.MARK.findall(page.read_text())}
    made = {name for maker, name in parts if maker == "settings"}
    modules = ("config.settings", "config.cluster", "config.sweep_file", "config.search_settings")
    kinds = {f"lmmcl.{module}:{kind}" for module in modules for kind in docs_reference.settings_in(f"lmmcl.{module}")}
    apart = {"SweepFile", "Grid", "StageOverride", "Search", "Scheduler"}  # written by hand in sweep_file.md
    assert {name.partition(":")[2] for name in kinds - made} == apart
    assert {name for maker, name in parts if maker == "mitigation"} == set(mitigation_names())
    biases = {"letter_bias", "yes_no_bias", "time_bias"}  # the settings of number_bias
    assert {name for maker, name in parts if maker == "probe"} | biases == set(probe_names())
    assert {"commands", "measures", "recipes"} <= {maker for maker, _ in parts}


def test_the_page_of_the_sweep_file_has_every_key() -> None:
    page = (REPOSITORY / "docs" / "sweep_file.md").read_text(encoding="utf-8")
    assert not [name for kind in (SweepFile, Search) for name in kind.model_fields if f"`{name}`" not in page]
    axes = [name for name in Grid.model_fields if name not in Training.model_fields]
    assert not [name for name in axes if f"`{name}`" not in page]


def test_the_page_of_recipes_has_every_key_of_a_recipe() -> None:
    page = (REPOSITORY / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert not [name for name in Recipe.model_fields if f"| `{name}` |" not in page]


def test_every_setting_says_what_it_means() -> None:
    tables = [page for page in PAGES[1:] if "| key | value |" in page.read_text()]
    assert len(tables) >= 5
    silent = [(page.name, line) for page in tables for line in page.read_text().splitlines() if SILENT.match(line)]
    assert not silent


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 180


def sweeps_in(page: Path) -> list[str]:
    """The YAML of a page that is a whole sweep."""
    blocks = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [block for block in blocks if re.search(r"^name:", block, re.MULTILINE) and "grids:" in block]


APART = "own_data.md"
"""Its sweeps are run by test_own_data_page.py, on data of their forms."""


@pytest.mark.parametrize(
    "page", [page for page in PAGES if sweeps_in(page) and page.name != APART], ids=lambda page: page.name
)
def test_a_sweep_that_a_page_shows_can_be_planned(page: Path, tmp_path: Path) -> None:
    for text in sweeps_in(page):
        for name in set(re.findall(r"[\w/]+\.jsonl?\b", text)):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            write_receipts((tmp_path / name).parent, name=Path(name).with_suffix(".json").name)
            rows = json.loads((tmp_path / name).with_suffix(".json").read_text(encoding="utf-8"))
            if name.endswith(".jsonl"):
                (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        for folder in set(re.findall(r"images: ([\w/]+)", text)):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            copied = (tmp_path / folder).parent / "images"
            if not (tmp_path / folder / "images").exists() and copied.is_dir():
                shutil.copytree(copied, tmp_path / folder / "images")
        sweep = lmmcl.make_sweep(file=tmp_path / "mine.yaml", **yaml.safe_load(text))
        assert lmmcl.plan(sweep, store=tmp_path / "store").to_run["finetune"] >= 1


def test_the_citation_names_this_version() -> None:
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == lmmcl.__version__
    assert cited["authors"] == [{"name": "The lmmcl developers"}] and cited["license"] == "Apache-2.0"


def test_every_link_to_a_file_leads_somewhere() -> None:
    links = [(page, target) for page in PAGES for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())]
    assert links
    assert not [(page.name, target) for page, target in links if not (page.parent / target).exists()]


def test_every_page_is_in_the_index() -> None:
    index = (REPOSITORY / "docs" / "README.md").read_text(encoding="utf-8")
    missing = [page.name for page in PAGES[1:] if page.name != "README.md" and f"]({page.name})" not in index]
    assert not missing, "give each a line in docs/README.md"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def test_every_link_to_a_section_leads_somewhere() -> None:
    links = [(page, *found) for page in PAGES for found in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text())]
    assert len(links) >= 10
    broken = [
        (page.name, target, anchor)
        for page, target, anchor in links
        if (page.parent / target).suffix == ".md" and anchor not in anchors(page.parent / target if target else page)
    ]
    assert not broken


def test_the_members_that_the_page_on_extending_shows_work() -> None:
    import torch

    page = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
    made: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, made)
    guard, median, [skill] = made["NormGuard"](weight=2.0), made["Median"](), made["SKILLS"]
    model = torch.nn.Linear(2, 1, bias=False)
    model.weight.data[:] = torch.tensor([[3.0, 4.0]])
    context = SimpleNamespace(model=model, trained=["weight"])
    state = guard.start(context)
    model.weight.data *= 2
    assert float(guard.penalty(state, model, None, {}).detach()) == pytest.approx(2.0 * 5.0**2)
    merged = median.merge(None, "w", torch.tensor([0.0, 5.0]), [torch.tensor([1.0, 1.0]), torch.tensor([2.0, 2.0])])
    assert merged.tolist() == [1.0, 2.0]
    assert guard.identity() == {"name": "norm_guard", "version": 1, "weight": 2.0}
    assert len(skill.load()) == 900 and skill.benchmark.scoring().score("Even", skill.benchmark.load()[0]) == 1


def test_every_command_that_readme_and_docs_show_exists() -> None:
    shown = {words.split()[0] for page in PAGES for words in re.findall(r"`lmmcl ([a-z][^`]*)`", page.read_text())}
    listed = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    assert len(shown) >= 10
    assert all(re.search(rf"\b{word}\b", listed) for word in shown), shown
