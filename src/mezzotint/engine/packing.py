"""One forward for many runs: their rows are laid end to end, so nothing is padded, and each run attends only inside its own canvas.

Everything in the network but attention treats rows one by one, so a packed forward is the same arithmetic as the runs' own forwards. Rows may stand
at different blocks, steps and lengths, and read different memories.
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from mezzotint.denoising import Ask
from mezzotint.models.rope import angles, frequencies
from mezzotint.models.transformer import Layer, Scope, Transformer, dense

LEAST_ROWS = 32
"""A packed forward has at least so many rows: matrix products of fewer take other kernels, which round differently, and a run's tokens could then depend on
whether it was alone."""


def packable(ask: Ask) -> bool:
    """Dense, full attention over one unpadded row of a model without experts, no guidance, nothing inside the layers. All else is asked alone."""
    plain = isinstance(ask.network, Transformer) and ask.network.config.plain
    return plain and ask.attend is dense and ask.through is None and ask.padding is None and len(ask.tokens) == 1


class Packed:
    """Several asks of one model as one forward."""

    def __init__(self, model: Transformer, asks: Sequence[Ask]):
        self.model, self.asks = model, asks
        ends = torch.tensor([len(ask.at) for ask in asks]).cumsum(0).tolist()
        self.spans = [slice(end - len(ask.at), end) for end, ask in zip(ends, asks, strict=True)]
        self.spare = max(0, LEAST_ROWS - ends[-1])
        groups: dict[tuple[int, int], list[int]] = {}
        for index, ask in enumerate(asks):
            groups.setdefault((len(ask.at), len(ask.over)), []).append(index)
        self.groups = list(groups.values())

    def answer(self) -> list[Float[Tensor, "1 wanted vocab"]]:
        """Every ask's logits."""
        model, config = self.model, self.model.config
        tokens = torch.nn.functional.pad(torch.cat([ask.tokens for ask in self.asks], 1), (0, self.spare))
        positions = torch.nn.functional.pad(torch.cat([ask.at for ask in self.asks]), (0, self.spare)).to(tokens.device, non_blocking=True)
        inverse, factor = frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
        cos, sin = angles(positions[None], inverse.to(tokens.device, non_blocking=True), factor)
        scope = Scope(positions, positions)
        x = model.embedding(tokens)
        for index, layer in enumerate(cast(list[Layer], model.layers)):
            x = layer(index, x, cos, sin, scope, self.attend, None)
        return self.predict(model.norm(x))

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scope: Scope) -> Tensor:
        """Each run's rows over what that run sees; runs of equal shape in one call."""
        seen = [self.remember(layer, ask, k[:, :, span], v[:, :, span]) for ask, span in zip(self.asks, self.spans, strict=True)]
        mixed = torch.zeros_like(q)
        for group in self.groups:
            rows = torch.cat([q[:, :, self.spans[i]] for i in group])
            keys, values = (torch.cat([seen[i][part] for i in group]) for part in (0, 1))
            found = dense(layer, rows, keys, values, scope)
            for place, i in enumerate(group):
                mixed[:, :, self.spans[i]] = found[place : place + 1]
        return mixed

    @staticmethod
    def remember(layer: int, ask: Ask, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of everything the run sees, from this forward or from its memory."""
        if ask.memory is None:
            return k, v
        ask.memory.write(layer, ask.at, k, v)
        return ask.memory.read(layer, ask.over)

    def predict(self, x: Float[Tensor, "1 rows hidden"]) -> list[Tensor]:
        """The head's logits for what each run wants predicted."""
        shift = self.model.config.shift
        rows = [span.start + torch.searchsorted(ask.at, (ask.predict - shift).clamp_min(0)) for ask, span in zip(self.asks, self.spans, strict=True)]
        counts = [len(part) for part in rows]
        every = torch.nn.functional.pad(torch.cat(rows), (0, max(0, LEAST_ROWS - sum(counts))))
        logits = self.model.head(x[:, every.to(x.device, non_blocking=True)])
        return list(logits[:, : sum(counts)].split(counts, 1))
