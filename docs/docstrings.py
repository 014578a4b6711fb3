"""Docstrings as lists: where a line describes a field or parameter (`window: positions ...`), the site shows a list item."""

import re
from typing import Any

import griffe

FIELD = re.compile(r"^(?P<names>[a-z_]\w*(?:, [a-z_]\w*)*): (?P<text>.+)$")


class Fields(griffe.Extension):
    """Rewrites the docstrings of classes and functions while they are read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None and (obj.is_class or obj.is_function):
            obj.docstring.value = listed(obj.docstring.value)


def listed(text: str) -> str:
    """Markdown in which lines of the form `name: text`, with their continuations, are list items."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        match = FIELD.match(line)
        if match is not None:
            lines += ["", *[f"* **{match['names']}**: {match['text']}"]] if not inside else [f"* **{match['names']}**: {match['text']}"]
            inside = True
        elif inside and not line.strip():
            lines.append("")
            inside = False
        elif inside:
            lines.append("    " + line.strip())
        else:
            lines.append(line)
    return "\n".join(lines)
