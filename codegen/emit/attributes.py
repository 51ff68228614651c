"""Attributes of nodes, as the op registry has checked them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...ir import Node


def attributes_of(node: Node) -> Mapping[str, Any]:
    """The attributes of ``node``; what type each has is the definition of its operation, which type inference has enforced."""
    return node.attributes
