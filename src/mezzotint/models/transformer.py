"""One transformer for every family: pre-norm, RoPE, a gated MLP or experts; the variations are in `ModelConfig`.

Positions are explicit: a forward computes the rows `at` and lets them see the rows `over`; what is seen but not
computed comes from a `Memory`. Who looks at whom inside that is the attention callable's business, within what the model was
trained to see: everything, the blocks up to its own (block-causal), or in some layers a window.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mezzotint.models.config import ModelConfig
from mezzotint.models.experts import Experts
from mezzotint.models.memory import Memory
from mezzotint.models.mlp import MLP
from mezzotint.models.norms import norm
from mezzotint.models.pruned import UnevenMemory, carve
from mezzotint.models.rope import angles, frequencies, rotate


@dataclass(frozen=True)
class Scope:
    """Where a forward takes place: canvas positions on the host, and the keys that are real.

    at: (rows,) positions computed; over: (visible,) positions seen, at ⊆ over;
    valid: (batch, visible) on the device, False on the padding of shorter prompts; None when nothing is padded;
    mask: (batch or 1, 1, rows, visible) on the device, False where a row may not look, padding included, for models and layers that do not see
    everything; None elsewhere. Sparse attention is not asked where there is a mask.
    """

    at: Int[Tensor, " rows"]
    over: Int[Tensor, " visible"]
    valid: Bool[Tensor, "b visible"] | None = None
    mask: Bool[Tensor, "_ 1 rows visible"] | None = None

    def within(self, allowed: Callable[[Tensor, Tensor], Tensor], device: torch.device) -> "Scope":
        """This scope where a row looks only where allowed(rows (rows, 1), columns (visible,)) says, and always at itself: a row that saw nothing would
        have no value."""
        rows, columns = self.at.to(device, non_blocking=True)[:, None], self.over.to(device, non_blocking=True)
        mask = allowed(rows, columns)[None, None]
        if self.valid is not None:
            mask = mask & self.valid[:, None, None, :] | (rows == columns)
        return Scope(self.at, self.over, self.valid, mask)


Attend = Callable[[int, Tensor, Tensor, Tensor, Scope], Tensor]
"""attend(layer, q (b, heads, rows, dim), k (b, kv, visible, dim), v, scope) -> (b, heads, rows, dim), scale 1/√dim."""


def dense(layer: int, q: Tensor, k: Tensor, v: Tensor, scope: Scope) -> Tensor:
    """Every row sees every valid position that its model lets it see."""
    mask = scope.mask
    if mask is None and scope.valid is not None:
        mask = scope.valid[:, None, None, :]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=q.shape[1] != k.shape[1])


class Attention(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        self.full_precision = config.rope_full_precision
        self.q = nn.Linear(config.hidden_size, config.heads * config.head_dim, bias=config.qkv_bias)
        self.k = nn.Linear(config.hidden_size, config.kv_heads * config.head_dim, bias=config.qkv_bias)
        self.v = nn.Linear(config.hidden_size, config.kv_heads * config.head_dim, bias=config.qkv_bias)
        self.q_norm = norm(config, config.head_dim) if config.qk_norm else nn.Identity()
        self.k_norm = norm(config, config.head_dim) if config.qk_norm else nn.Identity()
        self.out = nn.Linear(config.heads * config.head_dim, config.hidden_size, bias=config.out_bias)

    def split(self, x: Tensor, heads: int) -> Tensor:
        return x.unflatten(-1, (heads, self.head_dim)).transpose(1, 2)

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate in fp32 (LLaDA) or in the activations' dtype; features beyond the angles stay as they are."""
        width = cos.shape[-1]
        if width < x.shape[-1]:
            return torch.cat((self.turn(x[..., :width], cos, sin), x[..., width:]), dim=-1)
        return rotate(x.float(), cos, sin).to(x.dtype) if self.full_precision else rotate(x, cos.to(x.dtype), sin.to(x.dtype))

    def query(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotated queries (b, heads, rows, dim)."""
        return self.turn(self.q_norm(self.split(self.q(x), self.heads)), cos, sin)

    def key(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotated keys (b, kv, rows, dim)."""
        return self.turn(self.k_norm(self.split(self.k(x), self.kv_heads)), cos, sin)

    def value(self, x: Tensor) -> Tensor:
        return self.split(self.v(x), self.kv_heads)

    def forward(self, layer: int, x: Tensor, cos: Tensor, sin: Tensor, scope: Scope, attend: Attend, memory: Memory | None) -> Tensor:
        q, k, v = self.query(x, cos, sin), self.key(x, cos, sin), self.value(x)
        if memory is not None:
            memory.write(layer, scope.at, k, v)
            k, v = memory.read(layer, scope.over)
        mixed = attend(layer, q, k, v, scope)
        return self.out(mixed.transpose(1, 2).flatten(-2))


class Layer(nn.Module):
    def __init__(self, config: ModelConfig, index: int):
        super().__init__()
        self.attention_norm = norm(config, config.hidden_size) if index or config.first_norm else nn.Identity()
        self.attention = Attention(config)
        self.mlp_norm = norm(config, config.hidden_size)
        mixture = config.mixture
        self.mlp = MLP(config, config.mlp_size) if mixture is None or index in mixture.dense else Experts(config, mixture)

    def forward(self, layer: int, x: Tensor, cos: Tensor, sin: Tensor, scope: Scope, attend: Attend, memory: Memory | None) -> Tensor:
        x = x + self.attention(layer, self.attention_norm(x), cos, sin, scope, attend, memory)
        return x + self.mlp(self.mlp_norm(x))


class Transformed(nn.Module):
    """What some heads do before the vocabulary: a linear map, GELU and a norm (ModernBERT)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.norm = norm(config, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.gelu(self.dense(x)))


Through = Callable[[int, Layer, Tensor, Tensor, Tensor, Scope, Attend], Tensor]
"""through(index, layer, x (b, rows, hidden), cos, sin, scope, attend) -> x after the layer, for caches that act inside the layers."""


class Transformer(nn.Module):
    """A masked diffusion language model. Call it with token ids and absolute positions; it returns logits."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embedding_norm = norm(config, config.hidden_size) if config.embedding_norm else nn.Identity()
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.layers))
        for layer, shape in zip(self.layers, config.shapes, strict=False):
            carve(layer, config, shape)
        self.norm = norm(config, config.hidden_size)
        self.transform = Transformed(config) if config.head_transform else nn.Identity()
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=config.head_bias)
        if config.tied_head:
            self.head.weight = self.embedding.weight

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.weight.dtype

    def memory(self, batch: int, capacity: int) -> Memory:
        """An empty memory of `capacity` positions for one run of `batch` rows."""
        c = self.config
        if c.shapes:
            return UnevenMemory(c, batch, capacity, self.embedding.weight)
        return Memory(c.layers, batch, c.kv_heads, c.head_dim, capacity, self.embedding.weight)

    def hidden(
        self,
        tokens: Int[Tensor, "b rows"],
        at: Int[Tensor, " rows"] | None = None,
        *,
        over: Int[Tensor, " visible"] | None = None,
        attend: Attend = dense,
        memory: Memory | None = None,
        padding: Int[Tensor, " b"] | None = None,
        through: Through | None = None,
    ) -> Float[Tensor, "b rows hidden"]:
        """What the head is applied to, for the computed rows. Arguments as for `forward`."""
        at = torch.arange(tokens.shape[1]) if at is None else at
        over = at if over is None else over
        if over is not at and not torch.equal(at, over):
            if memory is None:
                raise ValueError("`over` names positions outside `at`; reading them needs a memory")
            if not torch.isin(at, over).all():
                raise ValueError("`at` has positions that are not in `over`; what is computed must be visible")
        device = tokens.device
        columns = at.to(device, non_blocking=True)[None]
        positions, valid = columns, None
        if padding is not None:
            positions = (columns - padding[:, None]).clamp_min(0)
            valid = over.to(device, non_blocking=True)[None] >= padding[:, None]
        c = self.config
        turn = self.angles(positions, c.rope_theta)
        scope = Scope(at, over, valid)
        if (size := c.block_length) is not None and int(over[-1]) // size > int(at[0]) // size:
            scope = scope.within(lambda rows, columns: rows // size >= columns // size, device)
        near, near_turn = scope, turn
        if (window := c.window) is not None:
            near_turn = self.angles(positions, c.local_theta)
            if max(int(at[-1] - over[0]), int(over[-1] - at[0])) > window:
                near = scope.within(lambda rows, columns: (rows - columns).abs() <= window, device)
        x = self.embedding_norm(self.embedding(tokens))
        for index, layer in enumerate(cast(list[Layer], self.layers)):
            (cos, sin), place = (near_turn, near) if c.local(index) else (turn, scope)
            look = attend if place.mask is None else dense
            if through is None:
                x = layer(index, x, cos, sin, place, look, memory)
                continue
            x = through(index, layer, x, cos, sin, place, look)
        return self.transform(self.norm(x))

    def angles(self, positions: Int[Tensor, "b rows"], theta: float) -> tuple[Tensor, Tensor]:
        """cos and sin of the rows' angles, fp32."""
        c = self.config
        inverse, factor = frequencies(c.rotary_dim or c.head_dim, theta, c.rope_scaling)
        return angles(positions, inverse.to(positions.device, non_blocking=True), factor)

    def forward(
        self,
        tokens: Int[Tensor, "b rows"],
        at: Int[Tensor, " rows"] | None = None,
        *,
        over: Int[Tensor, " visible"] | None = None,
        attend: Attend = dense,
        memory: Memory | None = None,
        padding: Int[Tensor, " b"] | None = None,
        predict: Int[Tensor, " wanted"] | None = None,
        through: Through | None = None,
    ) -> Float[Tensor, "b wanted vocab"]:
        """Logits for tokens (b, rows) standing at canvas positions `at` (1-D, host, sorted; default 0..rows-1).

        over: positions the rows may see, a superset of `at`; those not in `at` are read from `memory`.
        padding: (b,) on the device; row b's first `padding[b]` canvas positions are empty, so its real position is
            canvas position minus padding, and nobody sees the empty ones.
        predict: canvas positions (host) whose tokens are wanted; only their logits are computed, and logits[:, j]
            predicts `predict[j]` in every family. Without it, the head's raw output for every computed row, as the
            checkpoint's own code returns it (Dream: row i predicts position i + 1).
        through: how x passes a layer, in place of the layer itself (`FeatureCache`).
        """
        at = torch.arange(tokens.shape[1]) if at is None else at
        x = self.hidden(tokens, at, over=over, attend=attend, memory=memory, padding=padding, through=through)
        if predict is not None:
            source = (predict - self.config.shift).clamp_min(0)
            rows = torch.searchsorted(at, source)
            if int(rows[-1]) >= len(at) or not torch.equal(at[rows], source):
                raise LookupError(f"`predict` asks for positions whose row (shift {self.config.shift}) is not in `at`")
            contiguous = torch.equal(rows, torch.arange(int(rows[0]), int(rows[0]) + len(rows)))
            x = x[:, int(rows[0]) : int(rows[-1]) + 1] if contiguous else x[:, rows.to(x.device, non_blocking=True)]
        return self.head(x)
