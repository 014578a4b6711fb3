"""Whole denoising steps of LLaDA-8B's shape with random weights: dense, the one that makes the pattern, sparse; and whole runs composed of them."""

import contextlib
import math
import statistics
import time
import warnings
from functools import partial

import anchors
import measure
import torch
from settings import Cell, Settings, random_model
from torch.nn.attention import SDPBackend, sdpa_kernel

import mezzotint as mz
from mezzotint.attention.sparsed import SparseRun
from mezzotint.types import Moment

GOAL = "64k and 1,024 steps: at least 1.7 times the fastest dense; at no length slower than dense"
MINUTES = 6.0
SKIP, SELECT = 0.2, 0.3


def cells(settings: Settings) -> list[Cell]:
    lengths = (512,) if settings.quick else (65536, 4096, 16384, 32768, 8192)
    made = [Cell("select 1 is dense", partial(check, settings))]
    made += [Cell(f"llada-8b {length}", partial(kinds, settings, length), 240) for length in lengths]
    made.append(Cell("llada-8b real run", partial(real, settings, 384 if settings.quick else 16384, 8 if settings.quick else 32), 300))
    return made


def sparse(settings: Settings, skip: float, select: float = SELECT) -> mz.SparseD:
    impl = "triton" if settings.device.type == "cuda" else "reference"
    return mz.SparseD(skip, select, 32 if settings.quick else 128, impl=impl)


def check(settings: Settings) -> dict:
    """With everything selected, the sparse path gives the dense logits."""
    model = random_model(settings.shape("llada-8b"), settings.device, settings.dtype)
    length = 300 if settings.quick else 2100
    tokens = torch.randint(0, 500, (1, length), device=settings.device)
    at, block = torch.arange(length), mz.Block(0, length - 100, length)
    run = SparseRun(sparse(settings, 0.0, 1.0), length - 100)
    with torch.inference_mode():
        wanted = model(tokens, at)
        model(tokens, at, attend=run(Moment(0, block, 0, 0, 8, 0.0)))
        found = model(tokens, at, attend=run(Moment(1, block, 1, 0, 8, 0.5)))
        again = model(tokens, at)
    error = measure.error(found, wanted)
    assert run.patterns, "no pattern was made"
    assert error < 2 * measure.allowed(settings.dtype), f"the sparse path differs from the dense one by {error}"
    return {"error": error, "dense_against_itself": measure.error(again, wanted)}


def fastest_dense(settings: Settings, length: int) -> str:
    """Which of PyTorch's backends attends fastest at this length."""
    config = settings.shape("llada-8b")
    q, k, v = (settings.projected(h, length, config.head_dim, i) for i, h in enumerate((config.heads, config.kv_heads, config.kv_heads)))
    found, _ = measure.timed(anchors.dense(q, k, v), settings.device, 0.1 if settings.quick else 0.5, most=5)
    return anchors.fastest({name: t for name, t in found.items() if name in anchors.BACKENDS})


@contextlib.contextmanager
def backend(name: str):
    """Dense attention by one of PyTorch's backends; where it refuses a call's inputs, by another."""
    rest = [b for b in (*anchors.BACKENDS.values(), SDPBackend.MATH) if b != anchors.BACKENDS[name]]
    with sdpa_kernel([anchors.BACKENDS[name], *rest], set_priority=True):
        yield


def steps_of(settings: Settings, length: int, recipe: mz.Recipe, count: int) -> list[float]:
    """Seconds of the first `count` steps of a run on a random prompt that fills the canvas to `length`."""
    model = random_model(settings.shape("llada-8b"), settings.device, settings.dtype)
    prompt = torch.randint(0, 500, (1, length - recipe.gen_length), generator=torch.Generator().manual_seed(0))
    seconds = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        steps = mz.denoise(model, prompt, recipe)
        for _ in range(count):
            measure.wait(settings.device)
            begun = time.perf_counter()
            if next(steps, None) is None:
                break
            measure.wait(settings.device)
            seconds.append(time.perf_counter() - begun)
    return seconds


def recipe_of(settings: Settings, attention, steps: int) -> mz.Recipe:
    return mz.Recipe(gen_length=128, block_length=None, steps=steps, attention=attention, early_stop="off")


