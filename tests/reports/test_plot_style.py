"""The colours of trials are seen on both backgrounds, by readers with protanopia and deuteranopia too."""

from __future__ import annotations

import itertools
import re
from importlib import resources

import numpy as np
import pytest
from numpy.typing import NDArray

from lmmcl.reports import plot_style

#: Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
SEEN = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
GROUNDS = {False: plot_style.BACKGROUND, True: plot_style.BACKGROUND_AT_NIGHT}


def linear(colour: str) -> NDArray[np.float64]:
    parts = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""
    light, dark = sorted((float(linear(each) @ XYZ[1]) for each in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def distance(one: str, other: str, eyes: NDArray[np.float64]) -> float:
    """ΔE of CIE 1976 as these eyes see it."""
    return float(np.linalg.norm(lab(np.clip(eyes @ linear(one), 0, 1)) - lab(np.clip(eyes @ linear(other), 0, 1))))


def lab(colour: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y, z = (XYZ @ colour) / (XYZ @ np.ones(3))
    fx, fy, fz = (np.cbrt(part) if part > 216 / 24389 else (24389 / 27 * part + 16) / 116 for part in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


def palette(number: int, night: bool, *, numbers: bool) -> list[str]:
    values = [float(place) for place in range(number)] if numbers else [f"word {place}" for place in range(number)]
    return list(plot_style.colours(values, night=night).values())


@pytest.mark.parametrize("night", [False, True])
@pytest.mark.parametrize("numbers", [False, True])
def test_every_colour_has_a_contrast_of_three_to_one(night: bool, numbers: bool) -> None:
    shown = [*palette(8, night, numbers=numbers), plot_style.NONE_AT_NIGHT if night else plot_style.NONE]
    assert min(contrast(colour, GROUNDS[night]) for colour in shown) >= 3


@pytest.mark.parametrize("eyes", SEEN)
@pytest.mark.parametrize("night", [False, True])
def test_colours_stay_apart_for_colour_blind_readers(night: bool, eyes: str) -> None:
    for number, numbers, least in ((8, False, 25), (4, True, 25), (5, True, 15), (8, True, 9)):
        pairs = itertools.combinations(palette(number, night, numbers=numbers), 2)
        assert min(distance(one, other, SEEN[eyes]) for one, other in pairs) >= least, (number, numbers)


def test_a_second_channel_tells_as_much_as_the_colour() -> None:
    assert len(set(plot_style.DASHES)) >= 6 and len({name for name, _ in plot_style.MARKERS}) >= 8


def test_the_pages_own_colours_are_read_on_their_grounds() -> None:
    script = (resources.files("lmmcl.reports.page") / "page_files" / "data.js").read_text(encoding="utf-8")
    looks = [dict(re.findall(r"(\w+): \"(#\w{6})\"", line)) for line in script.splitlines() if 'ground: "' in line]
    assert [look["ground"] for look in looks] == [plot_style.BACKGROUND, plot_style.BACKGROUND_AT_NIGHT]
    for look in looks:
        assert min(contrast(look[name], look["ground"]) for name in ("ink", "soft")) >= 4.5
        assert min(contrast(look[name], look["ground"]) for name in ("zero", "budget")) >= 3
