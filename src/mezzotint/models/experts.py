"""Mixtures of experts: every token goes to a few MLPs (arXiv 1701.06538). Tokens are grouped by expert; there is no loop over tokens."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from mezzotint.models.config import Mixture, ModelConfig
from mezzotint.models.mlp import MLP


class Router(nn.Module):
    """Which experts a token goes to, and with what weights."""

    def __init__(self, hidden: int, mixture: Mixture):
        super().__init__()
        self.mixture = mixture
        self.weight = nn.Parameter(torch.empty(mixture.experts, hidden))
        self.bias = nn.Parameter(torch.zeros(mixture.experts)) if mixture.bias != "none" else None

    def forward(self, x: Float[Tensor, "n hidden"]) -> tuple[Float[Tensor, "n active"], Int[Tensor, "n active"]]:
        """Weights in fp32, and the experts' numbers."""
        m = self.mixture
        logits = F.linear(x.float(), self.weight.float()) if m.full_precision else F.linear(x, self.weight).float()
        score = logits.softmax(-1) if m.score == "softmax" else logits.sigmoid()
        preferred = score if self.bias is None else score + self.bias.float()
        open = preferred if m.groups == 1 else self.best_groups(preferred)
        chosen = open.topk(m.active, dim=-1, sorted=False).indices
        weights = (preferred if m.bias == "weights" else score).gather(-1, chosen)
        if m.renormalise:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return weights * m.scale, chosen

    def best_groups(self, preferred: Float[Tensor, "n experts"]) -> Float[Tensor, "n experts"]:
        """-inf outside the `kept_groups` groups whose two best experts are best together (DeepSeek-V3, arXiv 2412.19437)."""
        groups = preferred.unflatten(-1, (self.mixture.groups, -1))
        kept = groups.topk(2, dim=-1).values.sum(-1).topk(self.mixture.kept_groups, dim=-1).indices
        closed = torch.ones(groups.shape[:-1], dtype=torch.bool, device=preferred.device).scatter(-1, kept, False)
        return groups.masked_fill(closed[..., None], -torch.inf).flatten(-2)


class Experts(nn.Module):
    """Σ weight · expert(x) over the experts chosen for each token, summed in fp32, and the shared expert that all tokens use.

    Each expert's weights are tensors of their own, so that they can stay memory-mapped and an expert that nobody chose is never read.
    `stack` lays them side by side for one grouped product per projection, which is what a GPU wants.
    """

    def __init__(self, config: ModelConfig, mixture: Mixture):
        super().__init__()
        self.router = Router(config.hidden_size, mixture)
        self.experts = nn.ModuleList(MLP(config, mixture.size) for _ in range(mixture.experts))
        self.shared = MLP(config, mixture.shared_size) if mixture.shared_size else None
        self.stacked: dict[str, Tensor] = {}

    def stack(self) -> None:
        """Lay the experts' weights side by side, (experts, out, in) per projection; each expert's own become views of them."""
        for name in ("gate", "up", "down"):
            linears = [expert.get_submodule(name) for expert in self.experts]
            together = torch.stack([linear.weight.detach() for linear in linears])  # type: ignore[arg-type]
            for linear, weight in zip(linears, together, strict=True):
                linear.weight = nn.Parameter(weight, requires_grad=False)
            self.stacked[name] = together

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, -2)
        weights, chosen = self.router(flat)
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=len(self.experts))
        grouped = flat[order // chosen.shape[-1]]
        ours = self.together(grouped, counts) if self.stacked else self.one_by_one(grouped, counts)
        back = torch.empty_like(ours).index_copy_(0, order, ours).unflatten(0, chosen.shape)
        mixed = torch.einsum("nk,nkd->nd", weights, back.float()).to(x.dtype)
        if self.shared is not None:
            mixed = mixed + self.shared(flat)
        return mixed.view_as(x)

    def one_by_one(self, grouped: Float[Tensor, "m hidden"], counts: Int[Tensor, " experts"]) -> Float[Tensor, "m hidden"]:
        """Each expert on its own rows, which lie together."""
        parts = grouped.split(counts.tolist())
        return torch.cat([expert(part) for expert, part in zip(self.experts, parts, strict=True) if len(part)])

    def together(self, grouped: Float[Tensor, "m hidden"], counts: Int[Tensor, " experts"]) -> Float[Tensor, "m hidden"]:
        """All experts in one grouped product per projection, without asking the device how many rows each has."""
        ends = counts.cumsum(0).to(torch.int32)
        gate, up, down = (self.stacked[name].transpose(-2, -1) for name in ("gate", "up", "down"))
        activation = self.experts[0].activation
        inner = activation(F.grouped_mm(grouped, gate, offs=ends)) * F.grouped_mm(grouped, up, offs=ends)  # type: ignore[operator]
        return F.grouped_mm(inner, down, offs=ends)