def kinds(settings: Settings, length: int) -> dict:
    dense_backend = fastest_dense(settings, length)
    many = 2 if length > 32768 or settings.quick else 4
    with backend(dense_backend):
        at_once = recipe_of(settings, sparse(settings, 0.0), 128)
        steps_of(settings, min(length, 4096), at_once, 2)
        dense = steps_of(settings, length, recipe_of(settings, mz.Dense(), 128), many + 1)[1:]
        with measure.peak_memory(settings.device) as memory:
            pattern, first, *after = steps_of(settings, length, at_once, many + 2)
        waits = host = None
        if settings.device.type == "cuda":
            waits, host = step_costs(settings, length, at_once)
    step = {"dense": statistics.median(dense), "pattern": pattern, "first_sparse": first, "sparse": statistics.median(after)}
    composed = {}
    for steps in (128, 1024):
        early = math.ceil(SKIP * steps)
        mine = early * step["dense"] + pattern + first + (steps - early - 2) * step["sparse"]
        composed[str(steps)] = {"seconds_dense": steps * step["dense"], "seconds_sparse": mine, "speedup": steps * step["dense"] / mine}
    return {
        "backend": dense_backend,
        "seconds": step,
        "samples": {"dense": dense, "sparse": after},
        "composed": composed,
        "peak_bytes": memory["bytes"],
        "synchronisations": waits,
        "idle_share": host,
    }


def step_costs(settings: Settings, length: int, recipe: mz.Recipe) -> tuple[int | None, float | None]:
    """Of one sparse step: how often the host waits for the device, and the share of the time in which the device has nothing to do."""
    model = random_model(settings.shape("llada-8b"), settings.device, settings.dtype)
    prompt = torch.randint(0, 500, (1, length - recipe.gen_length), generator=torch.Generator().manual_seed(0))
    steps = mz.denoise(model, prompt, recipe)
    next(steps), next(steps)
    waits = measure.synchronisations(lambda: next(steps), settings.device)
    begun = time.perf_counter()
    next(steps)
    measure.wait(settings.device)
    taken = time.perf_counter() - begun
    busy = measure.busy(lambda: next(steps), settings.device)
    return waits, None if busy is None else max(0.0, 1 - busy / taken)


def real(settings: Settings, length: int, steps: int) -> dict:
    """A whole run, dense and sparse, beside what composition says of it."""
    dense_backend = fastest_dense(settings, length)
    with backend(dense_backend):
        attention = sparse(settings, SKIP)
        steps_of(settings, length, recipe_of(settings, sparse(settings, 0.0), steps), 3)
        dense = steps_of(settings, length, recipe_of(settings, mz.Dense(), steps), steps)
        mixed = steps_of(settings, length, recipe_of(settings, attention, steps), steps)
    early = math.ceil(SKIP * steps)
    composed = early * statistics.median(dense) + mixed[early] + (steps - early - 1) * statistics.median(mixed[early + 1 :])
    return {
        "length": length,
        "steps": steps,
        "seconds_dense": sum(dense),
        "seconds_sparse": sum(mixed),
        "speedup": sum(dense) / sum(mixed),
        "composed_over_real": composed / sum(mixed),
        "samples": {"dense": dense, "sparse": mixed},
    }


def table(cells: dict[str, dict]) -> list[list[str]]:
    rows = [["step", "dense", "ms", "pattern ms", "sparse ms", "128 steps", "1,024 steps"]]
    for key, cell in cells.items():
        if "composed" in cell:
            s, c = cell["seconds"], cell["composed"]
            both = [f"{c[n]['speedup']:.2f}×" for n in ("128", "1024")]
            rows.append([key, cell["backend"], f"{s['dense'] * 1e3:.4g}", f"{s['pattern'] * 1e3:.4g}", f"{s['sparse'] * 1e3:.4g}", *both])
        elif "composed_over_real" in cell:
            label = f"{key}, {cell['length']} tokens, {cell['steps']} steps"
            rows.append([label, "", "", "", "", f"{cell['speedup']:.2f}×", f"composed / real {cell['composed_over_real']:.2f}"])
    return rows
