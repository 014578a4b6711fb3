"""The built-in tasks as a benchmark: questions made by code, with a harder half that gets figures of its own."""

import functools
import random
from dataclasses import asdict
from typing import Any

from mezzotint.evaluation.item import Benchmark, Gap, Item, Question, Settings
from mezzotint.evaluation.tasks import TASKS
from mezzotint.evaluation.tasks.example import Example, draw

HARD = "hard"
SEED = 20261


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


@functools.cache
def fills_gaps(task: str) -> bool:
    """Whether a task's questions are gaps in documents."""
    return bool(questions(task, 1)[0].document)


def item(example: Example, id: str) -> Item:
    facts = asdict(example)
    part = HARD if example.hard else ""
    if example.document:
        return Gap(id, part, facts, document=example.document, gap=example.gap)
    return Question(id, part, facts, prompt=example.prompt)


def example(facts: dict[str, Any]) -> Example:
    """The example an item was made of, read back from its facts."""
    start, end = facts["gap"]
    return Example(**{name: value for name, value in facts.items() if name != "gap"}, gap=(start, end))


def score(facts: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    return {"exact_match": TASKS[facts["task"]].score(example(facts), said["text"])}


def benchmark(task: str, hard: int) -> Benchmark:
    """The held-out questions of a task and `hard` of its harder ones."""

    def items(settings: Settings, *_: Any) -> list[Item]:
        easy = questions(task, settings.count or 1)
        harder = questions(task, hard, hard=True) if hard else []
        return [item(e, f"{i:05d}") for i, e in enumerate(easy)] + [item(e, f"{HARD}-{i:05d}") for i, e in enumerate(harder)]

    about = (TASKS[task].__doc__ or task).splitlines()[0]
    return Benchmark(about, items, score, uses=("count", "hard_count"), recipe="gaps" if fills_gaps(task) else "all")
