"""Norms: RMSNorm (arXiv 1910.07467), in the two orders of rounding that checkpoints were trained with, and LayerNorm."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mezzotint.models.config import ModelConfig

NORMS = ("rms", "rms_fp32", "layer")


class RMSNorm(nn.Module):
    """x / rms(x) in fp32. The weight is multiplied in after the cast back (LLaDA, Qwen) or, with `late_cast`, before it (SDAR); in fp32 that is the same."""

    def __init__(self, size: int, eps: float, late_cast: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps, self.late_cast = eps, late_cast

    def forward(self, x: Tensor) -> Tensor:
        if self.late_cast or x.dtype == self.weight.dtype == torch.float32:
            return F.rms_norm(x.float(), x.shape[-1:], self.weight.float(), self.eps).to(x.dtype)
        return F.rms_norm(x.float(), x.shape[-1:], eps=self.eps).to(x.dtype) * self.weight


def norm(config: ModelConfig, size: int) -> nn.Module:
    """The family's norm over `size` features. Raises ValueError for a kind that is unknown."""
    if config.norm not in NORMS:
        raise ValueError(f"norm={config.norm!r} is unknown; accepted: {', '.join(NORMS)}")
    if config.norm == "layer":
        return nn.LayerNorm(size, config.norm_eps, bias=config.norm_bias)
    return RMSNorm(size, config.norm_eps, late_cast=config.norm == "rms_fp32")
