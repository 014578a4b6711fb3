"""One question with a checkable answer, and the hash that keeps evaluation apart from training."""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Example:
    """A question of a task.

    prompt: what the user asks (for gap filling: the whole document, with the gap's text cut out at `gap`);
    answer: the reference response; facts: whatever the task's `score` needs; hard: beyond the lengths trained on.
    gap: (start, end) characters of `document` that are to be filled, for tasks that fill gaps instead of answering.
    """

    task: str
    prompt: str
    answer: str
    hard: bool = False
    facts: dict = field(default_factory=dict, hash=False)
    document: str = ""
    gap: tuple[int, int] = (0, 0)

    @property
    def held_out(self) -> bool:
        """True for the sixteenth of all questions that training never sees."""
        digest = hashlib.sha256((self.prompt + self.document).encode()).digest()
        return digest[0] % 16 == 0


def draw(make: Callable[[random.Random, bool], Example], rng: random.Random, *, held_out: bool, hard: bool = False) -> Iterator[Example]:
    """Endless examples of one side of the split."""
    while True:
        example = make(rng, hard)
        if example.held_out == held_out:
            yield example
