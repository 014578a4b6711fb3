"""Checks of a strategy's fields, so that a wrong type is refused where it was written."""

import dataclasses
import math
import types
import typing
from typing import Any

MOST = 2**31 - 1
KIND_NAMES: dict[type, str] = {int: f"a whole number up to {MOST}", float: "a finite number", bool: "true or false", str: "text"}


def check(owner: str, strategy: Any) -> None:
    """Refuse fields whose values are not of the annotated plain types (whole number, finite number, true or false, text), naming field and value.

    Fields of other types are their owner's to check.
    """
    hints = typing.get_type_hints(type(strategy))
    for field in dataclasses.fields(strategy):
        annotation = hints[field.name]
        accepted = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
        value = getattr(strategy, field.name)
        if KIND_NAMES.keys() >= set(accepted) and not any(fits(value, kind) for kind in accepted):
            raise ValueError(f"{owner} {field.name}={value!r} must be {' or '.join(KIND_NAMES[kind] for kind in accepted)}")


def fits(value: Any, kind: type) -> bool:
    """Whether a value is of a plain type. Numbers are not boolean, and no tensor can hold whole ones beyond `MOST`."""
    if kind in (int, float) and isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= MOST
    if kind is float:
        return isinstance(value, float) and math.isfinite(value)
    return isinstance(value, kind)
