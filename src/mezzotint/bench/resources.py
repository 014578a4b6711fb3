"""What a run takes besides time: peak memory, and the floating-point operations it performs."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from mezzotint.attention import Dense, SparseD
from mezzotint.attention.sparsed import least
from mezzotint.kernels.block_sparse import available
from mezzotint.models.transformer import Transformer
from mezzotint.recipe import Recipe

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def restart_peak(device: torch.device) -> None:
    """Begin a new peak: of the device's allocations on CUDA, of the process on Linux."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        try:
            _CLEAR.write_text("5")
        except OSError:
            return


def peak(device: torch.device) -> int | None:
    """Bytes at the peak since `restart_peak`, weights included; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024


def free_memory(device: torch.device) -> int | None:
    """Bytes that new weights may take; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024


def attention_flops(q: tuple[int, ...], k: tuple[int, ...], *rest: Any, **named: Any) -> int:
    """Two products of (rows x visible) per query head; heads that share keys are counted each. Shapes are (b, heads, rows, dim)."""
    return 4 * q[0] * q[1] * q[2] * k[2] * q[3]


FUSED = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
)


def counter() -> FlopCounterMode:
    """Counts the matrix products that are carried out while it is open (a multiply and an add are two operations)."""
    mapping = {getattr(torch.ops.aten, name): attention_flops for name in FUSED if hasattr(torch.ops.aten, name)}
    return FlopCounterMode(display=False, custom_mapping=mapping)


def countable(recipe: Recipe, model: Transformer, length: int) -> bool:
    """Whether the counter sees everything on a canvas of that length: it looks neither inside the compiled kernels of sparse attention nor inside torchao's."""
    if any(hasattr(weight.data, "__tensor_flatten__") for weight in model.parameters()):
        return False
    attention, kind = recipe.attention, model.device.type
    impl = getattr(attention, "impl", "auto")
    if isinstance(attention, Dense) or impl == "reference":
        return True
    if impl != "auto":
        return False
    if isinstance(attention, SparseD) and (length < least(kind) or attention.block_size < 32):
        return True
    return kind == "cpu" and available("native", kind) != ""
