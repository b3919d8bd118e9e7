"""The bench of kept image features counts each picture once."""

from __future__ import annotations

import picture_features


def test_pictures_are_encoded_once_and_a_filled_folder_needs_no_tower() -> None:
    without, empty, filled = picture_features.measure("tiny-qwen", 8)
    assert empty.pictures == 8 and filled.pictures == 0
    assert without.pictures >= 2 * (2 * 8 + 4)
    assert "| an empty folder | 8 | 0." in picture_features.table([without, empty, filled])
