"""Strategies as text: `threshold:tau=0.9` <-> Threshold(tau=0.9). One parser for the command line and JSON."""

import dataclasses
import types
import typing
from typing import Any

from mezzotint.attention import ATTENTIONS
from mezzotint.cache import CACHES
from mezzotint.commit import RULES
from mezzotint.suffix import SUFFIXES

KINDS: dict[str, dict[str, type]] = {"commit": RULES, "suffix": SUFFIXES, "cache": CACHES, "attention": ATTENTIONS}
"""Recipe field -> its registry. A new method is one file and one line in its room's registry."""


def convert(owner: str, name: str, annotation: Any, text: str) -> Any:
    """Text as a value of the annotated type. Raises ValueError naming the option, the value and what is accepted."""
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    if type(None) in options and text.lower() == "none":
        return None
    for option in options:
        try:
            if option is bool and text.lower() in ("true", "false"):
                return text.lower() == "true"
            if option in (int, float, str):
                return option(text)
        except ValueError:
            continue
    accepted = " or ".join("none" if o is type(None) else o.__name__ for o in options)
    raise ValueError(f"{owner}: {name}={text!r} is not accepted; give {accepted}")


def parse(kind: str, text: str) -> Any:
    """`NAME` or `NAME:field=value,field=value` of one registry."""
    registry = KINDS[kind]
    name, _, rest = text.partition(":")
    if name not in registry:
        raise ValueError(f"{kind}={name!r} is unknown; accepted: {', '.join(registry)}")
    cls = registry[name]
    hints = typing.get_type_hints(cls)
    fields = [f.name for f in dataclasses.fields(cls)]
    values = {}
    for part in filter(None, rest.split(",")):
        field, equals, value = part.partition("=")
        if not equals or field not in fields:
            raise ValueError(f"{kind}={name}: {part!r} is not accepted; fields: {', '.join(f'{f}=...' for f in fields) or 'none'}")
        values[field] = convert(f"{kind}={name}", field, hints[field], value)
    return cls(**values)


def write(kind: str, strategy: Any) -> str:
    """The text that `parse` reads back; fields at their defaults are left out."""
    name = next((n for n, cls in KINDS[kind].items() if type(strategy) is cls), None)
    if name is None:
        raise ValueError(f"{kind}={strategy!r} is not one of the registered ones: {', '.join(KINDS[kind])}")
    changed = [(f.name, getattr(strategy, f.name)) for f in dataclasses.fields(strategy) if getattr(strategy, f.name) != f.default]
    return name + (":" + ",".join(f"{field}={str(value).lower() if isinstance(value, bool) else value}" for field, value in changed) if changed else "")


def told(kind: str, strategy: Any) -> str:
    """What an error calls a strategy: the text of `write`, or what it says of itself if it is not registered."""
    return write(kind, strategy) if type(strategy) in KINDS[kind].values() else repr(strategy)
