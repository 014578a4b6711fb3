"""What a shape means: who sees whom, in words, and the memory of a run, in bytes."""

from mezzotint.models.config import ModelConfig


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


def activations_bytes(config: ModelConfig, rows: int, predicted: int, width: int, drawing: int) -> int:
    """The widest moment of a step of `rows` positions that predicts `predicted` of them, with attention that keeps no score matrix; drawing: bytes that the
    sampler holds for a logit (`Recipe.drawing_bytes`)."""
    wide = config.mlp_size if config.mixture is None else max(config.mlp_size, config.mixture.active * config.mixture.size)
    widest = rows * (4 * config.hidden_size + 2 * wide + (config.heads + 2 * config.kv_heads) * config.head_dim) * width
    return widest + predicted * config.vocab_size * (width + drawing)
