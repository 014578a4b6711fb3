"""Recipes side by side: every recipe at every length, in turn within each repeat, after a warm-up that is not counted."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mezzotint.bench.replay import Replay, ended, replayed
from mezzotint.bench.resources import countable, counter, peak, restart_peak
from mezzotint.denoising import Tally, denoise
from mezzotint.generation import answer_ids
from mezzotint.models.transformer import Transformer
from mezzotint.recipe import Recipe

OWN = Replay()
"""No replay: pace and answer are the model's own."""


@dataclass(frozen=True)
class Sample:
    """One run of one recipe.

    seconds: wall time until the device had finished; forwards, positions: as `Generation` counts them; decided: tokens that the forwards committed, summed over
    rows; tokens: those of them that are answer, before the stop id; peak_bytes: see `resources.peak`; flops: of the warm-up only, else None.
    """

    seconds: float
    forwards: int
    positions: int
    decided: int
    tokens: int
    peak_bytes: int | None
    flops: int | None = None


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(model: Transformer, prompt: Sequence[Tensor], recipe: Recipe, *, seed: int = 0, replay: Replay = OWN, count: bool = False) -> Sample:
    """Run a recipe, which is at the replayed pace already, once. Under a replay the model's own stop ids end nothing: the run ends as if one stood behind
    the replay's answer, or with the canvas. count: FLOPs too, which costs time."""
    device, answer = model.device, replay.answer
    running = recipe if replay == OWN else recipe.with_(early_stop="off")
    tally, decided, step = Tally(len(prompt), recipe), 0, None
    longest = max(map(len, prompt)) + recipe.gen_length + (recipe.max_tokens or 0)
    counting = counter() if count and countable(recipe, model, longest) else None
    restart_peak(device)
    finish(device)
    begun = time.perf_counter()
    with counting or nullcontext():
        for step in denoise(model, prompt, running, seed=seed):
            tally.count(step)
            decided += int(step.accepted.sum())
            if answer is not None and ended(step, answer, recipe.early_stop):
                break
    assert step is not None
    generated = [row[begin:] for row, begin in zip(step.tokens.tolist(), step.begins, strict=True)]
    seconds = time.perf_counter() - begun
    if answer is None:
        stop_ids = model.config.stop_ids if replay == OWN else ()
        tokens = sum(len(answer_ids(row, stop_ids, recipe.max_tokens or recipe.gen_length)[0]) for row in generated)
    else:
        tokens = sum(min(answer, len(row)) for row in generated)
    flops = None if counting is None else counting.get_total_flops()
    return Sample(seconds, tally.forwards, tally.positions, decided, tokens, peak(device), flops)


def check(recipes: Mapping[str, Recipe], replays: Mapping[str | None, Replay], meaningless: bool) -> None:
    """Raises ValueError for a replay of a recipe that is not there, and for a recipe that goes by confidences which random weights do not have."""
    unknown = [name for name in replays if name is not None and name not in recipes]
    if unknown:
        raise ValueError(f"replay: recipe {unknown[0]!r} is not among those compared: {', '.join(recipes)}")
    for name, recipe in recipes.items():
        replayed(name, recipe, replay_of(name, replays), meaningless=meaningless)


def replay_of(name: str, replays: Mapping[str | None, Replay]) -> Replay:
    return replays.get(name, replays.get(None, OWN))


def compare(
    model: Transformer,
    recipes: Mapping[str, Recipe],
    prompts: Mapping[int, Sequence[Tensor]],
    *,
    repeats: int = 3,
    replays: Mapping[str | None, Replay] | None = None,
    meaningless: bool = False,
    report: Callable[[str, int], None] = lambda name, length: None,
) -> list[dict[str, Any]]:
    """One row of figures per length and recipe; the first recipe is what the others' speedups refer to.

    prompts: length -> rows of token ids; each repeat goes through all lengths and recipes, beginning one recipe further on, with its own seed.
    replays: see `Replay`, by recipe name, None for all others; meaningless: the weights are random. report(name, length) is called before each run.
    """
    replays = replays or {}
    check(recipes, replays, meaningless)
    samples: dict[tuple[int, str], list[Sample]] = {(length, name): [] for length in prompts for name in recipes}

    def once(name: str, length: int, seed: int, count: bool) -> Sample:
        report(name, length)
        replay = replay_of(name, replays)
        recipe = replayed(name, recipes[name], replay, meaningless=meaningless)
        return measure(model, prompts[length], recipe, seed=seed, replay=replay, count=count)

    warm = {(length, name): once(name, length, 0, True) for length, name in samples}
    names = list(recipes)
    for repeat in range(repeats):
        turn = repeat % len(names)
        for length in prompts:
            for name in names[turn:] + names[:turn]:
                samples[length, name].append(once(name, length, repeat, False))
    return [row(name, recipes[name], prompts[length], length, samples[length, name], samples[length, names[0]], warm[length, name]) for length, name in samples]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def row(name: str, recipe: Recipe, prompt: Sequence[Tensor], length: int, mine: Sequence[Sample], first: Sequence[Sample], warm: Sample) -> dict[str, Any]:
    """The figures of one recipe at one length. Speedups pair the runs of one repeat."""
    peaks = [s.peak_bytes for s in mine if s.peak_bytes is not None]
    return {
        "name": name,
        "length": length,
        "prompt_tokens": max(len(ids) for ids in prompt),
        "batch": len(prompt),
        "seconds": spread([s.seconds for s in mine]) | {"samples": [s.seconds for s in mine]},
        "speedup": spread([theirs.seconds / s.seconds for s, theirs in zip(mine, first, strict=True)]),
        "forwards": statistics.mean(s.forwards for s in mine),
        "positions_computed": statistics.mean(s.positions for s in mine),
        "answer_tokens": statistics.mean(s.tokens for s in mine),
        "tokens_per_forward": statistics.mean(s.decided / s.forwards for s in mine) / len(prompt),
        "effective_tokens_per_second": statistics.median(s.tokens / s.seconds for s in mine),
        "flops": warm.flops,
        "peak_bytes": max(peaks) if peaks else None,
        "warm_up_seconds": warm.seconds,
        "recipe": str(recipe),
    }
