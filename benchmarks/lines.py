"""A JSON Lines file that a benchmark adds to as it goes, so that the same command goes on where it was cut off."""

import json
from pathlib import Path
from typing import Any

from mezzotint.appending import append, mend


class Lines:
    """`found` is what stood in the file; what is added is on disk before the next is made, and a line that a kill cut short is gone. None: nothing is kept."""

    def __init__(self, path: Path | None):
        self.file, self.found = None, []
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("a+b")
        mend(self.file, b"{")
        self.file.seek(0)
        self.found: list[dict[str, Any]] = [json.loads(line) for line in self.file]

    def add(self, line: dict[str, Any]) -> None:
        if self.file is not None:
            append(self.file, json.dumps(line) + "\n")
