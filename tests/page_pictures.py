"""Pictures of a whole page at three widths, light and dark, for a person to look at.

    python tests/page_pictures.py FOLDER [PAGE.html]

PAGE.html is what `lmmcl report SWEEP --format html --to PAGE.html` wrote; without it a made-up sweep is drawn.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from browser import Browser, browser

WIDTHS = (1400, 800, 420)
THEMES = ("light", "dark")


def take(tab: Browser, address: str, folder: Path) -> list[Path]:
    """`page-WIDTH-THEME.png` of the page at `address`, as the system's setting has its colours."""
    files = []
    for width in WIDTHS:
        for theme in THEMES:
            tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
            tab.open(address, width=width, height=900, phone=width < 500)
            tab.wait("document.documentElement.dataset.drawn === 'yes'")
            files.append(tab.picture(folder / f"page-{width}-{theme}.png", whole=True))
    tab.call("Emulation.setEmulatedMedia", features=[])
    return files


def main() -> None:
    folder = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as work:
        if len(sys.argv) > 2:
            page = Path(sys.argv[2]).resolve()
        else:
            from made_page import write_made_page

            page = write_made_page(Path(work))
        with browser(Path(work, "profile")) as tab:
            for file in take(tab, page.as_uri(), folder):
                print(file)


if __name__ == "__main__":
    main()
