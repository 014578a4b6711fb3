"""Whether a request fits: the bytes it will need, estimated from the model's shape before anything is allocated."""

import os
from pathlib import Path

import torch

from mezzotint.attention import SlidingWindow, SparseD
from mezzotint.cache import FeatureCache
from mezzotint.canvas import Canvas
from mezzotint.engine.run import Request
from mezzotint.layout import lay_out
from mezzotint.models.config import ModelConfig
from mezzotint.models.information import activations_bytes, memory_bytes
from mezzotint.models.outline import Outline
from mezzotint.models.transformer import Transformer
from mezzotint.types import Attention, Cache

CGROUP = Path("/sys/fs/cgroup/memory.max")


class Refused(ValueError):
    """A request that can never run here; the message has the numbers."""


def needed(model: Transformer | Outline, request: Request) -> int:
    """Bytes of a run at its longest: what its strategies keep between forwards, and the activations of a forward over the whole canvas."""
    recipe, config, width = request.recipe, model.config, model.dtype.itemsize
    streams = 1 if recipe.cfg_scale == 0 else 2
    rows = streams * request.length
    predicted = streams * min(recipe.width, request.length)
    kept = cached(recipe.cache, config, rows, width) + streams * patterned(recipe.attention, config, request.length, width)
    states = 0 if request.grammar is None else request.grammar.states
    constrained = 8 * predicted * (2 * states + 5 * config.vocab_size) if states else 0
    return kept + activations_bytes(config, rows, predicted, width, recipe.drawing_bytes) + constrained


def cached(cache: Cache, config: ModelConfig, rows: int, width: int) -> int:
    """Bytes that a cache keeps: K and V, and of every layer's two outputs if it works inside the layers."""
    features = 2 * config.layers * config.hidden_size * rows * width if isinstance(cache, FeatureCache) else 0
    return features + (memory_bytes(config, rows, width) if cache.stores or features else 0)


def patterned(attention: Attention, config: ModelConfig, length: int, width: int) -> int:
    """Bytes that a block pattern keeps: whether each tile of rows sees each tile of keys, as a list and as a table, and the dropped part's output."""
    if not isinstance(attention, SparseD | SlidingWindow):
        return 0
    layers, heads = (config.layers, config.heads) if isinstance(attention, SparseD) else (1, config.kv_heads)
    residual = layers * config.heads * length * (config.head_dim * width + 4) if isinstance(attention, SparseD) and attention.residual else 0
    return residual + 5 * layers * heads * (length // attention.block_size + 2) ** 2


def available(device: torch.device) -> int:
    """Bytes that runs may take when nobody said: 0.9 of a GPU's free memory, half of the machine's (or its container's)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * 0.9)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = CGROUP.read_text().strip() if CGROUP.exists() else "max"
    return min(total, int(limit) if limit.isdigit() else total) // 2


def check(model: Transformer | Outline, request: Request, longest: int, budget: int) -> int:
    """The bytes the request needs. Raises Refused if its canvas is too long, its ids are not the model's, or it exceeds the whole budget."""
    if request.open_ended and not request.prompt:
        raise Refused("the prompt has no tokens; give some text")
    if request.length > longest:
        raise Refused(f"the canvas would reach {request.length} tokens ({len(request.prompt)} of them prompt), the limit is {longest}; ask for fewer")
    vocabulary = model.config.vocab_size
    wrong = next((token for piece in request.pieces if isinstance(piece, tuple) for token in piece if not 0 <= token < vocabulary), None)
    if wrong is not None:
        raise Refused(f"token id {wrong} is not one of this model's {vocabulary}")
    recipe = request.recipe
    try:
        recipe.check_ahead(request.length - len(request.prompt))
        lay_out(Canvas.gaps([[0], 1], model.config.mask_id, torch.device("cpu")), model.config, recipe)
    except ValueError as error:
        raise Refused(str(error)) from None
    size = needed(model, request)
    if size > budget:
        raise Refused(f"the request needs {size:,} bytes at {request.length} tokens, the budget is {budget:,}; ask for a shorter canvas")
    return size
