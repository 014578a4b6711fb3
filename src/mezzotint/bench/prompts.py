"""Prompts of given lengths: a sentence to be found in natural text, or random ids for models without a tokenizer."""

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mezzotint.evaluation.tasks.retrieval import ask, hay
from mezzotint.generation import encode

MOST_WORDS = 2**20


def needle(words: int, seed: int) -> str:
    """`words` words of prose with one fact in it, and the question for that fact."""
    rng = random.Random(seed)
    text = " ".join(hay(rng, words)).split()[:words]
    halves = [" ".join(text[: words // 2]), " ".join(text[words // 2 :])]
    return ask([("amber", "471")], ["amber"], [half for half in halves if half], rng, False, "single").prompt


def written(tokenizer: Any, length: int, seed: int) -> Tensor:
    """The longest such prompt of at most `length` tokens, chat template included."""

    def ids(words: int) -> list[int]:
        return encode(tokenizer, needle(words, seed))

    low, high = 0, 1
    if len(ids(0)) > length:
        raise ValueError(f"length={length} is too short for a prompt with a question; accepted: {len(ids(0))} or more")
    while len(ids(high)) <= length and high < MOST_WORDS:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if len(ids(middle)) <= length else (low, middle)
    return torch.tensor(ids(low))


def prompts(lengths: Sequence[int], batch: int, *, tokenizer: Any = None, vocabulary: int = 0) -> dict[int, list[Tensor]]:
    """length -> `batch` different prompts. Without a tokenizer: random ids below `vocabulary`."""
    for length in lengths:
        if length < 1:
            raise ValueError(f"length={length} must be at least 1 token")
    if tokenizer is not None:
        return {length: [written(tokenizer, length, row) for row in range(batch)] for length in lengths}
    generator = torch.Generator().manual_seed(0)
    return {length: list(torch.randint(0, vocabulary, (batch, length), generator=generator)) for length in lengths}
