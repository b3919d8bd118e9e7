"""What axe-core finds on the page in a headless browser: nothing that is serious.

axe-core comes with `.ci/javascript FOLDER`; `LMMCL_AXE` names its `axe.min.js`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from answered_store import answered_sweep
from browser import CHROMIUM, Browser, browser
from made_page import made_results
from test_page_answers import gathered

from lmmcl.reports.page.page import write_page
from lmmcl.reports.page.page_extras import PageExtras

AXE = Path(os.environ.get("LMMCL_AXE", Path(__file__).parents[3] / ".ci/node_modules/axe-core/axe.min.js"))
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path"),
    pytest.mark.skipif(not AXE.is_file(), reason="axe-core is missing: npm ci --prefix .ci, or set LMMCL_AXE"),
]
FINDINGS = """axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) =>
  violations.filter(({ impact }) => impact === "serious" || impact === "critical").map(({ id, nodes }) =>
    `${id}: ${nodes.slice(0, 3).map(({ html, failureSummary }) => `${html.slice(0, 200)} ${failureSummary}`).join(" | ")}`))"""


def serious(tab: Browser, page: Path, theme: str, width: int) -> list[str]:
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
    tab.open(page.as_uri(), width=width, height=900, phone=width < 500)
    tab.wait("document.documentElement.dataset.drawn === 'yes'")
    tab.run(f"{AXE.read_text(encoding='utf-8')};0")
    return tab.run(FINDINGS)


def test_axe_finds_nothing_serious_on_light_and_dark_wide_and_narrow(tmp_path: Path) -> None:
    sweep = answered_sweep(tmp_path, 12, seeds=(0, 1))
    results, extras = gathered(sweep, tmp_path / "store")
    write_page(results, tmp_path / "answers.html", extras)
    write_page(made_results(), tmp_path / "charts.html", PageExtras())
    with browser(tmp_path / "profile") as tab:
        for name in ("answers", "charts"):
            for theme, width in (("light", 1400), ("dark", 420)):
                assert serious(tab, tmp_path / f"{name}.html", theme, width) == [], (name, theme, width)


def test_axe_finds_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text(
        "<html data-drawn='yes'><title>bad</title><p style='color:#aaa'>pale</p><img src='data:,'></html>"
    )
    with browser(tmp_path / "profile") as tab:
        found = serious(tab, tmp_path / "bad.html", "light", 1400)
    assert {finding.split(":")[0] for finding in found} >= {"color-contrast", "image-alt", "html-has-lang"}
