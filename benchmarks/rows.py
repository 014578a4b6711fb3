"""Rows of a long benchmark, kept as they are made, so that the same command goes on where it stopped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Rows:
    """JSON lines, the first of which says with what settings the others were made; path None keeps them in memory only.

    Raises SystemExit naming the file if it holds rows of other settings.
    """

    def __init__(self, path: Path | None, settings: dict[str, Any]):
        self.path = path
        self.found: dict[str, dict[str, Any]] = {}
        if path is None:
            return
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if lines and json.loads(lines[0]) != json.loads(json.dumps(settings)):
            raise SystemExit(f"{path} holds rows made with {lines[0]}; give the same options, another --rows or delete it")
        self.found = {row["row"]: row for row in map(whole, lines[1:]) if row}
        text = "".join(json.dumps(line) + "\n" for line in (settings, *self.found.values()))
        path.write_text(text, encoding="utf-8")

    def row(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A row that is there already, or a new one."""
        if name not in self.found:
            self.found[name] = {"row": name} | make()
            if self.path is not None:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(self.found[name]) + "\n")
        return self.found[name]


def whole(line: str) -> dict[str, Any] | None:
    """None for a line that was cut off."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None
