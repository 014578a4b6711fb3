"""What smaller and coarser weights gain on LLaDA-8B's shape: a quarter of heads and neurons gone, 2:4 sparsity, int8 and fp8 products."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import measure
import torch
import torch.nn.functional as F
from settings import Cell, Settings, random_model
from torch import Tensor

GOAL = "structured within 5 % of the ratio of operations; 2:4 and 8-bit only where they win"
MINUTES = 3.0


def cells(settings: Settings) -> list[Cell]:
    lengths = (64,) if settings.quick else (256, 1024, 4096)
    products = [Cell(f"products of {n} rows", partial(products_of, settings, n), 120) for n in lengths]
    return [*products, Cell("structured forward", partial(structured, settings, lengths), 240)]


def weights(settings: Settings) -> dict[str, tuple[int, int]]:
    """(out, in) of one layer's matrices."""
    c = settings.shape("llada-8b")
    hidden, wide = c.hidden_size, c.heads * c.head_dim
    return {"q, k, v": (3 * wide, hidden), "out": (hidden, wide), "gate, up": (2 * c.mlp_size, hidden), "down": (hidden, c.mlp_size)}


def products_of(settings: Settings, count: int) -> dict:
    rows = {}
    for name, (out, into) in weights(settings).items():
        x = settings.random(count, into)
        weight = settings.random(out, into, seed=1) * 0.02
        calls, errors, failed = {"dense": partial(F.linear, x, weight)}, {}, {}
        for way, make in WAYS.items():
            try:
                call, same = make(x, weight)
                errors[way] = measure.error(call(), F.linear(x.double(), same.double()))
            except Exception as error:
                failed[way] = measure.survive(settings.device, error)
                continue
            limit = measure.allowed(settings.dtype) if way in ("2:4", "three quarters of the outputs") else 0.06
            if errors[way] < limit:
                calls[way] = call
            else:
                failed[way] = f"wrong by {errors[way]:.3g}"
        found, more = measure.timed(calls, settings.device, 0.05 if settings.quick else 1.0, most=3 if settings.quick else 50)
        times = {way: t.to_dict() | {"times_dense": found["dense"].median / t.median} for way, t in found.items()}
        rows[name] = {"times": times, "errors": errors, "failed": failed | more}
    return {"rows": rows}


def fewer(x: Tensor, weight: Tensor) -> tuple[Callable[[], Tensor], Tensor]:
    """A quarter of the output features removed, the rest padded to a multiple of 16."""
    kept = weight[: max(16, weight.shape[0] * 3 // 4 // 16 * 16)].contiguous()
    return partial(F.linear, x, kept), kept


def two_of_four(x: Tensor, weight: Tensor) -> tuple[Callable[[], Tensor], Tensor]:
    if x.device.type != "cuda":
        raise RuntimeError("2:4 sparsity needs a CUDA device")
    groups = weight.unflatten(-1, (-1, 4))
    pruned = torch.zeros_like(groups).scatter(-1, groups.abs().topk(2, -1).indices, 1).mul(groups).flatten(-2)
    sparse = torch.sparse.to_sparse_semi_structured(pruned)
    return partial(F.linear, x, sparse), pruned


def int8(x: Tensor, weight: Tensor) -> tuple[Callable[[], Tensor], Tensor]:
    """Rows of x and of the weight scaled to int8 each; what x costs to scale is part of the time."""
    scale = weight.abs().amax(1, keepdim=True).float() / 127
    stored = (weight.float() / scale).round().to(torch.int8)

    def call() -> Tensor:
        mine = x.abs().amax(1, keepdim=True).float() / 127
        return (torch._int_mm((x.float() / mine).round().to(torch.int8), stored.T).float() * mine * scale.T).to(x.dtype)

    return call, weight


def fp8(x: Tensor, weight: Tensor) -> tuple[Callable[[], Tensor], Tensor]:
    """As int8, in e4m3."""
    top = torch.finfo(torch.float8_e4m3fn).max
    scale = weight.abs().amax(1, keepdim=True).float() / top
    stored = (weight.float() / scale).to(torch.float8_e4m3fn)

    def call() -> Tensor:
        mine = x.abs().amax(1, keepdim=True).float() / top
        return torch._scaled_mm((x.float() / mine).to(torch.float8_e4m3fn), stored.T, scale_a=mine, scale_b=scale.T, out_dtype=torch.bfloat16)

    return call, weight


WAYS = {"three quarters of the outputs": fewer, "2:4": two_of_four, "int8": int8, "fp8": fp8}


def structured(settings: Settings, lengths: tuple[int, ...]) -> dict:
    """A whole forward, and one with a quarter of the heads and neurons gone."""
    whole = settings.shape("llada-8b")
    kept = replace(whole, heads=whole.heads * 3 // 4, kv_heads=whole.kv_heads * 3 // 4, mlp_size=whole.mlp_size * 3 // 4)
    rows: dict[str, dict] = {}
    for name, config in (("whole", whole), ("structured", kept)):
        model = random_model(config, settings.device, settings.dtype)
        for length in lengths:
            tokens = torch.randint(0, 500, (1, length), device=settings.device)
            forward = partial(predict_block, model, tokens, length)
            with torch.inference_mode():
                assert forward().isfinite().all()
                found, failed = measure.timed({name: forward}, settings.device, 0.05 if settings.quick else 1.0, most=20)
            assert not failed, failed
            matrices = config.layers * (4 * config.hidden_size * config.heads * config.head_dim + 3 * config.hidden_size * config.mlp_size)
            attention = 2 * config.layers * config.heads * config.head_dim * length
            work = 2 * length * (matrices + attention) + 2 * min(32, length) * config.hidden_size * config.vocab_size
            rows.setdefault(str(length), {})[name] = found[name].to_dict() | {"operations": work}
    for row in rows.values():
        row["speedup"] = row["whole"]["median"] / row["structured"]["median"]
        row["of_the_ratio"] = row["speedup"] / (row["whole"]["operations"] / row["structured"]["operations"])
    return {"forward": rows}


def predict_block(model, tokens: Tensor, length: int) -> Tensor:
    at = torch.arange(length)
    return model(tokens, at, predict=at[-32:])


def table(cells: dict[str, dict]) -> list[list[str]]:
    rows = [["prune", "times dense"]]
    for key, cell in cells.items():
        for name, row in cell.get("rows", {}).items():
            times = ", ".join(f"{way} {t['times_dense']:.2f}" for way, t in row["times"].items() if way != "dense")
            rows.append([f"{key}, {name}", times])
        for length, row in cell.get("forward", {}).items():
            rows.append([f"{key}, {length} tokens", f"{row['speedup']:.2f}, {row['of_the_ratio']:.2f} of the ratio of operations"])
    return rows
