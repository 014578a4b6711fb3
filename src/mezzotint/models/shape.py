"""What is left of a layer whose heads and neurons were removed, and how a checkpoint says so."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

FIELD = "mezzotint_pruned"
"""The key of config.json that holds the sizes of a pruned checkpoint's layers."""


@dataclass(frozen=True)
class Shape:
    """Sizes of one layer. heads: query heads, the same number for each of the kv_heads; compensated: the output projections of attention and MLP have a bias
    that stands for the mean of what was removed."""

    heads: int
    kv_heads: int
    mlp_size: int
    compensated: bool = True


def read_shapes(raw: dict[str, Any], layers: int, heads: int, kv_heads: int, mlp_size: int) -> tuple[Shape, ...]:
    """The layers' shapes from config.json, () if it is not a pruned checkpoint's. Raises ValueError naming the field that does not fit."""
    found = raw.get(FIELD)
    if found is None:
        return ()
    if not isinstance(found, dict):
        raise ValueError(f"config.json: {FIELD} must be an object")
    columns = []
    for name, most in (("n_heads_per_layer", heads), ("n_kv_heads_per_layer", kv_heads), ("intermediate_per_layer", mlp_size)):
        values = found.get(name)
        if not isinstance(values, list) or len(values) != layers or not all(type(v) is int and 1 <= v <= most for v in values):
            raise ValueError(f"config.json: {FIELD}.{name} must list {layers} whole numbers from 1 to {most}")
        columns.append(values)
    compensated = found.get("compensated")
    if not isinstance(compensated, bool):
        raise ValueError(f"config.json: {FIELD}.compensated={compensated!r} must be true or false")
    shapes = tuple(Shape(h, kv, size, compensated) for h, kv, size in zip(*columns, strict=True))
    uneven = next((shape for shape in shapes if shape.heads % shape.kv_heads), None)
    if uneven is not None:
        raise ValueError(f"config.json: {FIELD} has a layer with {uneven.heads} heads, which do not divide among its {uneven.kv_heads} key heads")
    return shapes


def write_shapes(shapes: Sequence[Shape]) -> dict[str, Any]:
    """What `read_shapes` reads back."""
    return {
        "n_heads_per_layer": [shape.heads for shape in shapes],
        "n_kv_heads_per_layer": [shape.kv_heads for shape in shapes],
        "intermediate_per_layer": [shape.mlp_size for shape in shapes],
        "compensated": any(shape.compensated for shape in shapes),
    }
