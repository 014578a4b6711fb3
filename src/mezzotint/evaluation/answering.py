"""The first step of an evaluation: every item is put to the model, and what it says is stored. Knows nothing of right and wrong."""

import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from mezzotint.evaluation.item import Choice, Gap, Item, Passage, Question, Settings, cut, gapped
from mezzotint.evaluation.likelihood import bound, greedy, masked_cost, suffix_cost
from mezzotint.evaluation.predictions import Conditions, Prediction, Store
from mezzotint.generation import Written, check_length, encode, generate, infill, opening
from mezzotint.models.transformer import Transformer
from mezzotint.recipe import Recipe
from mezzotint.suffix import DPad, Full, NoSuffix


@dataclass(frozen=True)
class Speaker:
    """A model under a recipe: what answers."""

    model: Transformer
    tokenizer: Any
    recipe: Recipe
    settings: Settings
    batch: int = 16


def chunks(items: Sequence[Item], batch: int) -> list[list[int]]:
    """Indices in groups of one kind and similar length (padding costs as much as text), the same for the same items: a resumed run regroups as the
    killed one did."""
    order = sorted(range(len(items)), key=lambda i: (type(items[i]).__name__, str(getattr(items[i], "chat", None)), items[i].length, i))
    found: list[list[int]] = []
    for i in order:
        first = items[found[-1][0]] if found else None
        alike = type(first) is type(items[i]) and getattr(first, "chat", None) == getattr(items[i], "chat", None)
        if first is not None and alike and len(found[-1]) < batch and items[i].length <= 1.5 * first.length + 200:
            found[-1].append(i)
        else:
            found.append([i])
    return found


def collect(
    speaker: Speaker,
    items: Sequence[Item],
    store: Store,
    taken: Conditions,
    report: Callable[[int], None] = lambda done: None,
    draws: Sequence[str] | None = None,
) -> list[Prediction]:
    """Predictions of all items in their order. A group of which anything is missing is answered as a whole, so that a resumed run says what an
    uninterrupted one would have said; `report` gets the number of items done. draws: what each item's seed is made of (None: its id)."""
    known = store.of(taken.run, items)
    draws = draws or [item.id for item in items]
    done = 0
    for group in chunks(items, speaker.batch):
        members = [items[i] for i in group]
        if not all(item.id in known for item in members):
            made = predict(speaker, members, [speaker.settings.seed + zlib.crc32(draws[i].encode()) for i in group])
            store.add(taken, made)
            known.update({p.id: p for p in made})
        done += len(group)
        report(done)
    return [known[item.id] for item in items]


def check_fits(model: Transformer, tokenizer: Any, item: Item, name: str) -> None:
    """Raises ValueError, beginning with the item's name, if its text leaves no room in the model's context. Gaps are short, and passages are cut to fit."""
    try:
        if isinstance(item, Question):
            check_length(model, encode(tokenizer, item.prompt, chat=item.chat))
        elif isinstance(item, Choice):
            for choice in item.choices:
                before, after = split(tokenizer, item.prompt, choice)
                check_length(model, before + after)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def predict(speaker: Speaker, items: Sequence[Item], seeds: Sequence[int]) -> list[Prediction]:
    """What is said to items of one kind."""
    if all(isinstance(item, Question) for item in items):
        return list(answers(speaker, items, seeds))  # type: ignore[arg-type]
    ways: dict[type, Callable[..., Prediction]] = {Gap: filled, Choice: chosen, Passage: weighed}
    return [ways[type(item)](speaker, item, seed) for item, seed in zip(items, seeds, strict=True)]


def prediction(item: Item, said: dict[str, Any], result: Any = None, seconds: float = 0.0) -> Prediction:
    empty = Prediction(item.id, item.part, item.facts, item.digest, said, seconds=seconds)
    return empty if result is None else replace(empty, forwards=result.forwards, positions_computed=result.positions_computed, seconds=result.seconds)


