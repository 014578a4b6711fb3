"""What a checkpoint's transformer looks like, and every quirk of its family, as one frozen value."""

from dataclasses import dataclass

from mezzotint.models.rope import RopeScaling
from mezzotint.models.shape import Shape


@dataclass(frozen=True)
class ModelConfig:
    """Shape and quirks of one checkpoint. Families (`models/families/`) fill it in from `config.json`.

    Lengths are in tokens, sizes in features. `shift` is how many positions to the left of a token its
    prediction is made: 0 for LLaDA (a row predicts itself), 1 for Dream (a row predicts its right neighbour).
    `shapes` are the sizes of a pruned checkpoint's layers, empty for all others; heads, kv_heads and mlp_size are then those before pruning.
    """

    family: str
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_size: int
    norm_eps: float
    rope_theta: float
    max_length: int
    mask_id: int
    stop_ids: tuple[int, ...]
    pad_id: int
    shift: int = 0
    qkv_bias: bool = False
    tied_head: bool = False
    rope_full_precision: bool = True
    rope_scaling: RopeScaling | None = None
    shapes: tuple[Shape, ...] = ()

    def parameters(self) -> int:
        """Number of weights, counted from the shape alone."""
        attention = self.hidden_size * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        bias = self.head_dim * (self.heads + 2 * self.kv_heads) if self.qkv_bias else 0
        layer = attention + bias + 3 * self.hidden_size * self.mlp_size + 2 * self.hidden_size
        tables = (1 if self.tied_head else 2) * self.vocab_size * self.hidden_size
        return self.layers * layer + tables + self.hidden_size - self.removed()

    def removed(self) -> int:
        """How many weights fewer than before pruning."""
        total = 0
        for shape in self.shapes:
            heads, kv_heads = self.heads - shape.heads, self.kv_heads - shape.kv_heads
            total += self.hidden_size * (self.head_dim * 2 * (heads + kv_heads) + 3 * (self.mlp_size - shape.mlp_size))
            total += self.head_dim * (heads + 2 * kv_heads) if self.qkv_bias else 0
            total -= 2 * self.hidden_size if shape.compensated else 0
        return total
