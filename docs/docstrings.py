"""Docstrings as lists: where a line describes a field or parameter (`window: positions ...`), the site shows a list item."""

import re
from typing import Any

import griffe

NAMES = r"[a-z_]\w*(?:, [a-z_]\w*)*"
FIELD = re.compile(rf"^{NAMES}: .+$")
NEXT = re.compile(rf"; (?={NAMES}: )")


class Fields(griffe.Extension):
    """Rewrites the docstrings of classes and functions while they are read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None and (obj.is_class or obj.is_function):
            obj.docstring.value = listed(obj.docstring.value)


def listed(text: str) -> str:
    """Markdown in which lines of the form `name: text`, with their continuations and what follows a semicolon in that form, are list items."""
    lines: list[str] = []
    item: list[str] = []

    def close() -> None:
        for part in NEXT.split(" ".join(item)) if item else ():
            names, _, told = part.partition(": ")
            lines.append(f"* **{names}**: {told}")
        item.clear()

    for line in text.splitlines():
        if FIELD.match(line):
            if not item and lines and lines[-1]:
                lines.append("")
            close()
            item.append(line)
        elif item and line.strip():
            item.append(line.strip())
        else:
            close()
            lines.append(line)
    close()
    return "\n".join(lines)
