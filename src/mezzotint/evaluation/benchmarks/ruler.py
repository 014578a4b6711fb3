"""Long contexts in the manner of RULER (arXiv 2404.06654), made for any tokenizer at any length: needles, variable tracking, aggregation.

Every item fills its length exactly as far as whole sentences allow: prompt, chat template and the canvas for the answer together.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mezzotint.evaluation.item import Benchmark, Item, Question, Settings
from mezzotint.evaluation.tasks.prose import paragraphs
from mezzotint.evaluation.tasks.retrieval import scatter
from mezzotint.evaluation.tasks.words import KEYS
from mezzotint.generation import encode
from mezzotint.models.config import ModelConfig
from mezzotint.recipe import Recipe

ITEMS = 20
"""Items of each kind and length unless --count says otherwise."""

LARGEST, MADE_UP = 4_000_000, 200_000
"""The longest text in tokens, and the most words that are made up for it, of 512,000 possible ones."""


@dataclass(frozen=True)
class Text:
    """A prompt and the strings its answer must hold."""

    prompt: str
    wanted: tuple[str, ...]


def names(rng: random.Random, count: int) -> list[str]:
    """Different names: single words while they last, then pairs of them, then threes beside all pairs."""
    words = len(KEYS)
    if count <= words:
        return rng.sample(KEYS, count)
    pairs, threes = rng.sample(range(words**2), min(count, words**2)), rng.sample(range(words**3), max(0, count - words**2))
    joined = [f"{KEYS[i // words]}-{KEYS[i % words]}" for i in pairs]
    return joined + [f"{KEYS[i // words**2]}-{KEYS[i // words % words]}-{KEYS[i % words]}" for i in threes]


def numbers(rng: random.Random, count: int) -> list[str]:
    """Different numbers of three digits, or of seven where three would run short."""
    return [str(n) for n in rng.sample(range(100, 1000) if count <= 300 else range(10**6, 10**7), count)]


def hay(rng: random.Random, sentences: int) -> list[str]:
    """Sentences of natural text, beginning anywhere; the text repeats where it is too short."""
    source = [s for paragraph in rng.sample(paragraphs(), len(paragraphs())) for s in re.split(r"(?<=[.!?])\s+", paragraph)]
    return [source[i % len(source)] for i in range(sentences)]


def codes(pairs: list[tuple[str, str]]) -> list[str]:
    return [f"The code of {key} is {value}." for key, value in pairs]


def asked(text: str, keys: list[str], pairs: list[tuple[str, str]]) -> Text:
    return Text(f"{text}\nWhat are the codes of {', '.join(keys)}?", tuple(value for key in keys for k, value in pairs if k == key))


def needles(keys: int, values: int, queries: int) -> Callable[[random.Random, int], Text]:
    """`keys` needles in natural text, of which `queries` are asked; each key has `values` codes."""

    def make(rng: random.Random, size: int) -> Text:
        chosen, found = names(rng, keys), numbers(rng, keys * values)
        pairs = [(key, found[i * values + j]) for i, key in enumerate(chosen) for j in range(values)]
        wanted = rng.sample(chosen, queries)
        rng.shuffle(pairs)
        return asked(scatter(rng, codes(pairs), hay(rng, size)), wanted, pairs)

    return make


def dense(rng: random.Random, size: int) -> Text:
    """Nothing but needles, one of them asked."""
    keys = names(rng, size + 1)
    pairs = list(zip(keys, numbers(rng, size + 1), strict=True))
    wanted = rng.choice(keys)
    rng.shuffle(pairs)
    return asked(" ".join(codes(pairs)), [wanted], pairs)


def tracking(rng: random.Random, size: int) -> Text:
    """One chain of four assignments from a value, and a second chain that leads astray; every name of the first is wanted."""
    chains = [rng.sample([f"{letter}{digit}" for letter in half for digit in range(1, 10)], 5) for half in ("ACEGJL", "BDFHKM")]
    values = numbers(rng, 2)
    queues = [[f"{c[0]} = {v}."] + [f"{b} = {a}." for a, b in zip(c, c[1:], strict=False)] for c, v in zip(chains, values, strict=True)]
    lines: list[str] = []
    while any(queues):
        lines.append(rng.choice([q for q in queues if q]).pop(0))
    return Text(f"{scatter(rng, lines, hay(rng, size))}\nWhich variables are {values[0]}?", tuple(chains[0]))


def common(rng: random.Random, size: int) -> Text:
    """A numbered list of words in which ten appear three to ten times, the longer the list the oftener, and the others once; the ten are wanted."""
    words = names(rng, 10 + size)
    listed = words[:10] * (3 + min(7, size // 20)) + words[10:]
    rng.shuffle(listed)
    text = " ".join(f"{i}. {word}" for i, word in enumerate(listed, 1))
    return Text(f"{text}\nSome words appear often in this list, the others once. Which 10 words appear most often?", tuple(words[:10]))


def frequent(rng: random.Random, size: int) -> Text:
    """Made-up words whose frequencies fall with the square of their rank; the three most frequent after the dots are wanted."""
    found: dict[str, None] = {}
    while len(found) < max(4, min(size // 25, MADE_UP)):
        found.setdefault("".join(rng.choice("bcdfghklmnprstvz") + rng.choice("aeiou") for _ in range(3)))
    vocabulary = list(found)
    total = sum(rank**-2 for rank in range(1, len(vocabulary) + 2))
    written = ["..."] * max(1, round(size / total))
    for rank, word in enumerate(vocabulary, 2):
        written += [word] * max(1, round(size * rank**-2 / total))
    counts = [written.count(word) for word in vocabulary[:4]]
    for place, word in enumerate(vocabulary[:3]):  # rounding must not leave a tie
        written += [word] * max(0, counts[place + 1] + 1 - counts[place]) if counts[place] <= counts[place + 1] else []
        counts[place] = max(counts[place], counts[place + 1] + 1)
    rng.shuffle(written)
    return Text(f"{' '.join(written)}\nLeave the dots aside. Which 3 words appear most often in the text above?", tuple(vocabulary[:3]))


KINDS: dict[str, Callable[[random.Random, int], Text]] = {
    "single": needles(1, 1, 1),
    "multikey": needles(8, 1, 1),
    "multikey-dense": dense,
    "multivalue": needles(1, 4, 1),
    "multiquery": needles(8, 1, 4),
    "tracking": tracking,
    "common": common,
    "frequent": frequent,
}
"""Kind -> maker of a text from a generator and a size (sentences, needles or words beyond the least)."""


def fitted(kind: str, seed: str, room: int, tokens: Callable[[str], int]) -> Text:
    """The longest text of a kind whose prompt has at most `room` tokens. Raises ValueError if not even the shortest fits."""

    def make(size: int) -> Text:
        return KINDS[kind](random.Random(seed), size)

    least = tokens(make(0).prompt)
    if least > room:
        raise ValueError(
            f"ruler {kind} needs a prompt of at least {least} tokens, and {room} are left beside the answer; give a larger --lengths or a smaller --gen-length"
        )
    low, high = 0, 8
    while tokens(make(high).prompt) <= room:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if tokens(make(middle).prompt) <= room:
            low = middle
        else:
            high = middle
    return make(low)


def items(settings: Settings, tokenizer: Any, recipe: Recipe, config: ModelConfig) -> list[Item]:
    """`count` items of every kind at every length; the length counts prompt and canvas together."""
    ahead = recipe.max_tokens or recipe.gen_length
    found: list[Item] = []
    for length in settings.lengths:
        if length > min(LARGEST, config.reach):
            raise ValueError(f"lengths: {length} exceeds the model's {config.context}; choose a shorter one or a rope scaling (e.g. --rope-scaling ntk:2)")
        for kind in KINDS:
            for i in range(settings.count or ITEMS):
                name = f"{kind}@{length}-{i:03d}"
                text = fitted(kind, f"{settings.seed} {name}", length - ahead, lambda prompt: len(encode(tokenizer, prompt, chat=settings.chat)))
                found.append(Question(name, f"{kind}@{length}", {"wanted": list(text.wanted)}, prompt=text.prompt, chat=settings.chat))
    return found


def score(facts: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """recall, RULER's figure (its string_match_all): the share of the wanted strings that stand anywhere in the answer, in capitals or not; exact_match: all
    of them do, as whole words, so that 4711 is not taken for 471."""
    text, wanted = said["text"].lower(), [one.lower() for one in facts["wanted"]]
    words = set(re.findall(r"[\w-]+", text))
    return {"exact_match": words.issuperset(wanted), "recall": sum(one in text for one in wanted) / len(wanted)}


RULER = Benchmark("needles, tracking and aggregation at any length", items, score, uses=("count", "chat", "lengths"), compared="recall")
