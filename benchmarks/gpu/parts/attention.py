"""Block-sparse attention against every dense kernel that runs here, on the shapes of LLaDA-8B and Dream-7B."""

import math
from dataclasses import dataclass
from functools import partial

import anchors
import measure
import torch
from settings import Cell, Settings
from torch import Tensor

from mezzotint.kernels.block_sparse import available, block_sparse
from mezzotint.kernels.tiles import Choice, Grid, Tiled

GOAL = "at 32k and 64k at least 0.85 / select times the fastest dense kernel"
MINUTES = 6.0


@dataclass(frozen=True)
class Case:
    """Random inputs and a random choice of tiles. chosen: (1, lists, tiles, tiles); operations: floating-point operations of the chosen tiles."""

    q: Tensor
    k: Tensor
    v: Tensor
    tiled: Tiled
    choice: Choice
    chosen: Tensor
    operations: float
    share: float


def inputs(settings: Settings, shape: str, length: int, size: int, select: float, sharing: int = 1) -> Case:
    """The prompt ends inside a tile, as prompts do; `sharing` neighbouring heads have one list."""
    config = settings.shape(shape)
    heads, dim = config.heads, config.head_dim
    q, k, v = (settings.projected(h, length, dim, seed) for seed, h in enumerate((heads, config.kv_heads, config.kv_heads)))
    grid = Grid(max(0, length - 3 * size // 2 - 5), size)
    tiled = Tiled.of(torch.arange(length), grid, settings.device)
    tiles = len(tiled.tiles)
    sharing = sharing if heads % sharing == 0 else 1
    generator = torch.Generator(settings.device).manual_seed(7)
    order = torch.rand(1, heads // sharing, tiles, tiles, generator=generator, device=settings.device).argsort(-1)
    chosen = order < math.ceil(select * tiles)
    filled = tiled.filled.to(settings.device).double()
    visited = (chosen.double() * filled * filled[:, None]).sum().item() * sharing
    choice = Choice.of(chosen, tiled.whole(1, None))
    return Case(q, k, v, tiled, choice, chosen, 4 * dim * visited, visited / (heads * length**2))


def sparse_error(case: Case, out: Tensor) -> float:
    """The worst error over a few tiles of a few heads, in double precision, the ragged last ones among them."""
    tiles, heads = len(case.tiled.tiles), case.q.shape[1]
    starts = case.tiled.starts.tolist()
    column_tile = torch.repeat_interleave(torch.arange(tiles), case.tiled.filled).to(case.q.device)
    worst = 0.0
    for head in {0, heads // 2, heads - 1}:
        for tile in {0, tiles // 3, tiles - 2, tiles - 1}:
            rows = slice(starts[tile], starts[tile + 1])
            columns = case.chosen[0, head * case.chosen.shape[1] // heads, tile][column_tile].nonzero()[:, 0]
            worst = max(worst, measure.error(out[0, head, rows], anchors.exact(case.q, case.k, case.v, head, rows, columns)))
    return worst


def dense_error(case: Case, out: Tensor) -> float:
    heads, length = case.q.shape[1], case.q.shape[2]
    return max(
        measure.error(out[0, h, r], anchors.exact(case.q, case.k, case.v, h, r)) for h in (0, heads - 1) for r in (slice(0, 32), slice(length - 32, length))
    )


def cells(settings: Settings) -> list[Cell]:
    lengths, sizes, selects = ((150,), (32,), (0.3,)) if settings.quick else ((65536, 32768, 8192, 16384, 4096), (128, 64), (0.3, 0.1, 0.5))
    plans = [(shape, length, size) for length in lengths for size in sizes for shape in ("llada-8b", "dream-7b")]
    return [Cell(f"{shape} {length} block {size}", partial(compare, settings, shape, length, size, selects), 240) for shape, length, size in plans]


def compare(settings: Settings, shape: str, length: int, size: int, selects: tuple[float, ...]) -> dict:
    """All dense kernels, and for every select all sparse ones, in turn."""
    groups = settings.shape(shape).heads // settings.shape(shape).kv_heads
    sharings = (1, groups) if groups > 1 else (1,)
    cases = {(select, sharing): inputs(settings, shape, length, size, select, sharing) for select in selects for sharing in sharings}
    first = next(iter(cases.values()))
    calls, errors, failed = {}, {}, {}
    for name, call in anchors.dense(first.q, first.k, first.v).items():
        admit(settings, first.q, f"dense: {name}", call, partial(dense_error, first), calls, errors, failed)
    for (select, sharing), case in cases.items():
        label = f"select {select:g}" + (f" shared by {sharing}" if sharing > 1 else "")
        for impl, call in sparse_calls(settings, shape, case, size, sharing, length).items():
            admit(settings, case.q, f"{label}: {impl}", call, partial(sparse_error, case), calls, errors, failed)
    found, more = measure.timed(calls, settings.device, 0.0 if settings.quick else 5.0, least=2 if settings.quick else 5, most=30)
    dense = {name: t for name, t in found.items() if name.startswith("dense: ")}
    best = anchors.fastest(dense)
    whole = 4 * first.q.shape[-1] * first.q.shape[1] * length**2
    rows = {}
    for name, timing in found.items():
        row = timing.to_dict() | {"error": errors[name]}
        if name in dense:
            row["teraflops"] = whole / timing.median / 1e12
        else:
            label = name.split(": ")[0]
            case = next(c for (s, n), c in cases.items() if label == f"select {s:g}" + (f" shared by {n}" if n > 1 else ""))
            speedup = dense[best].median / timing.median
            row |= {"teraflops": case.operations / timing.median / 1e12, "speedup": speedup, "share": case.share, "of_ideal": speedup * case.share}
        rows[name] = row
    return {"length": length, "fastest_dense": best, "rows": rows, "failed": failed | more}


def sparse_calls(settings: Settings, shape: str, case: Case, size: int, sharing: int, length: int) -> dict:
    """The kernels by name: what `block_sparse` gives, the cut that was found fastest, and FlexAttention with and without its own options."""
    device = settings.device.type
    common = (case.q, case.k, case.v, case.tiled, case.tiled, case.choice, size)
    calls = {}
    if not available("triton", device):
        from mezzotint.kernels.block_sparse.fused import Tuning, fused

        calls["triton"] = partial(block_sparse, *common, impl="triton")
        best = settings.best.get(f"{shape} block {size} sharing {sharing}") or settings.best.get(f"llada-8b block {size} sharing 1")
        if best:
            calls["triton, best cut"] = partial(fused, *common, None, Tuning(**best))
    if device != "cuda":
        calls["reference"] = partial(block_sparse, *common, impl="reference")
    elif sharing == 1 and length in (65536, 8192) and size == 128:
        from mezzotint.kernels.block_sparse.flex import flex

        calls["flex"] = partial(block_sparse, *common, impl="flex")
        if shape == "llada-8b" and length == 65536:
            calls["flex, tensor memory accelerator"] = partial(flex, *common, None, options={"USE_TMA": True})
            calls["flex, 128 × 64"] = partial(flex, *common, None, options={"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, "num_stages": 3})
            calls["flex, flash backend"] = partial(flex, *common, None, options={"BACKEND": "FLASH"})
    return calls


def admit(settings: Settings, like: Tensor, name: str, call, check, calls: dict, errors: dict, failed: dict) -> None:
    """Only what is right is timed."""
    try:
        measure.poison(like)
        errors[name] = check(call())
    except Exception as error:
        failed[name] = measure.survive(settings.device, error)
        return
    if errors[name] < measure.allowed(settings.dtype):
        calls[name] = call
    else:
        failed[name] = f"wrong by {errors[name]:.3g}"


def table(cells: dict[str, dict]) -> list[list[str]]:
    rows = [["attention", "fastest dense", "TFLOP/s", "sparse", "TFLOP/s", "times dense", "of 1/select"]]
    for key, cell in cells.items():
        if "rows" not in cell:
            continue
        dense = cell["rows"][cell["fastest_dense"]]
        labels = dict.fromkeys(name.split(": ")[0] for name, row in cell["rows"].items() if "speedup" in row)
        for label in labels:
            mine = {n: r for n, r in cell["rows"].items() if n.startswith(label + ": ")}
            name = max(mine, key=lambda n: mine[n]["speedup"])
            row = mine[name]
            rows.append(
                [
                    key,
                    cell["fastest_dense"].removeprefix("dense: "),
                    f"{dense['teraflops']:.3g}",
                    name,
                    f"{row['teraflops']:.3g}",
                    f"{row['speedup']:.2f}",
                    f"{row['of_ideal']:.2f}",
                ]
            )
    return rows