def answers(speaker: Speaker, items: Sequence[Question], seeds: Sequence[int]) -> Iterator[Prediction]:
    """Questions as one batch, whose seconds they share: a row that has ended still costs until its batch ends."""
    results = generate(speaker.model, speaker.tokenizer, [q.prompt for q in items], speaker.recipe, seed=seeds, chat=items[0].chat)
    share = max(result.seconds for result in results) / len(items)
    for question, result in zip(items, results, strict=True):
        said = {"text": cut(result.text, question.until), "finish_reason": result.finish_reason}
        yield replace(prediction(question, said, result), seconds=share)


def filled(speaker: Speaker, item: Gap, seed: int) -> Prediction:
    """A document's gap, with as many masks as its text has tokens now."""
    text, _ = gapped(speaker.tokenizer, item.document, item.gap)
    result = infill(speaker.model, speaker.tokenizer, text, speaker.recipe.with_(steps=None, max_tokens=None), seed=seed)
    return prediction(item, {"text": result.fills[0]}, result)


def chosen(speaker: Speaker, item: Choice, seed: int) -> Prediction:
    """Log-likelihood in nats of every choice after the prompt, a lower bound by Monte Carlo, all choices with the same draws."""
    begun, settings = time.perf_counter(), speaker.settings
    likely, greedily = [], []
    for choice in item.choices:
        before, after = split(speaker.tokenizer, item.prompt, choice)
        check_length(speaker.model, before + after)
        ids = torch.tensor(before + after)
        likely.append(-bound(speaker.model, ids, len(before), samples=settings.samples, seed=seed, cfg_scale=settings.cfg_scale))
        if item.greedy:
            greedily.append(greedy(speaker.model, ids, len(before), cfg_scale=settings.cfg_scale))
    said = {"log_likelihoods": likely} | ({"greedy": greedily} if item.greedy else {})
    return prediction(item, said, seconds=time.perf_counter() - begun)


def split(tokenizer: Any, prompt: str, continuation: str) -> tuple[list[int], list[int]]:
    """Ids of a prompt and its continuation, tokenised together and cut where the prompt alone ends (as lm-evaluation-harness does)."""
    first = [] if isinstance(prompt, Written) else opening(tokenizer)
    prompt = str(prompt)
    spaces = len(prompt) - len(prompt.rstrip())
    if spaces:
        prompt, continuation = prompt[:-spaces], prompt[-spaces:] + continuation
    whole = tokenizer(prompt + continuation, add_special_tokens=False)["input_ids"]
    alone = len(tokenizer(prompt, add_special_tokens=False)["input_ids"]) if prompt else 0
    if alone >= len(whole):
        raise ValueError(f"the continuation {continuation[:40]!r} has no tokens of its own after the prompt")
    return first + whole[:alone], whole[alone:]


def weighed(speaker: Speaker, item: Passage, seed: int) -> Prediction:
    """Cost of a passage in nats; the draws depend on the item alone, so every model and recipe is weighed with the same masks."""
    begun = time.perf_counter()
    ids, settings = torch.tensor(item.ids), speaker.settings
    how: dict[str, Any] = {"samples": settings.samples, "seed": seed}
    if item.measure == "elbo":
        nats = bound(speaker.model, ids, item.start, **how)
    elif item.measure == "masked":
        nats = masked_cost(speaker.model, ids, item.start, **how) * (len(ids) - item.start)
    else:
        kept = speaker.recipe.suffix
        if item.measure == "suffixes" and kept == Full():
            kept = DPad()
        ways = {"nats": kept} | ({"all": Full(), "none": NoSuffix()} if item.measure == "suffixes" else {})
        said = {name: suffix_cost(speaker.model, ids, item.start, suffix, ahead=item.facts["ahead"], **how) for name, suffix in ways.items()}
        return prediction(item, said, seconds=time.perf_counter() - begun)
    return prediction(item, {"nats": nats}, seconds=time.perf_counter() - begun)
