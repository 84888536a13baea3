"""Contradictions between the fields of a recipe, each explained with the change that mends it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Values = Mapping[str, Any]
HEAD = "all-but-head"
# Data sets without a validation part of their own.
WITHOUT_VALIDATION = ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100")


def contradictions(recipe: Values) -> list[str]:
    """Every contradiction in `recipe` (all fields by name), as lines that start with the field."""
    return []
