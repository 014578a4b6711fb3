"""The run-time type checker of the tests: beartype, with ints accepted where floats are asked for.

jaxtyping makes two functions of every signature, which hold nothing but it, has them decorated here, and calls them with what its function is called with. Two
things are not done again: decorating an equal signature (a function inside another is defined anew with every call of that one), and checking arguments of
types, dtypes and shapes that have passed. Together they halve the time of tests that decode.
"""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from beartype import BeartypeConf, beartype

decorate = beartype(conf=BeartypeConf(is_pep484_tower=True))
DECORATED: dict[tuple, Callable[..., None]] = {}


def check(function: Callable[..., Any]) -> Callable[..., None]:
    """The function, refusing arguments and results that are not what its signature says."""
    if "<locals>" not in function.__qualname__ or function.__defaults__ or function.__kwdefaults__:
        return once(decorate(function))
    notes = function.__annotations__
    key = (function.__module__, function.__qualname__, function.__code__.co_varnames, function.__code__.co_code, *notes, *map(id, notes.values()))
    if key not in DECORATED:
        DECORATED[key] = once(decorate(function))
    return DECORATED[key]


def once(checked: Callable[..., Any]) -> Callable[..., None]:
    """A check that does not repeat what has passed. Containers are always looked into."""
    passed: set[tuple] = set()

    def check(*args: Any, **kwargs: Any) -> None:
        forms = (*map(form, args), *kwargs, *map(form, kwargs.values()))
        if forms not in passed:
            checked(*args, **kwargs)
            if None not in forms:
                passed.add(forms)

    return check


def form(value: Any) -> Hashable:
    """All of a value that a type can speak of; None where it would take a longer look."""
    if isinstance(value, torch.Tensor):
        return type(value), value.dtype, value.shape
    return None if isinstance(value, list | tuple | dict | set | frozenset) else type(value)
