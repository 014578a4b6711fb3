"""Runs the built-in tasks: the same held-out questions for every recipe, counted, with confidence intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mezzotint.evaluation.answering import Speaker, chunks, predict
from mezzotint.evaluation.benchmarks.builtin import item, questions
from mezzotint.evaluation.intervals import paired, wilson
from mezzotint.evaluation.item import Settings
from mezzotint.evaluation.tasks import TASKS
from mezzotint.evaluation.tasks.example import Example
from mezzotint.models.transformer import Transformer
from mezzotint.recipe import Recipe

__all__ = ["Outcome", "answer", "paired", "questions", "summary", "wilson"]


@dataclass(frozen=True)
class Outcome:
    """One question answered: what was said, whether it is right, and what it cost."""

    example: Example
    text: str
    right: bool
    forwards: int
    positions: int
    seconds: float


def answer(
    model: Transformer, tokenizer: Any, examples: Sequence[Example], recipe: Recipe, *, batch: int = 16, report: Callable[[int], None] = lambda done: None
) -> list[Outcome]:
    """Answer questions of one task in batches of similar length; gaps in documents are filled one by one."""
    speaker = Speaker(model, tokenizer, recipe, Settings(), batch)
    items = [item(example, str(i)) for i, example in enumerate(examples)]
    outcomes: dict[int, Outcome] = {}
    for chunk in chunks(items, batch):
        for i, said in zip(chunk, predict(speaker, [items[i] for i in chunk], chunk), strict=True):
            example, text = examples[i], said.said["text"]
            right = TASKS[example.task].score(example, text)
            outcomes[i] = Outcome(example, text, right, said.forwards, said.positions_computed, said.seconds)
        report(len(outcomes))
    return [outcomes[i] for i in range(len(examples))]


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Exact match with its interval, and what it cost."""
    right = sum(o.right for o in outcomes)
    return {
        "exact_match": right / len(outcomes),
        "count": len(outcomes),
        "ci": wilson(right, len(outcomes)),
        "forwards": sum(o.forwards for o in outcomes),
        "positions_computed": sum(o.positions for o in outcomes),
    }
