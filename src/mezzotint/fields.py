"""Checks of a strategy's fields, so that a wrong type is refused where it was written."""

import dataclasses
import math
import types
import typing
from typing import Any


def check(owner: str, strategy: Any) -> None:
    """Refuse fields whose values are not of the annotated plain types (whole number, finite number, true or false, text), naming field and value."""
    hints = typing.get_type_hints(type(strategy))
    for field in dataclasses.fields(strategy):
        annotation = hints[field.name]
        accepted = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
        value = getattr(strategy, field.name)
        if not any(fits(value, kind) for kind in accepted):
            names: dict[type, str] = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}
            raise ValueError(f"{owner} {field.name}={value!r} must be {' or '.join(names[kind] for kind in accepted)}")


def fits(value: Any, kind: type) -> bool:
    if kind in (int, float):
        return not isinstance(value, bool) and isinstance(value, (int, float) if kind is float else int) and math.isfinite(value)
    return isinstance(value, kind)
