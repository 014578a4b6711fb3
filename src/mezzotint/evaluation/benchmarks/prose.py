"""Held-out English paragraphs that every Python installation carries, weighed by the evidence bound: the built-in suite's language figure."""

import math
from collections.abc import Sequence
from typing import Any

from mezzotint.evaluation.item import Benchmark, Item, Passage, Settings
from mezzotint.evaluation.likelihood import bits_per_byte
from mezzotint.evaluation.tasks.prose import paragraphs
from mezzotint.generation import opening


def items(settings: Settings, tokenizer: Any, *_: Any) -> list[Item]:
    first = opening(tokenizer)
    found: list[Item] = []
    for i, text in enumerate(paragraphs(evaluation=True)):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        found.append(Passage(f"{i:03d}", facts={"tokens": len(ids), "bytes": len(text.encode())}, ids=(*first, *ids), start=len(first)))
    return found


def score(facts: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    return {"nats_per_token": said["nats"] / facts["tokens"], "nats": said["nats"], **facts}


def summary(scored: Sequence[dict[str, Any]]) -> dict[str, Any]:
    nats = math.fsum(s["nats"] for s in scored)
    return {"bits_per_byte": bits_per_byte(nats, sum(s["bytes"] for s in scored)), "perplexity_per_token": math.exp(nats / sum(s["tokens"] for s in scored))}


PROSE = Benchmark("bits per byte of held-out English, an upper bound", items, score, uses=("samples",), recipe="nothing", summary=summary)
