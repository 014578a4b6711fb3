"""Finding things in a long text, in the manner of RULER (arXiv 2404.06654): needles in hay, and variable tracking."""

import random
import re
from collections.abc import Sequence

from mezzotint.evaluation.tasks.example import Example
from mezzotint.evaluation.tasks.prose import paragraphs
from mezzotint.evaluation.tasks.words import KEYS

KINDS = ("single", "keys", "values", "tracking")


def hay(rng: random.Random, words: int) -> list[str]:
    """Sentences of natural text, about `words` words of them."""
    sentences: list[str] = []
    count = 0
    while count < words:
        for sentence in re.split(r"(?<=[.!?])\s+", rng.choice(paragraphs())):
            sentences.append(sentence)
            count += len(sentence.split())
            if count >= words:
                break
    return sentences


def scatter(rng: random.Random, needles: list[str], sentences: list[str]) -> str:
    """The needles in their order, at random places between the sentences."""
    places = sorted(rng.randint(0, len(sentences)) for _ in needles)
    pieces, before = [], 0
    for place, needle in zip(places, needles, strict=True):
        pieces += [*sentences[before:place], needle]
        before = place
    return " ".join([*pieces, *sentences[before:]])


def number(rng: random.Random) -> str:
    return str(rng.randint(100, 999))


def needles(rng: random.Random, kind: str, hard: bool, words: int) -> Example:
    """`single`: one pair in hay; `keys`: many pairs, some asked; `values`: several values of one key."""
    pairs = {"single": 1, "keys": rng.randint(10, 20) if hard else rng.randint(2, 8), "values": rng.randint(2, 4)}[kind]
    keys = rng.sample(KEYS, pairs)
    stated = [(key, number(rng)) for key in keys]
    asked = keys[:1] if kind == "single" else rng.sample(keys, rng.randint(1, min(4, pairs)))
    if kind == "values":
        asked = keys[:1]
        stated += [(asked[0], number(rng)) for _ in range(rng.randint(1, 2))]
    rng.shuffle(stated)
    return ask(stated, asked, hay(rng, words), rng, hard, kind)


def ask(stated: list[tuple[str, str]], asked: Sequence[str], sentences: list[str], rng: random.Random, hard: bool, kind: str) -> Example:
    """The question for the codes of `asked`; the answer repeats what the text says of them."""
    text = scatter(rng, [f"The code of {key} is {value}." for key, value in stated], sentences)
    answer = " ".join(f"The code of {key} is {value}." for wanted in asked for key, value in stated if key == wanted)
    return Example("retrieval", f"{text}\nWhat are the codes of {', '.join(asked)}?", answer, hard, {"kind": kind})


def drill(rng: random.Random) -> Example:
    """No hay, for training only: pairs, all of them asked (the dense way to learn looking things up), keys of one to three values, or chains."""
    kind = rng.choice(("keys", "values", "values", "tracking", "tracking"))
    if kind == "tracking":
        return tracking(rng, False, 0)
    keys = rng.sample(KEYS, rng.randint(3, 7) if kind == "keys" else rng.randint(1, 4))
    stated = [(key, number(rng)) for key in keys for _ in range(1 if kind == "keys" else rng.randint(1, 3))]
    rng.shuffle(stated)
    return ask(stated, rng.sample(keys, len(keys)), [], rng, False, kind)


def tracking(rng: random.Random, hard: bool, words: int) -> Example:
    """Chains of assignments; asked for every word that carries one value, in order of appearance."""
    length = rng.randint(5, 7) if hard else rng.randint(2, 4)
    names = rng.sample(KEYS, 2 * length)
    chains = [names[:length], names[length : length + rng.randint(1, length)]]
    values = [number(rng), number(rng)]
    queues = [[f"Let {b} = {a}." for a, b in zip([v, *c], c, strict=False)] for c, v in zip(chains, values, strict=True)]
    lines: list[str] = []
    while any(queues):
        lines.append(rng.choice([q for q in queues if q]).pop(0))
    text = scatter(rng, lines, hay(rng, words))
    return Example("retrieval", f"{text}\nWhich words are {values[0]}?", f"Answer: {' '.join(chains[0])}", hard, {"kind": "tracking"})


def make(rng: random.Random, hard: bool, words: int | None = None) -> Example:
    """Contexts up to about 250 tokens (`words` words of hay); hard: up to about 2,000, more keys, longer chains."""
    kind = rng.choice(KINDS)
    if words is None:
        words = rng.randint(300, 900) if hard else rng.choice((0, 0, 10, 20, 40, 80))
    if kind == "single":
        words = max(words, 10)
    return tracking(rng, hard, words) if kind == "tracking" else needles(rng, kind, hard, words)


def score(example: Example, text: str) -> bool:
    """Everything asked is there in its order, and nothing else."""
    return text.split() == example.answer.split()
