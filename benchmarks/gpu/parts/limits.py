"""What the machine can do at most, measured on random data: the two ceilings that every other number is read against."""

import measure
import torch
from settings import Cell, Settings

GOAL = "the matrix rate and the memory bandwidth as measured, not as advertised"
MINUTES = 0.5


def cells(settings: Settings) -> list[Cell]:
    return [Cell("matrix", lambda: matrix(settings)), Cell("copy", lambda: copy(settings))]


def matrix(settings: Settings) -> dict:
    size = 256 if settings.quick else 8192
    a, b = settings.random(size, size), settings.random(size, size, seed=1)
    wanted = (a[:4].double() @ b.double()).to(settings.dtype)
    error = measure.error(a[:4] @ b, wanted)
    assert error < measure.allowed(settings.dtype), error
    found, _ = measure.timed({"product": lambda: a @ b}, settings.device, 2.0)
    return {"size": size, "dtype": str(settings.dtype), "teraflops": 2 * size**3 / found["product"].median / 1e12, "error": error, **found["product"].to_dict()}


def copy(settings: Settings) -> dict:
    a = settings.random((1 << 20) if settings.quick else (1 << 31))
    b = torch.full_like(a, float("nan"))
    b.copy_(a)
    assert torch.equal(a, b)
    found, _ = measure.timed({"copy": lambda: b.copy_(a)}, settings.device, 2.0)
    return {"bytes": 2 * a.nbytes, "terabytes_per_second": 2 * a.nbytes / found["copy"].median / 1e12, **found["copy"].to_dict()}


def table(cells: dict[str, dict]) -> list[list[str]]:
    rows = [["limit", "measured"]]
    if "teraflops" in cells.get("matrix", {}):
        rows.append(["matrix product", f"{cells['matrix']['teraflops']:.3g} TFLOP/s"])
    if "terabytes_per_second" in cells.get("copy", {}):
        rows.append(["copy, read and written", f"{cells['copy']['terabytes_per_second']:.3g} TB/s"])
    return rows
