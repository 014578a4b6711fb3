"""What a model can be asked: a question, a gap in a document, a choice, a stretch of text. Everything that is evaluated is one of the four."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

OF_ANSWERS = ("steps", "max_tokens", "early_stop")
"""Recipe fields that say something of answers and nothing of gaps, whose sizes are given."""


@dataclass(frozen=True)
class Item:
    """id: unique in its task; part: a subtask that gets a figure of its own; facts: JSON values that scoring needs besides what the model said."""

    id: str
    part: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Roughly how long it is, so that items of similar length can be run together."""
        return 0

    @property
    def digest(self) -> str:
        """Tells an item from another of the same id, e.g. after the data were changed."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True, default=str).encode("utf-8", "surrogatepass")).hexdigest()[:12]


@dataclass(frozen=True)
class Question(Item):
    """To be answered freely; the answer ends before the first string of `until`. chat: as one user turn (None: if the tokenizer has a template)."""

    prompt: str = ""
    until: tuple[str, ...] = ()
    chat: bool | None = None

    @property
    def length(self) -> int:
        return len(self.prompt)


@dataclass(frozen=True)
class Gap(Item):
    """Characters [gap[0], gap[1]) of a document, to be filled with as many tokens as they have now."""

    document: str = ""
    gap: tuple[int, int] = (0, 0)

    @property
    def length(self) -> int:
        return len(self.document)


@dataclass(frozen=True)
class Choice(Item):
    """Which of several continuations of a text is the likeliest. greedy: also whether decoding greedily gives each of them."""

    prompt: str = ""
    choices: tuple[str, ...] = ()
    greedy: bool = False

    @property
    def length(self) -> int:
        return len(self.prompt)


@dataclass(frozen=True)
class Passage(Item):
    """How likely ids[start:] is after ids[:start]. measure: "elbo", "masked", "suffix" or "suffixes" (see `likelihood`)."""

    ids: tuple[int, ...] = ()
    start: int = 0
    measure: str = "elbo"

    @property
    def length(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Settings:
    """What a benchmark is asked with, all of it written into every prediction.

    data: a file, a folder or a hub id (None: the benchmark's own); split: which part of the data (None: the benchmark's own);
    shots: worked examples in the prompt; count: how many items (None: all), for RULER of each kind and length;
    chat: None wraps the prompt in a user turn if the tokenizer has a template; samples: Monte-Carlo draws for likelihoods;
    lengths: total lengths in tokens (RULER); window, context: tokens scored together and tokens before them (WikiText);
    cfg_scale: guidance for likelihoods; seed: of every random draw.
    """

    data: str | None = None
    split: str | None = None
    shots: int | None = None
    count: int | None = None
    chat: bool | None = None
    samples: int = 32
    lengths: tuple[int, ...] = (4096,)
    window: int | None = None
    context: int | None = None
    cfg_scale: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("shots", 0), ("count", 1), ("samples", 1), ("window", 1), ("context", 0), ("cfg_scale", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}={value} must be at least {least}")
        if not self.lengths or any(length < 1 for length in self.lengths):
            raise ValueError(f"lengths={list(self.lengths)} must be numbers of tokens, at least one")


@dataclass(frozen=True)
class Benchmark:
    """A set of items and how they are scored.

    items(settings, tokenizer, recipe, model's config) -> the items; score(facts, said) -> figures of one item, the chief one first;
    uses: the settings it takes beyond those that all take, `recipe`: what of a recipe it depends on ("all", "gaps": all but
    `OF_ANSWERS`, "suffix" or "nothing").
    summary: figures of several scored items, where their means would not do; compared: the share in [0, 1] by which two runs are compared (None: the
    chief figure).
    """

    about: str
    items: Callable[..., list[Item]]
    score: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]
    uses: tuple[str, ...] = ()
    recipe: str = "all"
    summary: Callable[[Sequence[dict[str, Any]]], dict[str, Any]] | None = None
    runs_code: bool = False
    compared: str | None = None


def gapped(tokenizer: Any, document: str, gap: tuple[int, int]) -> tuple[str, int]:
    """A document as `infill` takes it, its gap with as many masks as its text has tokens now; and that number."""
    start, end = gap
    masks = len(tokenizer(document[start:end], add_special_tokens=False)["input_ids"])
    return f"{document[:start]}[[{masks}]]{document[end:]}", masks


def cut(text: str, until: Sequence[str]) -> str:
    """The text before the first of the strings that end it."""
    for end in until:
        text = text.split(end, 1)[0]
    return text
