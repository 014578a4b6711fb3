"""Runs the built-in tasks: the same held-out questions for every recipe, counted, with confidence intervals."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mezzotint.evaluation.tasks import TASKS
from mezzotint.evaluation.tasks.example import Example, draw
from mezzotint.generation import generate, infill
from mezzotint.models.transformer import Transformer
from mezzotint.recipe import Recipe

SEED = 20261


@dataclass(frozen=True)
class Outcome:
    """One question answered: what was said, whether it is right, and what it cost."""

    example: Example
    text: str
    right: bool
    forwards: int
    positions: int
    seconds: float


def questions(task: str, count: int, *, hard: bool = False) -> list[Example]:
    """The first `count` different held-out questions of a task, the same on every machine."""
    found: dict[tuple, Example] = {}
    patience = 0
    for example in draw(TASKS[task].make, random.Random(SEED), held_out=True, hard=hard):
        key = (example.prompt, example.document, example.gap)
        patience = patience + 1 if key in found else 0
        found.setdefault(key, example)
        if len(found) == count:
            return list(found.values())
        if patience > 2000:
            raise ValueError(f"count={count} is more than the different held-out questions of task {task!r}, of which there are about {len(found)}")
    raise AssertionError("draw is endless")


def answer(
    model: Transformer, tokenizer: Any, examples: Sequence[Example], recipe: Recipe, *, batch: int = 16, report: Callable[[int], None] = lambda done: None
) -> list[Outcome]:
    """Answer questions of one task in batches of similar length; gaps in documents are filled one by one."""
    outcomes: dict[int, Outcome] = {}
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].prompt))
    chunks = [order[i : i + batch] for i in range(0, len(order), batch)]
    for chunk in chunks:
        rows = [examples[i] for i in chunk]
        if rows[0].document:
            outcomes.update(zip(chunk, (fill(model, tokenizer, e, recipe) for e in rows), strict=True))
        else:
            results = generate(model, tokenizer, [e.prompt for e in rows], recipe)
            for i, example, result in zip(chunk, rows, results, strict=True):
                right = TASKS[example.task].score(example, result.text)
                outcomes[i] = Outcome(example, result.text, right, result.forwards, result.positions_computed, result.seconds)
        report(len(outcomes))
    return [outcomes[i] for i in range(len(examples))]


def fill(model: Transformer, tokenizer: Any, example: Example, recipe: Recipe) -> Outcome:
    """Fill a document's gap with as many masks as the reference has tokens."""
    start, end = example.gap
    masks = len(tokenizer(example.answer, add_special_tokens=False)["input_ids"])
    text = f"{example.document[:start]}[[{masks}]]{example.document[end:]}"
    result = infill(model, tokenizer, text, recipe.with_(steps=None, max_tokens=None))
    right = TASKS[example.task].score(example, result.fills[0])
    return Outcome(example, result.fills[0], right, result.forwards, result.positions_computed, result.seconds)


def wilson(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson, 1927), which stays inside [0, 1] and is honest near the ends."""
    p, spread = right / total, z * z / total
    centre = (p + spread / 2) / (1 + spread)
    half = z * math.sqrt(p * (1 - p) / total + spread / (4 * total)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def paired(mine: Sequence[bool], plain: Sequence[bool], draws: int = 2000) -> dict[str, Any]:
    """Difference in exact match on the same questions: mean, bootstrap 95 % interval, and how many verdicts changed."""
    difference = torch.tensor(mine, dtype=torch.float64) - torch.tensor(plain, dtype=torch.float64)
    generator = torch.Generator().manual_seed(SEED)
    picks = torch.randint(len(difference), (draws, len(difference)), generator=generator)
    means = difference[picks].mean(1).sort().values
    interval = (float(means[int(0.025 * draws)]), float(means[int(0.975 * draws)]))
    return {"difference": float(difference.mean()), "ci": interval, "changed": int((difference != 0).sum())}


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
