"""YAML in which nothing is lost silently."""

from __future__ import annotations

import yaml


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which the second would silently replace the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """As of the base class. Raises MarkedYAMLError, naming the key."""
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key!r} stands twice", problem_mark=node.start_mark
                )
        return super().construct_mapping(node, deep)
