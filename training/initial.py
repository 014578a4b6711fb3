"""The bundled model's first weights: looking things up is there from the start, so that training need not discover it.

A transformer learns to copy by forming two kinds of heads, and with few tokens it never gets there (docs/log.md). Here the even layers
begin with heads that look a fixed offset away (a constant in every embedding, turned by RoPE, makes a content-free
query and key) and store what they see in a subspace of their own; the odd layers begin with heads that look where the same neighbours
stand (query and key read such a subspace in RoPE's slow dimensions) and bring the token found there. Training is free to change all of it.
In the spirit of mimetic initialisation (Trockman & Kolter, arXiv 2305.09828); the circuit is the induction head of Olsson et al. (arXiv 2209.11895).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint.models.rope import frequencies
from mezzotint.models.transformer import Transformer

OFFSETS = (-1, 1, -2, 2, -3)
MATCHES = ((-1,), (1,), (-1, -2), (-2,), (-3,), (1, 2), (0,))
SLOWEST = 1 / 500
"""Radians per position below which a dimension of RoPE carries content over some hundred tokens."""


def orthonormal(rows: int, columns: int) -> Tensor:
    """(rows, columns) with orthonormal rows, or columns where there are fewer of them."""
    return torch.nn.init.orthogonal_(torch.empty(rows, columns))


@torch.no_grad()
def initialise(model: Transformer, token_norm: float = 4.0, position: float = 0.8, match: float = 2.0, value: float = 0.7, last: float = 0.25) -> None:
    """Fill every weight of a model with a tied head.

    token_norm: length of the tokens' part of an embedding; position, match: how sharply heads look at an offset and at equal neighbours; value: how much
    of what they find they add; last: the final norm's weight, which keeps the first logits mild.
    """
    config = model.config
    width, size = config.hidden_size, config.head_dim
    tokens = width - len(OFFSETS) * size
    if tokens - 2 < size or not config.tied_head:
        raise ValueError(
            f"a width of {width} has no room for {len(OFFSETS)} heads of {size} beside the tokens, or the head is not tied; take more, smaller heads"
        )
    spaces = {offset: slice(tokens + i * size, tokens + (i + 1) * size) for i, offset in enumerate(OFFSETS)}
    spaces[0] = slice(2, tokens)

    embedding = model.embedding.weight.zero_()
    embedding[:, 2:tokens] = F.normalize(torch.randn(config.vocab_size, tokens - 2), dim=1) * token_norm
    embedding[config.mask_id] = 0
    embedding[config.mask_id, 1] = token_norm
    embedding[:, 0] = token_norm / 2

    speed, _ = frequencies(size, config.rope_theta, None)
    sharp = (speed / speed[size // 8]).clamp_max(1.0).sqrt()
    slow = [i for i, f in enumerate(speed.tolist()) if f < SLOWEST]
    slow += [i + size // 2 for i in slow]

    basis = orthonormal(tokens - 2, tokens - 2)
    for index, layer in enumerate(model.layers):
        attention, mlp = layer.attention, layer.mlp
        for weight in (attention.q.weight, attention.k.weight, attention.v.weight, mlp.gate.weight, mlp.up.weight):
            weight.normal_(std=width**-0.5)
        attention.out.weight.normal_(std=0.3 * width**-0.5)
        mlp.down.weight.zero_()
        for head in range(config.heads):
            rows = slice(head * size, (head + 1) * size)
            q, k, v, out = attention.q.weight[rows], attention.k.weight[rows], attention.v.weight[rows], attention.out.weight[:, rows]
            if index % 2 == 0 and head < len(OFFSETS):
                offset = OFFSETS[head]
                for weight in (q, k, v, out):
                    weight.zero_()
                k[: size // 2, 0] = position * sharp
                q[: size // 2, 0] = position * sharp * torch.cos(offset * speed)
                q[size // 2 :, 0] = position * sharp * torch.sin(offset * speed)
                v[:, spaces[0]] = orthonormal(size, tokens - 2) * value
                out[spaces[offset]] = orthonormal(size, size) * value
            elif index % 2 == 1 and head < len(MATCHES):
                for weight in (q, k, v, out):
                    weight.zero_()
                for offset in MATCHES[head]:
                    columns = spaces[offset]
                    q[slow, columns] = orthonormal(len(slow), columns.stop - columns.start) * match
                    k[slow, columns] = q[slow, columns]
                found = basis.roll(-head * size, 0)[:size]
                v[:, spaces[0]] = found * value
                out[spaces[0]] = found.T * value
    model.norm.weight.fill_(last)


@torch.no_grad()
def widen(model: Transformer, smaller: Transformer) -> None:
    """Give a model another's weights; MLP neurons that the other lacks start silent, so both say the same."""
    weights = dict(smaller.named_parameters())
    for name, weight in model.named_parameters():
        given = weights[name]
        if weight.shape != given.shape:
            weight.normal_(std=0.0 if name.endswith("down.weight") else model.config.hidden_size**-0.5)
        weight[tuple(map(slice, given.shape))] = given
