"""A checkpoint described without loading it: its family, size and memory."""

from pathlib import Path
from typing import Any

import torch

from mezzotint.models.loading import configure, dtype_of, folder_of, read_config


def describe(source: str | Path | None = None, *, length: int | None = None, batch: int = 1, dtype: str | None = None) -> dict[str, Any]:
    """Family, shape and memory in bytes at a canvas of `length` tokens (default: the trained length) and `batch` rows.

    Only config.json is read, also for a hub id. weights: as stored or in `dtype`; memory: K and V of every layer, for recipes
    with a cache; activations: the widest moment of a step, with attention that keeps no score matrix and logits for a block of 32.
    """
    folder = folder_of(source, weights=False)
    _, config = configure(folder)
    raw = read_config(folder)
    tokens = config.max_length if length is None else length
    if tokens < 1 or batch < 1:
        raise ValueError(f"length={length} and batch={batch} must be at least 1")
    stored = dtype_of(str(raw.get("torch_dtype", raw.get("dtype", "bfloat16"))).removeprefix("torch.")) or torch.bfloat16
    width = (dtype_of(dtype) or stored).itemsize
    rows = batch * tokens
    activations = rows * (4 * config.hidden_size + 2 * config.mlp_size + (config.heads + 2 * config.kv_heads) * config.head_dim) * width
    key_heads = sum(shape.kv_heads for shape in config.shapes) or config.layers * config.kv_heads
    logits = batch * 32 * config.vocab_size * (width + 8)
    return {
        "model": str(source or "bundled"),
        "family": config.family,
        "architecture": raw["architectures"][0],
        "parameters": config.parameters(),
        "stored_as": str(stored).removeprefix("torch."),
        "layers": config.layers,
        "hidden_size": config.hidden_size,
        "heads": config.heads,
        "kv_heads": config.kv_heads,
        "vocab_size": config.vocab_size,
        "trained_length": config.max_length,
        "prediction": "shifted by one" if config.shift else "same position",
        "length": tokens,
        "batch": batch,
        "weights_bytes": config.parameters() * width,
        "memory_bytes": 2 * key_heads * config.head_dim * rows * width,
        "activations_bytes": activations + logits,
    }
