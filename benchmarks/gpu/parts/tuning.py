"""How the Triton kernels are best cut on this machine: every candidate is checked, then timed against the others."""

from dataclasses import asdict
from functools import partial

import measure
import torch
from settings import Cell, Settings

from mezzotint.kernels.block_sparse import available
from parts.attention import inputs, sparse_error

GOAL = "the fastest cut per head size, tile and heads that share a list"
MINUTES = 4.0


def cells(settings: Settings) -> list[Cell]:
    if available("triton", settings.device.type):
        return []
    plans = [("llada-8b", 128, 1), ("llada-8b", 64, 1), ("dream-7b", 128, 7), ("dream-7b", 64, 7), ("llada-8b", 32, 1)]
    if settings.quick:
        plans = [("llada-8b", 32, 1), ("dream-7b", 32, 7)]
    return [Cell(f"{shape} block {size} sharing {sharing}", partial(sweep, settings, shape, size, sharing), 240) for shape, size, sharing in plans]


def candidates(settings: Settings, dim: int, size: int, sharing: int) -> list:
    """Cuts worth a try, the default first."""
    from mezzotint.kernels.block_sparse.fused import Tuning, tuning

    if settings.quick:
        return [tuning(dim, size, sharing), Tuning(16, 16, 2, 4, 2, True, True)]
    found = [tuning(dim, size, sharing)]
    for rows in {min(size, 128), min(size, 64)}:
        for heads in {1, max(1, min(128 // rows, 1 << (sharing - 1).bit_length()))}:
            for columns in {min(size, 128), min(size, 64)}:
                for warps in (4, 8):
                    if (rows * heads * columns < 128 * 64 and warps == 8) or (rows * heads * columns >= 128 * 128 and warps == 4):
                        continue
                    for stages in (2, 3, 4):
                        needed = 2 * dim * (rows * heads + 2 * columns * stages)
                        if needed <= 227 * 1024:
                            ways = ((False, False), (False, True), (True, False), (True, True))
                            found += [Tuning(rows, columns, heads, warps, stages, descriptors, ahead) for descriptors, ahead in ways]
    return list(dict.fromkeys(found))


def sweep(settings: Settings, shape: str, size: int, sharing: int) -> dict:
    from mezzotint.kernels.block_sparse.fused import fused

    case = inputs(settings, shape, 150 if settings.quick else 32768, size, 0.3, sharing)
    calls, errors, failed = {}, {}, {}
    tried = {str(tuple(asdict(t).values())): t for t in candidates(settings, case.q.shape[-1], size, sharing)}
    for name, tuned in tried.items():
        call = partial(fused, case.q, case.k, case.v, case.tiled, case.tiled, case.choice, size, None, tuned)
        try:
            measure.poison(case.q)
            errors[name] = sparse_error(case, call())
        except Exception as error:
            failed[name] = measure.survive(settings.device, error)
            continue
        if errors[name] < measure.allowed(settings.dtype):
            calls[name] = call
    if settings.device.type == "cuda":
        quick, more = measure.timed(calls, settings.device, 0.0, least=2)
        failed |= more
        calls = {name: calls[name] for name in sorted(quick, key=lambda n: quick[n].median)[:6]}
    found, more = measure.timed(calls, settings.device, 0.0 if settings.quick else 3.0, least=2, most=20)
    ordered = sorted(found, key=lambda name: found[name].median)
    torch.cuda.empty_cache() if settings.device.type == "cuda" else None
    return {
        "best": asdict(tried[ordered[0]]),
        "default": asdict(next(iter(tried.values()))),
        "teraflops": {name: case.operations / found[name].median / 1e12 for name in ordered},
        "times": {name: found[name].to_dict() for name in ordered},
        "errors": errors,
        "failed": failed | more,
    }


def best(cells: dict[str, dict]) -> dict[str, dict]:
    """The fastest cut by cell, for the parts that come after."""
    return {key: cell["best"] for key, cell in cells.items() if "best" in cell}


def table(cells: dict[str, dict]) -> list[list[str]]:
    rows = [["kernel", "fastest cut", "TFLOP/s", "default's"]]
    for key, cell in cells.items():
        if "best" in cell:
            rates, default = cell["teraflops"], str(tuple(cell["default"].values()))
            name = next(iter(rates))
            rows.append([key, name, f"{rates[name]:.3g}", f"{rates[default]:.3g}" if default in rates else "slower"])
    return rows
