"""Pictures of a whole page at three widths, light and dark, for a person to look at; with --parts those of the docs.

    python tests/page_pictures.py FOLDER [PAGE.html] [--parts]

PAGE.html is what `lmmcl report SWEEP --format html --to PAGE.html` wrote; without it two made-up sweeps are drawn: one that asked
inside stages and has probes, and one with answers and several seeds.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from browser import Browser, browser
from PIL import Image

WIDTHS = (1400, 800, 420)
THEMES = ("light", "dark")
PARTS = {"trials-by-benchmarks": ("#heat-section", "light"), "side-by-side": ("#pair-section", "light")}
PARTS |= {"answers": ("#answers-section", "dark"), "parallel-coordinates": ("#parallel-section", "light")}
COLOURS, HIGHEST = 96, 760


def take(tab: Browser, address: str, folder: Path) -> list[Path]:
    """`NAME-WIDTH-THEME.png` of the page at `address`, as the system's setting has its colours."""
    files = []
    for width in WIDTHS:
        for theme in THEMES:
            tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
            tab.open(address, width=width, height=900, phone=width < 500)
            tab.wait("document.documentElement.dataset.drawn === 'yes'")
            files.append(tab.picture(folder / f"{Path(address).stem}-{width}-{theme}.png", whole=True))
    tab.call("Emulation.setEmulatedMedia", features=[])
    return files


def take_parts(tab: Browser, address: str, folder: Path) -> list[Path]:
    """`page-NAME.png` of the parts that docs/results.md shows, in few colours."""
    files = []
    for name, (part, theme) in PARTS.items():
        tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        tab.open(address, width=1000, height=900)
        tab.wait("document.documentElement.dataset.drawn === 'yes'")
        file = tab.picture(folder / f"page-{name}.png", part=part, most=HIGHEST)
        with Image.open(file) as picture:
            few = picture.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(file, optimize=True)
        files.append(file)
    return files


def main() -> None:
    words = [word for word in sys.argv[1:] if word != "--parts"]
    folder = Path(words[0])
    with tempfile.TemporaryDirectory() as work:
        if len(words) > 1:
            pages = [Path(words[1]).resolve()]
        else:
            from made_page import write_answered_page, write_made_page

            pages = [write_made_page(Path(work)), write_answered_page(Path(work))]
        with browser(Path(work, "profile")) as tab:
            shoot = take_parts if "--parts" in sys.argv else take
            for page in pages:
                for file in shoot(tab, page.as_uri(), folder):
                    print(file)


if __name__ == "__main__":
    main()
