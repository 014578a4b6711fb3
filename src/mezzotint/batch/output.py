"""The answers' file: one JSON object a line, each on disk before it counts, so that a run that was killed goes on where it stopped."""

import json
from pathlib import Path
from typing import IO, Any

from mezzotint.appending import append, open_to_append
from mezzotint.batch.questions import Question


class Output:
    """Use it as a context; a second run on the same file is refused meanwhile.

    conditions: everything but the question that an answer depends on. known: id -> digest of what was answered before and now.
    """

    def __init__(self, path: Path, conditions: str):
        self.path, self.conditions = path, conditions
        self.known: dict[str, str] = {}
        self.file: IO[bytes] | None = None

    def __enter__(self) -> "Output":
        self.file = open_to_append(self.path, b'{"id": ')
        try:
            self._read()
        except ValueError:
            self.file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self.file is not None
        self.file.close()

    def _read(self) -> None:
        with self.path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                try:
                    row = json.loads(raw)
                    self.known[row["id"]] = row["asked"]
                except (ValueError, KeyError, TypeError):
                    raise ValueError(f"{self.path} line {number} is not an answer of a batch; give another --output") from None

    def answered(self, question: Question) -> bool:
        """Whether the question has its answer. Raises ValueError if its id has one to another question, or under other settings."""
        before = self.known.get(question.id)
        if before is not None and before != question.digest(self.conditions):
            raise ValueError(
                f"{self.path} has an answer to id {question.id!r} (now line {question.number}) that was asked differently or under other settings; "
                "give another --output, or delete it"
            )
        return before is not None

    def add(self, question: Question, row: dict[str, Any]) -> bool:
        """Write an answer. False, and nothing is written, if the question has one already."""
        assert self.file is not None
        if question.id in self.known:
            return False
        asked = question.digest(self.conditions)
        append(self.file, json.dumps({"id": question.id, "line": question.number, **row, "asked": asked}, ensure_ascii=False) + "\n")
        self.known[question.id] = asked
        return True
