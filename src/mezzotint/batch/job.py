"""A whole batch: what is left to be asked, and its answers on disk."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mezzotint.batch.answering import Outcome
from mezzotint.batch.output import Output
from mezzotint.batch.questions import Question, Unanswerable, questions
from mezzotint.engine import EngineSettings
from mezzotint.recipe import Recipe

CAPACITY = ("device", "running", "waiting", "rows", "length", "memory", "seconds", "tensor_parallel")
"""Fields of EngineSettings that no answer depends on."""


def conditions(settings: EngineSettings, recipe: Recipe, seed: int) -> str:
    """Everything but the question that an answer depends on."""
    model = {name: value for name, value in asdict(settings).items() if name not in CAPACITY}
    if settings.model is not None and Path(settings.model).expanduser().is_dir():
        model["model"] = str(Path(settings.model).expanduser().resolve())
    return json.dumps({"model": model, "recipe": recipe.to_dict(), "seed": seed}, sort_keys=True)


@dataclass
class Tally:
    """lines: questions in the input; before: those that had an answer; answered: in this run; wrong: lines without one, and why; completion_tokens,
    forwards (of the runs, each counted for itself): of this run's answers."""

    lines: int = 0
    before: int = 0
    answered: int = 0
    completion_tokens: int = 0
    forwards: int = 0
    wrong: list[Unanswerable] = field(default_factory=list)


class Job:
    """Answers a file into an opened `Output`. on_change is told whenever a line is settled, on_wrong of every line that cannot be answered."""

    def __init__(self, input: Path, output: Output, on_change: Callable[[Tally], None], on_wrong: Callable[[Unanswerable], None]):
        self.input, self.output, self.on_change, self.on_wrong = input, output, on_change, on_wrong
        self.tally = Tally()

    def survey(self) -> int:
        """Read the input once, report what is wrong with it, and say how many questions are left. Raises ValueError if the output belongs to another batch."""
        for question in questions(self.input):
            self.tally.lines += 1
            if isinstance(question, Unanswerable):
                self.refuse(question)
            else:
                self.tally.before += self.output.answered(question)
        return self.tally.lines - self.tally.before - len(self.tally.wrong)

    def left(self) -> Iterator[Question]:
        """The questions that have no answer yet."""
        for question in questions(self.input):
            if isinstance(question, Question) and not self.output.answered(question):
                yield question

    def take(self, outcomes: Iterable[Outcome]) -> None:
        """Have every answer on disk before the next is asked for."""
        for question, found in outcomes:
            if isinstance(found, Unanswerable):
                self.refuse(found)
            elif self.output.add(question, found):
                self.tally.answered += 1
                self.tally.completion_tokens += found["completion_tokens"]
                self.tally.forwards += found["forwards"]
            self.on_change(self.tally)

    def refuse(self, wrong: Unanswerable) -> None:
        self.tally.wrong.append(wrong)
        self.on_wrong(wrong)

    def summary(self) -> dict[str, Any]:
        tally = self.tally
        counts = {"lines": tally.lines, "answered_before": tally.before, "answered": tally.answered, "unanswerable": len(tally.wrong)}
        costs = {"completion_tokens": tally.completion_tokens, "forwards": tally.forwards}
        return counts | costs | {"errors": [{"line": wrong.number, "id": wrong.id, "error": wrong.reason} for wrong in tally.wrong]}
