"""Perplexity of running text, WikiText-2 (arXiv 1609.07843) unless told otherwise, in senses that must not be mixed up.

wikitext: the evidence bound with its importance weights over whole windows. wikitext-masked: the cost of masked tokens in short windows after long contexts,
as the pruning literature reports. wikitext-suffix: the bound block by block with masks behind the block, which is what a suffix
strategy can change. suffix-ppl: the same under all masks, under the recipe's suffix strategy (DPad where the recipe keeps all) and under none, on common draws.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from mezzotint.evaluation.intervals import bootstrap
from mezzotint.evaluation.item import Benchmark, Item, Passage, Settings
from mezzotint.evaluation.likelihood import windows
from mezzotint.evaluation.sources import field, place, rows, split_of, spread
from mezzotint.generation import opening
from mezzotint.models.config import ModelConfig
from mezzotint.recipe import Recipe

WINDOW, MASKED = 1024, (64, 960)
"""Tokens scored together for the bound; window and context of the masked figure as published (arXiv 2602.17664)."""


def passages(measure: str) -> Callable[..., list[Item]]:
    """The items of one of the four figures."""

    def items(settings: Settings, tokenizer: Any, recipe: Recipe, config: ModelConfig) -> list[Item]:
        first = opening(tokenizer)
        room = config.reach - len(first)
        usual = {"elbo": (min(WINDOW, room), 0), "masked": MASKED, "suffix": (recipe.width, 512), "suffixes": (recipe.width, 512)}[measure]
        window = settings.window or usual[0]
        blocks = measure.startswith("suffix")
        ahead = max(0, recipe.gen_length - window) if blocks else 0
        if blocks and ahead == 0:
            raise ValueError(
                f"gen_length={recipe.gen_length} leaves no masks behind a block of {window}; give a larger --gen-length or a smaller --block-length"
            )
        context = settings.context if settings.context is not None else max(0, min(usual[1], room - window - ahead))
        if window + context + ahead > room:
            raise ValueError(f"window={window} and context={context} do not fit the model's {config.context}; give a smaller --window or --context")
        data = settings.data or "Salesforce/wikitext"
        split = split_of(data, settings.split)
        texts = [field(row, ("text", "page"), str, place(data, split, i)) for i, row in enumerate(rows(data, split, config="wikitext-2-raw-v1"))]
        text = "\n".join(t for t in (t.strip() for t in texts) if t) if measure == "masked" else "".join(texts)
        pieces = windows(tokenizer(text, add_special_tokens=False)["input_ids"], window, context)
        if len(pieces) > 1 and len(pieces[-1][1]) < window:
            pieces.pop()
        if blocks and len(pieces) > 1:
            pieces = pieces[1:]
        words_per_byte = len(text.split()) / max(1, len(text.encode()))
        made: list[Item] = []
        for i in spread(settings.count, len(pieces)):
            before, scored = pieces[i]
            size = len(tokenizer.decode(scored).encode())
            facts = {"tokens": len(scored), "bytes": size, "words": size * words_per_byte, "ahead": ahead}
            made.append(Passage(f"{i:06d}", facts=facts, ids=(*first, *before, *scored), start=len(first) + len(before), measure=measure))
        return made

    return items


def score(facts: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    return {"nats_per_token": said["nats"] / facts["tokens"], "nats": said["nats"], **{n: facts[n] for n in ("tokens", "bytes", "words")}}


def interval(scored: Sequence[dict[str, Any]]) -> tuple[float, float] | None:
    """The 95 % interval of a perplexity over windows; None for one window."""
    found = bootstrap([s["nats_per_token"] for s in scored])
    return None if found is None else (math.exp(found[0]), math.exp(found[1]))


def likelihood(scored: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Perplexities of all windows together. The interval is over windows; the noise of the Monte-Carlo draws is part of it."""
    nats, tokens = math.fsum(s["nats"] for s in scored), sum(s["tokens"] for s in scored)
    return {
        "perplexity": math.exp(nats / tokens),
        "ci": interval(scored),
        "nats_per_token": nats / tokens,
        "bits_per_byte": nats / math.log(2) / sum(s["bytes"] for s in scored),
        "word_perplexity": math.exp(min(700.0, nats / max(1e-9, math.fsum(s["words"] for s in scored)))),
        "tokens": tokens,
    }


def geometric(scored: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The geometric mean over windows, as published; no bits per byte, since windows are weighed alike whatever they hold."""
    mean = math.fsum(s["nats_per_token"] for s in scored) / len(scored)
    return {"masked_perplexity": math.exp(mean), "ci": interval(scored), "nats_per_token": mean, "tokens": sum(s["tokens"] for s in scored)}


def apart(facts: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    return score(facts, said) | {name: said[name] / facts["tokens"] for name in ("all", "none")}


def against_all(scored: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`likelihood` under the strategy, the perplexities under all masks and under none, and by how many percent the others exceed that of all, with the 95 %
    interval of the paired bootstrap over windows, where there are two."""
    nats = {name: [s[name] for s in scored] for name in ("nats_per_token", "all", "none")}
    found = likelihood(scored)
    found |= {f"perplexity_{name}": math.exp(math.fsum(nats[name]) / len(scored)) for name in ("all", "none")}
    for label, name in (("increase_percent", "nats_per_token"), ("none_increase_percent", "none")):
        gaps = [mine - whole for mine, whole in zip(nats[name], nats["all"], strict=True)]
        found[label] = 100 * math.expm1(math.fsum(gaps) / len(gaps))
        for suffix, value in zip(("_low", "_high"), bootstrap(gaps) or (), strict=False):
            found[label + suffix] = 100 * math.expm1(value)
    return found


USES = ("data", "split", "count", "samples", "window", "context")
ELBO = Benchmark("evidence bound on the perplexity (an upper bound)", passages("elbo"), score, USES, "nothing", likelihood)
BLOCKS = Benchmark("cost of masked tokens in windows of 64, the literature's block perplexity", passages("masked"), score, USES, "nothing", geometric)
SUFFIX = Benchmark("bound block by block with masks behind, for suffix strategies", passages("suffix"), score, USES, "suffix", likelihood)
SUFFIXES = Benchmark("the same under all masks, under DPad (or --suffix) and under none", passages("suffixes"), apart, USES, "suffix", against_all)
