"""Rows of a long benchmark, kept as they are made, so that the same command goes on where it stopped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lines import Lines

from mezzotint import __version__


class Rows:
    """Lines of which the first says with what settings the others were made, threads and versions among them; path None keeps them in memory only.

    Raises SystemExit naming the file and what differs if it holds rows of other settings.
    """

    def __init__(self, path: Path | None, settings: dict[str, Any]):
        self.lines = Lines(path)
        kept = self.lines.found
        here = settings | {"threads": torch.get_num_threads(), "torch": torch.__version__, "mezzotint": __version__}
        settings = json.loads(json.dumps(here))
        if kept and kept[0] != settings:
            name = next(name for name in (*settings, *kept[0]) if (name in kept[0], kept[0].get(name)) != (name in settings, settings.get(name)))
            made, now = (json.dumps(found.get(name)) for found in (kept[0], settings))
            raise SystemExit(f"{path} holds rows made with {name}={made}, this is {now}; make them alike, give another --rows or delete it")
        if not kept:
            self.lines.add(settings)
        self.found: dict[str, dict[str, Any]] = {row["row"]: row for row in kept[1:]}

    def row(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A row that is there already, or a new one."""
        if name not in self.found:
            self.found[name] = {"row": name} | make()
            self.lines.add(self.found[name])
        return self.found[name]
