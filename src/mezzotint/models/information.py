"""A checkpoint described without loading it: its family, size and memory."""

from pathlib import Path
from typing import Any

import torch

from mezzotint.models.config import ModelConfig
from mezzotint.models.loading import configure, dtype_of, folder_of, read_config


def describe(
    source: str | Path | None = None,
    *,
    length: int | None = None,
    batch: int = 1,
    dtype: str | None = None,
    mask_id: int | None = None,
    block_causal: int | None = None,
    weights: str | None = None,
) -> dict[str, Any]:
    """Family, shape and memory in bytes at a canvas of `length` tokens (default: the trained length) and `batch` rows.

    Only JSON files are read, also for a hub id. mask_id, block_causal, weights: as for `load_model`. weights_bytes: as stored or in `dtype`;
    memory_bytes: K and V of every layer, for recipes with a cache; activations_bytes: the widest moment of a step, with attention that keeps no score
    matrix and logits for a block of 32.
    """
    folder = folder_of(source, weights=False)
    _, config = configure(folder, mask_id=mask_id, block_causal=block_causal)
    raw = read_config(folder)
    tokens = config.max_length if length is None else length
    if tokens < 1 or batch < 1:
        raise ValueError(f"length={length} and batch={batch} must be at least 1")
    stored = dtype_of(str(raw.get("torch_dtype", raw.get("dtype", "bfloat16"))).removeprefix("torch.")) or torch.bfloat16
    width = (dtype_of(dtype) or stored).itemsize
    whole = config.parameters()
    maps = config.mlp_weights() if weights == "int8" else 0
    return {
        "model": str(source or "bundled"),
        "family": config.family,
        "architecture": (raw.get("architectures") or [raw.get("model_type")])[0],
        "parameters": whole,
        "active_parameters": config.parameters(active=True),
        "stored_as": str(stored).removeprefix("torch."),
        "layers": config.layers,
        "hidden_size": config.hidden_size,
        "heads": config.heads,
        "kv_heads": config.kv_heads,
        "vocab_size": config.vocab_size,
        "trained_length": config.max_length,
        "attention": attention_of(config),
        "prediction": "shifted by one" if config.shift else "same position",
        "mask_id": config.mask_id,
        "recipe": config.recipe,
        "length": tokens,
        "batch": batch,
        "weights_bytes": (whole - maps) * width + maps,
        "memory_bytes": memory_bytes(config, batch * tokens, width),
        "activations_bytes": activations_bytes(config, batch * tokens, batch * 32, width),
    }


def attention_of(config: ModelConfig) -> str:
    """Who sees whom, in words."""
    if config.window is not None:
        return f"full in every {config.global_every}. layer, else {config.window} positions to each side"
    if config.block_length is None:
        return "full"
    return f"blocks of {config.block_length}, each sees itself and those before" + (", counted from the prompt's end" if config.aligned_to_end else "")


def memory_bytes(config: ModelConfig, rows: int, width: int) -> int:
    """K and V of every layer for so many positions, at `width` bytes a number."""
    key_heads = sum(shape.kv_heads for shape in config.shapes) or config.layers * config.kv_heads
    return 2 * key_heads * config.head_dim * rows * width


def activations_bytes(config: ModelConfig, rows: int, predicted: int, width: int) -> int:
    """The widest moment of a forward of `rows` positions that predicts `predicted` of them, with attention that keeps no score matrix."""
    wide = config.mlp_size if config.mixture is None else max(config.mlp_size, config.mixture.active * config.mixture.size)
    widest = rows * (4 * config.hidden_size + 2 * wide + (config.heads + 2 * config.kv_heads) * config.head_dim) * width
    return widest + predicted * config.vocab_size * (width + 8)
