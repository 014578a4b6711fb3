"""Dense attention by every kernel that runs here: what sparse attention has to beat."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION}


def through(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] != k.shape[1])


def packaged(attend: Callable[..., Any], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """FlashAttention's own packages take (b, rows, heads, d)."""
    out = attend(*(x.transpose(1, 2) for x in (q, k, v)))
    return (out[0] if isinstance(out, tuple) else out).transpose(1, 2)


def dense(q: Tensor, k: Tensor, v: Tensor) -> dict[str, Callable[[], Tensor]]:
    """By name. PyTorch's backends, and FlashAttention-3 and -4 where their packages are installed. A backend may still refuse the inputs when called."""
    calls: dict[str, Callable[[], Tensor]] = {}
    for name, backend in BACKENDS.items():
        if q.device.type == "cuda" or name == "flash":
            calls[name] = partial(through, backend, q, k, v)
    if q.device.type == "cuda" and q.shape[1] != k.shape[1]:
        wide = [x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v)]
        calls["cudnn, keys repeated"] = partial(through, SDPBackend.CUDNN_ATTENTION, q, *wide)
    if q.device.type == "cuda":
        try:
            from flash_attn_interface import flash_attn_func as third  # pyright: ignore[reportMissingImports]

            calls["flash-attention-3"] = partial(packaged, third, q, k, v)
        except ImportError:
            pass
        try:
            from flash_attn.cute import flash_attn_func as fourth  # pyright: ignore[reportMissingImports]

            calls["flash-attention-4"] = partial(packaged, fourth, q, k, v)
        except ImportError:
            pass
    return calls


def fastest(times: dict) -> str:
    """The name with the lowest median among dense kernels timed."""
    return min(times, key=lambda name: times[name].median)


def backend_of(name: str) -> SDPBackend:
    return BACKENDS.get(name.split(",")[0], SDPBackend.FLASH_ATTENTION)


def exact(q: Tensor, k: Tensor, v: Tensor, head: int, rows: slice, columns: Tensor | None = None) -> Tensor:
    """One head's attention for some rows over some columns (all), in double precision: (rows, d)."""
    source = head // (q.shape[1] // k.shape[1])
    keys, values = (x[0, source] if columns is None else x[0, source, columns] for x in (k, v))
    scores = q[0, head, rows].double() @ keys.double().T * q.shape[-1] ** -0.5
    return torch.softmax(scores, -1) @ values.double()
