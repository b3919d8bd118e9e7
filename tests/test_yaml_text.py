"""YAML that grows or nests without end is refused at once, with its place."""

from __future__ import annotations

import pytest
import yaml

from lmmcl.yaml_text import MOST_LEVELS, MOST_NODES, parse_yaml

GROWING = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
MERGING = "m0: &m0 {x: 1, y: 2}\n" + "".join(
    f"m{n}: &m{n} {{z: [{', '.join([f'*m{n - 1}'] * 10)}]}}\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (GROWING, f"more than {MOST_NODES:,} values"),
        (MERGING, f"more than {MOST_NODES:,} values"),
        ("a: &a [1, *a]", "contains itself"),
        ("a: &a {b: *a}", "contains itself"),
        ("a: " + "[" * 101 + "]" * 101, f"allowed: {MOST_LEVELS} levels"),
        ("a: " + "[" * 100_000, f"allowed: {MOST_LEVELS} levels"),
        ("a: &a " + "[" * 60 + "]" * 60 + "\nb: " + "[" * 60 + "*a" + "]" * 60, f"allowed: {MOST_LEVELS} levels"),
        ("a: 1\na: 2", "the key 'a' is given twice"),
        ("? [1, 2]\n: 3", "a key is a plain word"),
    ],
)
def test_what_has_no_end_is_refused(text: str, why: str) -> None:
    with pytest.raises(yaml.YAMLError, match=why):
        parse_yaml(text)


def test_aliases_and_lists_of_a_usual_size_are_read() -> None:
    assert parse_yaml("a: &a [1, 2]\nb: [*a, *a]\nc: {<<: {d: 1}, e: 2}") == {
        "a": [1, 2],
        "b": [[1, 2]] * 2,
        "c": {"d": 1, "e": 2},
    }
    assert len(parse_yaml("[" + ", ".join(["1"] * 50_000) + "]")) == 50_000
    assert parse_yaml("") is None
