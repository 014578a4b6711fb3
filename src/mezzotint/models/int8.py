"""Weights as 8-bit integers with one scale per output row (absolute maximum, round to nearest): half the memory of bf16, activations as they are."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mezzotint.models.mlp import MLP


class Int8Linear(nn.Module):
    """y = (x Wᵀ) · scale + bias, W (out, in) int8, scale (out,) in fp32."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(linear.weight.shape, dtype=torch.int8, device=linear.weight.device), requires_grad=False)
        self.scale = nn.Parameter(torch.empty(linear.out_features, device=linear.weight.device), requires_grad=False)
        self.bias = linear.bias

    def store(self, weight: Tensor, device: torch.device) -> None:
        """Take over a weight in floating point."""
        exact = weight.float()
        scale = exact.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
        self.weight = nn.Parameter((exact / scale[:, None]).round_().to(torch.int8).to(device), requires_grad=False)
        self.scale = nn.Parameter(scale.to(device), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight.to(x.dtype)) * self.scale.to(x.dtype)
        return y if self.bias is None else y + self.bias


def shrink(layers: nn.Module) -> None:
    """Make every linear map of the layers' MLPs and experts an `Int8Linear`, empty until it stores a weight. Attention and routers stay."""
    for module in list(layers.modules()):
        if isinstance(module, MLP):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(module, name, Int8Linear(child))
