"""Exact match of a model and of what was made of it, on the same built-in questions."""

from typing import Any

import mezzotint as mz
from mezzotint.evaluation.suite import answer, questions
from mezzotint.evaluation.tasks import TASKS


class Asking:
    """count: questions of all tasks together; 0 asks none. batch: how many are decoded together."""

    def __init__(self, tokenizer: Any, count: int, recipe: mz.Recipe, batch: int = 40):
        self.tokenizer, self.recipe, self.batch = tokenizer, recipe, batch
        self.questions = {task: questions(task, count // len(TASKS)) for task in TASKS} if count else {}

    def right(self, model: Any) -> dict[str, list[bool]]:
        """The verdicts, task by task."""
        return {task: [o.right for o in answer(model, self.tokenizer, some, self.recipe, batch=self.batch)] for task, some in self.questions.items()}

    def exact_match(self, model: Any) -> float | None:
        """Of all questions together; None if none is asked."""
        return rate([verdict for verdicts in self.right(model).values() for verdict in verdicts])


def rate(verdicts: list[bool]) -> float | None:
    return sum(verdicts) / len(verdicts) if verdicts else None
