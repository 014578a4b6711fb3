"""A checkpoint described without loading it: its family, how it decodes, its size and memory."""

from pathlib import Path
from typing import Any

import torch

from mezzotint.generation import fitted, with_turn_end
from mezzotint.models.config import ModelConfig
from mezzotint.models.information import activations_bytes, attention_of, memory_bytes
from mezzotint.models.loading import DTYPES, added_tokens, check_weights, configure, dtype_of, folder_of, read_config, usual_dtype
from mezzotint.models.quantised import scheme_of
from mezzotint.recipes import RECIPES

WIDTHS = {"int8-weight": 1, "int8-dynamic": 1, "int4-weight": 0.5}
"""Bytes of a layer's weight by the scheme it is quantised with."""


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
    """Family, shape, decoding and memory in bytes at a canvas of `length` tokens (default: the trained length) and `batch` rows.

    Only JSON files are read, also for a hub id. mask_id, block_causal, weights: as for `load_model`. recipe: what is used when none is given, recipe_fields
    the fields of it that differ from the defaults, decoder where it comes from; note: what the user should know that no file of the checkpoint says.
    quantised: the scheme that is applied on loading, pruned: what is left of each layer, None where nothing is. weights_bytes: once loaded, in `dtype` or as
    they are on a CPU (as stored, but for the bundled model), without the scales of what is quantised; memory_bytes: K and V of every layer, for recipes
    with a cache; activations_bytes: the widest moment of a step, with attention that keeps no score matrix and logits for a block of that recipe.
    """
    folder = folder_of(source, weights=False)
    family, config = configure(folder, mask_id=mask_id, block_causal=block_causal)
    config = with_turn_end(config, added_tokens(folder).get(family.TURN_END))
    raw = read_config(folder)
    tokens = config.max_length if length is None else length
    if tokens < 1 or batch < 1:
        raise ValueError(f"length={length} and batch={batch} must be at least 1")
    check_weights(weights)
    stored = DTYPES.get(str(raw.get("torch_dtype") or raw.get("dtype")).removeprefix("torch."), torch.bfloat16)
    width = (dtype_of(dtype) or usual_dtype(folder, torch.device("cpu")) or stored).itemsize
    whole = config.parameters()
    scheme = scheme_of(raw)
    decoder = RECIPES[config.recipe]
    recipe = fitted(decoder.recipe, config)
    return {
        "model": str(source or "bundled"),
        "family": config.family,
        "architecture": (raw.get("architectures") or [raw.get("model_type")])[0],
        "parameters": whole,
        "active_parameters": config.parameters(active=True),
        "stored_as": str(stored).removeprefix("torch."),
        "quantised": scheme,
        "pruned": left(config),
        "layers": config.layers,
        "hidden_size": config.hidden_size,
        "heads": config.heads,
        "kv_heads": config.kv_heads,
        "vocab_size": config.vocab_size,
        "trained_length": config.max_length,
        "attention": attention_of(config),
        "prediction": "shifted by one" if config.shift else "same position",
        "mask_id": config.mask_id,
        "stop_ids": list(config.stop_ids),
        "decoder": decoder.source,
        "recipe": config.recipe,
        "recipe_fields": str(recipe),
        "note": family.note(config) if hasattr(family, "note") else "",
        "length": tokens,
        "batch": batch,
        "weights_bytes": weights_bytes(config, width, width if scheme is None else WIDTHS[scheme], weights == "int8"),
        "memory_bytes": memory_bytes(config, batch * tokens, width),
        "activations_bytes": activations_bytes(config, batch * tokens, batch * min(recipe.width, tokens), width, recipe.drawing_bytes),
    }


def weights_bytes(config: ModelConfig, width: int, narrow: float, int8: bool) -> int:
    """Of weights of `width` bytes, `narrow` in the layers' linear maps; int8: those of MLPs and experts are of one byte."""
    mlp, attention = config.mlp_weights(), config.attention_weights()
    return int((config.parameters() - mlp - attention) * width + attention * narrow + mlp * (1 if int8 else narrow))


def left(config: ModelConfig) -> dict[str, list[int]] | None:
    """What pruning has left of each layer."""
    if not config.shapes:
        return None
    return {name: [getattr(shape, field) for shape in config.shapes] for name, field in (("heads", "heads"), ("kv_heads", "kv_heads"), ("neurons", "mlp_size"))}
