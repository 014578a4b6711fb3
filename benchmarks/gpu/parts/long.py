"""Long contexts with everything at once: SparseD where the whole canvas is computed, the prompt's rows from a cache in between, DPad on the suffix."""

import math
import statistics
import time
import warnings
from functools import partial

import measure
import torch
from settings import Cell, Settings, random_model

import mezzotint as mz
from parts.step import backend, fastest_dense, sparse, steps_of

GOAL = "64k and 1,024 steps: at least 10 times vanilla decoding with the fastest dense attention"
MINUTES = 3.0
SKIP = 0.2


def cells(settings: Settings) -> list[Cell]:
    lengths = (640,) if settings.quick else (65536, 16384)
    made = [Cell(f"llada-8b {length} {name}", partial(compose, settings, length, name), 240) for length in lengths for name in caches()]
    return [Cell("llada-8b real run", partial(real, settings, 512 if settings.quick else 8192), 240), *made]


def caches() -> dict:
    return {"dual": mz.DualCache(), "prefix": mz.PrefixCache()}


def recipe_of(settings: Settings, cache, attention, steps: int) -> mz.Recipe:
    gen_length, block = (128, 32) if settings.quick else (1024, 32)
    suffix = mz.DPad(min(256, gen_length), 3.0, 1.6)
    return mz.Recipe(gen_length=gen_length, block_length=block, steps=steps, cache=cache, suffix=suffix, attention=attention, early_stop="off")


def compose(settings: Settings, length: int, name: str) -> dict:
    """Seconds of each kind of step, then the run: a block's first step computes everything, the others the block."""
    cache = caches()[name]
    chosen = fastest_dense(settings, length)
    with backend(chosen):
        plain = mz.Recipe(gen_length=128, block_length=None, steps=128, early_stop="off")
        vanilla = min(steps_of(settings, length, plain, 2))
        blocks = recipe_of(settings, cache, mz.Dense(), None).blocks
        two = 2 * blocks
        steps_of(settings, min(length, 4096), recipe_of(settings, cache, sparse(settings, 0.0), two), 4)
        dense_refresh = min(steps_of(settings, length, recipe_of(settings, cache, mz.Dense(), two), 1))
        found = steps_of(settings, length, recipe_of(settings, cache, sparse(settings, 0.0), two), 6)
    pattern, refresh, inside = found[0], statistics.median(found[2::2]), statistics.median(found[1::2])
    steps = 32 * blocks
    early = math.ceil(SKIP * blocks)
    mine = early * dense_refresh + pattern + (blocks - early - 1) * refresh + (steps - blocks) * inside
    return {
        "backend": chosen,
        "seconds": {"vanilla": vanilla, "dense_refresh": dense_refresh, "pattern_refresh": pattern, "sparse_refresh": refresh, "inside": inside},
        "samples": found,
        "steps": steps,
        "seconds_vanilla": steps * vanilla,
        "seconds_composed": mine,
        "speedup": steps * vanilla / mine,
    }


def real(settings: Settings, length: int) -> dict:
    """A whole run with the prefix cache, beside what its own steps would be composed to."""
    model = random_model(settings.shape("llada-8b"), settings.device, settings.dtype)
    recipe = recipe_of(settings, mz.PrefixCache(), sparse(settings, SKIP), 4 * recipe_of(settings, mz.PrefixCache(), mz.Dense(), None).blocks)
    prompt = torch.randint(0, 500, (1, length - recipe.gen_length), generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        mz.denoise_all(model, prompt, recipe)
        begun, stamps, computed = time.perf_counter(), [], []
        for step in mz.denoise(model, prompt, recipe):
            measure.wait(settings.device)
            stamps.append(time.perf_counter() - begun)
            computed.append(len(step.computed))
        plain = mz.denoise_all(model, prompt, recipe.with_(attention=mz.Dense()))
    seconds = [b - a for a, b in zip([0.0, *stamps], stamps, strict=False)]
    refreshes = [s for s, n in zip(seconds, computed, strict=True) if n > max(computed) // 2]
    assert len(computed) == recipe.steps, (len(computed), recipe.steps)
    return {
        "seconds": stamps[-1],
        "seconds_dense": plain.seconds,
        "steps": len(seconds),
        "refreshes": len(refreshes),
        "refresh": refreshes,
        "computed": computed,
    }


def table(cells: dict[str, dict]) -> list[list[str]]:
    rows = [["long", "vanilla s", "ours s", "times", "refresh ms", "inside ms"]]
    for key, cell in cells.items():
        if "speedup" in cell:
            s = cell["seconds"]
            refresh, inside = f"{s['sparse_refresh'] * 1e3:.4g}", f"{s['inside'] * 1e3:.3g}"
            rows.append([key, f"{cell['seconds_vanilla']:.4g}", f"{cell['seconds_composed']:.4g}", f"{cell['speedup']:.1f}", refresh, inside])
    return rows
