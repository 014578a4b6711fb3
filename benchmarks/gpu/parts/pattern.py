"""Building a pattern for one layer: attention mass per pair of tiles, the choice, and its lists; time and memory against one dense attention."""

from functools import partial

import anchors
import measure
import torch
from settings import Cell, Settings
from torch import Tensor

from mezzotint.attention import budget
from mezzotint.kernels.block_mass import Mass, block_mass
from mezzotint.kernels.block_sparse import available
from mezzotint.kernels.tiles import Choice, Tiled
from parts.attention import inputs

GOAL = "at most 1.5 times one dense attention; no N × N tensor"
MINUTES = 2.0


def cells(settings: Settings) -> list[Cell]:
    lengths, sizes = ((150,), (32,)) if settings.quick else ((65536, 32768, 16384, 8192, 4096), (128, 64))
    plans = [(shape, length, size) for size in sizes for length in lengths for shape in ("llada-8b", "dream-7b")]
    return [Cell(f"{shape} {length} block {size}", partial(build, settings, shape, length, size), 180) for shape, length, size in plans]


def mass_error(q: Tensor, k: Tensor, tiled: Tiled, size: int, mass: Mass) -> float:
    """The worst error over a few tiles of a few heads, in double precision."""
    starts, groups, worst = tiled.starts.tolist(), q.shape[1] // k.shape[1], 0.0
    column_tile = torch.repeat_interleave(torch.arange(len(tiled.tiles)), tiled.filled).to(q.device)
    for head in {0, q.shape[1] - 1}:
        for tile in {0, len(tiled.tiles) // 2, len(tiled.tiles) - 2, len(tiled.tiles) - 1}:
            scores = q[0, head, starts[tile] : starts[tile + 1]].double() @ k[0, head // groups].double().T * q.shape[-1] ** -0.5
            shares = torch.softmax(scores, -1).mean(0)
            wanted = torch.zeros(len(tiled.tiles), dtype=torch.double, device=q.device).index_add_(0, column_tile, shares)
            worst = max(worst, measure.error(mass.total[0, head, tile], wanted))
    return worst


def build(settings: Settings, shape: str, length: int, size: int) -> dict:
    case = inputs(settings, shape, length, size, 0.3)
    q, k, tiled = case.q, case.k, case.tiled
    first = len(tiled.tiles) - 2

    def masses(impl: str) -> Mass:
        return block_mass(q, k, tiled, tiled, size, first, impl=impl)

    def whole(impl: str) -> Choice:
        return Choice.of(budget.apart(masses(impl), 0.3), tiled.whole(1, None))

    device = settings.device.type
    impls = ["triton"] if not available("triton", device) else []
    if length <= 8192:
        impls.append("reference")
    calls, errors, failed, memory = {}, {}, {}, {}
    for impl in impls:
        try:
            with measure.peak_memory(settings.device) as used:
                mass = masses(impl)
            errors[impl] = mass_error(q, k, tiled, size, mass)
            memory[impl] = used["bytes"]
        except Exception as error:
            failed[impl] = measure.survive(settings.device, error)
            continue
        if errors[impl] < measure.allowed(settings.dtype):
            calls |= {f"mass: {impl}": partial(masses, impl), f"mass, choice and lists: {impl}": partial(whole, impl)}
        else:
            failed[impl] = f"wrong by {errors[impl]:.3g}"
    dense = {f"dense: {name}": call for name, call in anchors.dense(q, k, case.v).items()}
    found, more = measure.timed(calls | dense, settings.device, 0.0 if settings.quick else 3.0, least=2 if settings.quick else 3, most=20)
    best = anchors.fastest({name: t for name, t in found.items() if name.startswith("dense: ")})
    rows = {name: t.to_dict() | {"times_dense": t.median / found[best].median} for name, t in found.items()}
    square = q.shape[1] * length**2 * q.element_size()
    return {"fastest_dense": best, "rows": rows, "errors": errors, "peak_bytes": memory, "bytes_of_n_by_n": square, "failed": failed | more}


def table(cells: dict[str, dict]) -> list[list[str]]:
    rows = [["pattern", "milliseconds", "times dense", "peak MB", "N × N would be"]]
    for key, cell in cells.items():
        for name, row in cell.get("rows", {}).items():
            if name.startswith("mass, choice"):
                impl = name.split(": ")[1]
                used = cell["peak_bytes"].get(impl)
                memory = "" if used is None else f"{used / 1e6:.0f}"
                rows.append([f"{key}, {impl}", f"{row['median'] * 1e3:.3g}", f"{row['times_dense']:.2f}", memory, f"{cell['bytes_of_n_by_n'] / 1e6:.0f} MB"])
    return rows
