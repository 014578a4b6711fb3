"""Lists to copy, reverse, sort and count, as the instruction says."""

import random

from mezzotint.evaluation.tasks.example import Example
from mezzotint.evaluation.tasks.words import KEYS


def make(rng: random.Random, hard: bool) -> Example:
    """3–7 items, numbers below 10; hard: 10–14, numbers below 100."""
    size = rng.randint(10, 14) if hard else rng.randint(3, 7)
    kind = rng.choice(("copy", "reverse", "sort", "sort", "count"))
    if kind == "sort":
        numbers = rng.sample(range(100 if hard else 10), size)
        up = rng.random() < 0.5
        order = "from small to large" if up else "from large to small"
        prompt = f"Sort {order}: {' '.join(map(str, numbers))}"
        answer = " ".join(map(str, sorted(numbers, reverse=not up)))
    elif kind == "count":
        return count(rng, hard, size)
    else:
        words = rng.sample(KEYS, size)
        prompt = f"{kind.capitalize()} these words: {' '.join(words)}"
        answer = " ".join(words if kind == "copy" else reversed(words))
    return Example("lists", prompt, f"Answer: {answer}", hard, {"kind": kind})


def count(rng: random.Random, hard: bool = False, size: int | None = None, asked: int = 1) -> Example:
    """How often words stand in a list; the answer repeats each before its number."""
    few = rng.sample(KEYS, 3)
    words = [rng.choice(few) for _ in range(size or rng.randint(3, 7))]
    question = f"How often does {few[0]} occur?" if asked == 1 else f"How often do {', '.join(few[:asked])} occur?"
    answer = " ".join(f"{word} {words.count(word)}" for word in few[:asked])
    return Example("lists", f"{question} {' '.join(words)}", f"Answer: {answer}", hard, {"kind": "count"})


def drill(rng: random.Random) -> Example:
    """Counting several words of one list, for training only."""
    return count(rng, asked=rng.choice((1, 2, 3, 3)))


def score(example: Example, text: str) -> bool:
    return text.split() == example.answer.split()
