"""A YAML text -> what it means, unless its aliases make it more than any memory holds."""

from __future__ import annotations

from typing import Any

import yaml

MOST_NODES = 100_000  # of a config with its aliases written out; the longest of ours has 2,000


def constructed(loader: yaml.SafeLoader) -> Any:
    """What a text means, after a look at how much that is: a few lines of aliases of aliases can fill any memory.

    Args:
        loader: over the text.

    Raises:
        YAMLError: not YAML, or more than a config ever holds.
        RecursionError: nested too deeply, or an alias within what it stands for.
    """
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _written_out(node, {}) > MOST_NODES:
            raise yaml.constructor.ConstructorError(None, None, f"its aliases stand for more than {MOST_NODES} values")
        return _apart(loader.construct_document(node))
    finally:
        loader.dispose()


def _apart(value: Any) -> Any:
    """A copy in which what an alias stands for is nobody else's, so that a change of one changes one."""
    if isinstance(value, dict):
        return {key: _apart(each) for key, each in value.items()}
    return [_apart(each) for each in value] if isinstance(value, list) else value


def _written_out(node: yaml.Node, known: dict[int, int]) -> int:
    """Number of nodes of a tree in which every alias stands written out."""
    if id(node) not in known:
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            inner = [each for pair in node.value for each in pair]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        known[id(node)] = 1 + sum(_written_out(each, known) for each in inner)
    return known[id(node)]
