"""Rows of a long benchmark, kept as they are made, so that the same command goes on where it stopped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lines import Lines


class Rows:
    """Lines of which the first says with what settings the others were made; path None keeps them in memory only.

    Raises SystemExit naming the file if it holds rows of other settings.
    """

    def __init__(self, path: Path | None, settings: dict[str, Any]):
        self.lines = Lines(path)
        kept = self.lines.found
        if kept and kept[0] != json.loads(json.dumps(settings)):
            raise SystemExit(f"{path} holds rows made with {json.dumps(kept[0])}; give the same options, another --rows or delete it")
        if not kept:
            self.lines.add(settings)
        self.found: dict[str, dict[str, Any]] = {row["row"]: row for row in kept[1:]}

    def row(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A row that is there already, or a new one."""
        if name not in self.found:
            self.found[name] = {"row": name} | make()
            self.lines.add(self.found[name])
        return self.found[name]
