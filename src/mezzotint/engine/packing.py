"""One forward for many runs: their rows are laid end to end, and each run attends only inside its own canvas.

Everything in the network but attention treats rows one by one, so a packed forward is the same arithmetic as the runs' own forwards. Rows may stand
at different blocks, steps and lengths, and read different memories. For attention a run's rows and keys are filled up to whole tiles, whether it is alone
or not, so runs of nearly equal size share a call and none depends on its company.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mezzotint.denoising import Ask
from mezzotint.models.transformer import Layer, Scope, Transformer, dense
from mezzotint.recipe import round_up

LEAST_ROWS = 32
"""A packed forward has at least so many rows: matrix products of fewer take other kernels, which round differently, and a run's tokens could then depend on
whether it was alone."""

ROW_TILE, KEY_TILE = 8, 32
"""Attention is computed for whole tiles of rows and keys; what fills them up is seen by nobody."""


def packable(ask: Ask) -> bool:
    """Dense, full attention over one unpadded row of a model without experts, no guidance, nothing inside the layers. All else is asked alone."""
    plain = isinstance(ask.network, Transformer) and ask.network.config.plain
    return plain and ask.attend is dense and ask.through is None and ask.padding is None and len(ask.tokens) == 1


class Packed:
    """Several asks of one model as one forward."""

    def __init__(self, model: Transformer, asks: Sequence[Ask]):
        self.model, self.asks = model, asks
        ends = list(accumulate(len(ask.at) for ask in asks))
        self.spans = [slice(end - len(ask.at), end) for end, ask in zip(ends, asks, strict=True)]
        self.spare = max(0, LEAST_ROWS - ends[-1])
        alike: dict[tuple[int, int, bool, bool], list[int]] = {}
        for index, ask in enumerate(asks):
            rows, keys = round_up(len(ask.at), ROW_TILE), round_up(len(ask.over), KEY_TILE)
            alike.setdefault((rows, keys, keys == len(ask.over), ask.memory is None), []).append(index)
        self.groups = [Group([asks[i] for i in members], [self.spans[i] for i in members], *shape[:2]) for shape, members in alike.items()]
        back = [0] * (ends[-1] + self.spare)
        offset = 0
        for (rows, *_), members in alike.items():
            for i in members:
                back[self.spans[i]] = range(offset, offset + len(asks[i].at))
                offset += rows
        self.back = torch.tensor(back).to(model.device, non_blocking=True)

    def answer(self) -> list[Float[Tensor, "1 wanted vocab"]]:
        """Every ask's logits."""
        model = self.model
        tokens = torch.nn.functional.pad(torch.cat([ask.tokens for ask in self.asks], 1), (0, self.spare))
        positions = torch.nn.functional.pad(torch.cat([ask.at for ask in self.asks]), (0, self.spare)).to(tokens.device, non_blocking=True)
        cos, sin = model.angles(positions[None], model.config.rope_theta)
        scope = Scope(positions, positions)
        x = model.embedding(tokens)
        for index, layer in enumerate(cast(list[Layer], model.layers)):
            x = layer(index, x, cos, sin, scope, self.attend, None)
        return self.predict(model.norm(x))

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scope: Scope) -> Tensor:
        """Each run's rows over what that run sees. What stands in spare rows is read by nobody."""
        mixed = [group.attend(layer, q[0], k[0], v[0]).transpose(0, 1).flatten(1, 2) for group in self.groups]
        return (mixed[0] if len(mixed) == 1 else torch.cat(mixed, 1)).index_select(1, self.back)[None]

    def predict(self, x: Float[Tensor, "1 rows hidden"]) -> list[Tensor]:
        """The head's logits for what each run wants predicted."""
        shift = self.model.config.shift
        rows = [span.start + torch.searchsorted(ask.at, (ask.predict - shift).clamp_min(0)) for ask, span in zip(self.asks, self.spans, strict=True)]
        counts = [len(part) for part in rows]
        every = torch.nn.functional.pad(torch.cat(rows), (0, max(0, LEAST_ROWS - sum(counts))))
        logits = self.model.head(x[:, every.to(x.device, non_blocking=True)])
        return list(logits[:, : sum(counts)].split(counts, 1))


class Group:
    """Runs whose attention has one shape once it is filled up to `rows` rows and `keys` keys: one call for all of them."""

    def __init__(self, asks: Sequence[Ask], spans: Sequence[slice], rows: int, keys: int):
        self.asks, self.spans, self.keys = asks, spans, keys
        device = asks[0].tokens.device
        self.rows = filled(spans, rows).to(device, non_blocking=True)
        self.own = filled(spans, keys).to(device, non_blocking=True)
        seen = torch.tensor([len(ask.over) for ask in asks])
        valid = None if int(seen.min()) == keys else (torch.arange(keys) < seen[:, None]).to(device, non_blocking=True)
        self.scope = Scope(torch.arange(rows), torch.arange(keys), valid)

    def attend(self, layer: int, q: Float[Tensor, "heads all dim"], k: Float[Tensor, "kv all dim"], v: Tensor) -> Tensor:
        """(runs, heads, rows, dim)."""
        keys, values = self.remembered(layer, k, v) if self.asks[0].memory is not None else (self.gather(k, self.own), self.gather(v, self.own))
        return dense(layer, self.gather(q, self.rows), keys, values, self.scope)

    def gather(self, x: Float[Tensor, "heads all dim"], index: Int[Tensor, " each"]) -> Tensor:
        """Rows of the packed forward, run by run: (runs, heads, rows, dim)."""
        return x.index_select(1, index).unflatten(1, (len(self.asks), -1)).transpose(0, 1)

    def remembered(self, layer: int, k: Float[Tensor, "kv all dim"], v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of everything each run sees, from its memory, to which this forward's rows are added."""
        keys, values = (x.new_zeros(len(self.asks), x.shape[0], self.keys, x.shape[2]) for x in (k, v))
        for i, (ask, span) in enumerate(zip(self.asks, self.spans, strict=True)):
            assert ask.memory is not None
            ask.memory.write(layer, ask.at, k[None, :, span], v[None, :, span])
            own_keys, own_values = ask.memory.read(layer, ask.over)
            keys[i, :, : len(ask.over)] = own_keys[0]
            values[i, :, : len(ask.over)] = own_values[0]
        return keys, values


def filled(spans: Sequence[slice], size: int) -> Int[Tensor, " each"]:
    """Every span's indices, filled up to `size` with its first one."""
    return torch.tensor([place for span in spans for place in (*range(span.start, span.stop), *(span.start,) * (size - span.stop + span.start))])
