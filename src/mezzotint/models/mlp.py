"""The MLP of a layer or of an expert: gated (SwiGLU, GeGLU, arXiv 2002.05202) or plain."""

import functools

import torch.nn.functional as F
from torch import Tensor, nn

from mezzotint.models.config import ModelConfig

ACTIVATIONS = {"silu": F.silu, "gelu": F.gelu, "gelu_tanh": functools.partial(F.gelu, approximate="tanh")}


class MLP(nn.Module):
    """down(act(gate(x)) · up(x)), or without a gate down(act(up(x)))."""

    def __init__(self, config: ModelConfig, size: int):
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.gate = nn.Linear(config.hidden_size, size, bias=config.mlp_bias) if config.gated else None
        self.up = nn.Linear(config.hidden_size, size, bias=config.mlp_bias)
        self.down = nn.Linear(size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.gate is None:
            return self.down(self.activation(self.up(x)))
        return self.down(self.activation(self.gate(x)) * self.up(x))
