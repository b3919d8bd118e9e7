"""YAML as this project reads it: plain data, no key twice, and no text that grows or nests without end."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from lmmcl.errors import shown

MOST_NODES = 1_000_000
"""Values of a file after its aliases (`*name`) have been followed: a few lines can stand for millions of millions."""
MOST_LEVELS = 100


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that is given twice: YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):  # `{{ name }}`, most often: a template that nobody filled in
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is a plain word, not a list or a mapping", key_node.start_mark
                )
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {shown(key_node.value)} is given twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, kind: type[yaml.SafeLoader] = StrictLoader) -> Any:
    """The value of a YAML text; raises yaml.YAMLError (with the place where it knows one) or ValueError."""
    loader = kind(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {}, 1)
        return loader.construct_document(node)
    except RecursionError:  # PyYAML calls itself for each level
        raise yaml.YAMLError(f"nested too deeply; allowed: {MOST_LEVELS} levels") from None
    finally:
        loader.dispose()


def _measure(node: yaml.Node, known: dict[int, tuple[int, int] | None], level: int) -> tuple[int, int]:
    """(values, levels) below and with `node`, aliases followed; raises an error beyond the limits."""
    if id(node) in known:
        measured = known[id(node)]
        if measured is None:
            raise _error("an alias that contains itself", node)
    else:
        known[id(node)] = None
        measured = (1, 1)
        for child in _children(node):
            nodes, levels = _measure(child, known, level + 1)
            measured = (measured[0] + nodes, max(measured[1], levels + 1))
        known[id(node)] = measured
    if level + measured[1] > MOST_LEVELS + 1:
        raise _error(f"nested too deeply; allowed: {MOST_LEVELS} levels", node)
    if measured[0] > MOST_NODES:
        raise _error(f"more than {MOST_NODES:,} values once aliases are followed", node)
    return measured


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _error(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
