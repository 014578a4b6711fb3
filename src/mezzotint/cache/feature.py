"""dLLM-Cache (arXiv 2506.06295): inside every layer, rows keep their attention and MLP output from earlier steps unless their value vector has moved."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mezzotint.canvas import Canvas
from mezzotint.fields import check
from mezzotint.models.transformer import Attend, Layer, Scope
from mezzotint.types import Moment, Positions


@dataclass(frozen=True)
class FeatureCache:
    """Every layer but the first computes only the rows that are due; the residual stream itself is never cached.

    prompt, response: the prompt's rows, and all others, are computed every so many forwards. In between, the `transfer` share of the others
    whose value vectors have moved most since the last forward (V-verify). More often and more: closer to no cache, slower. The paper tunes both
    intervals per task (LLaDA-Instruct GSM8K: 50 and 7).
    All rows pass through every forward; `positions_computed` counts the share of the layers' rows that was computed (V-verify's look at the values of the
    others is not in it). Attention must be dense.
    """

    prompt: int = 50
    response: int = 7
    transfer: float = 0.25
    stores: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check("feature", self)
        for name in ("prompt", "response"):
            if getattr(self, name) < 1:
                raise ValueError(f"feature {name}={getattr(self, name)} must be at least 1 forward")
        if not 0 <= self.transfer <= 1:
            raise ValueError(f"feature transfer={self.transfer} must lie in [0, 1]")

    def begin(self, canvas: Canvas) -> "FeatureRun":
        return FeatureRun(self, canvas.start)


@dataclass
class Features:
    """What one layer remembers of every row: rotated keys, values (b, kv, n, d), attention and MLP output (b, n, hidden)."""

    k: Tensor
    v: Tensor
    attention: Tensor
    mlp: Tensor


def pick(x: Float[Tensor, "b n d"], rows: Int[Tensor, "b r"]) -> Float[Tensor, "b r d"]:
    return x.gather(1, rows[..., None].expand(-1, -1, x.shape[-1]))


def put(x: Float[Tensor, "b n d"], rows: Int[Tensor, "b r"], values: Float[Tensor, "b r d"]) -> None:
    x.scatter_(1, rows[..., None].expand_as(values), values)


class FeatureRun:
    """One run's features, and which rows are due."""

    def __init__(self, settings: FeatureCache, start: int):
        self.settings, self.start = settings, start
        self.features: dict[int, Features] = {}
        self.forward = -1
        self.visible: Tensor | None = None
        self.rows = self.due_rows = 0

    def __call__(self, moment: Moment, visible: Positions) -> Positions:
        """Everything visible. Where that changes (a suffix was dropped, the canvas grew) nothing is remembered."""
        self.forward += 1
        self.rows = self.due_rows = 0
        if self.visible is None or not torch.equal(visible, self.visible):
            self.features, self.visible = {}, visible
        return visible

    @property
    def share(self) -> float:
        """How many of the layers' rows the last forward computed."""
        return self.due_rows / self.rows if self.rows else 1.0

    def through(self, index: int, layer: Layer, x: Tensor, cos: Tensor, sin: Tensor, scope: Scope, attend: Attend) -> Tensor:
        """One layer's output for all rows."""
        settings = self.settings
        prompt_due, response_due = self.forward % settings.prompt == 0, self.forward % settings.response == 0
        attention, hidden = layer.attention, layer.attention_norm(x)
        known = self.features.get(index)
        self.rows += x.shape[1]
        if index == 0 or known is None or (prompt_due and response_due):
            self.due_rows += x.shape[1]
            q, k, v = attention.query(hidden, cos, sin), attention.key(hidden, cos, sin), attention.value(hidden)
            mixed = attention.out(attend(index, q, k, v, scope).transpose(1, 2).flatten(-2))
            x = x + mixed
            added = layer.mlp(layer.mlp_norm(x))
            self.features[index] = Features(k, v, mixed, added)
            return x + added

        rows = self.due(attention.v, hidden, known, int((scope.at < self.start).sum()), prompt_due, response_due)
        self.due_rows += rows.shape[1]
        if rows.shape[1] == 0:
            return x + known.attention + known.mlp
        some = pick(hidden, rows)
        near = rows[:, None, :, None].expand(-1, -1, -1, cos.shape[-1])
        cos, sin = (angle.expand(len(x), -1, -1, -1).gather(2, near) for angle in (cos, sin))
        q, k, v = attention.query(some, cos, sin), attention.key(some, cos, sin), attention.value(some)
        where = rows[:, None, :, None].expand_as(k)
        known.k.scatter_(2, where, k)
        known.v.scatter_(2, where, v)
        put(known.attention, rows, attention.out(attend(index, q, known.k, known.v, scope).transpose(1, 2).flatten(-2)))
        x = x + known.attention
        put(known.mlp, rows, layer.mlp(layer.mlp_norm(pick(x, rows))))
        return x + known.mlp

    def due(self, value: torch.nn.Linear, hidden: Tensor, known: Features, prompt: int, prompt_due: bool, response_due: bool) -> Int[Tensor, "b r"]:
        """Rows to compute: the prompt or the response where their turn has come, else the response's rows whose values moved most."""
        b, n, _ = hidden.shape
        everything = torch.arange(n, device=hidden.device).expand(b, -1)
        parts = [everything[:, :prompt]] if prompt_due else []
        count = int((n - prompt) * self.settings.transfer)
        if response_due:
            parts.append(everything[:, prompt:])
        elif self.settings.transfer > 0:
            now = value(hidden[:, prompt:])
            before = known.v[:, :, prompt:].transpose(1, 2).flatten(-2)
            parts.append(prompt + F.cosine_similarity(now, before, dim=-1).topk(count, largest=False).indices)
            known.v[:, :, prompt:] = now.unflatten(-1, (known.v.shape[1], -1)).transpose(1, 2)
        return torch.cat(parts, 1) if parts else everything[:, :0]
