"""Layers of different sizes: what a pruned checkpoint's modules, tensor names and memory look like."""

import dataclasses
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

from mezzotint.models.config import ModelConfig
from mezzotint.models.families.names import inner
from mezzotint.models.memory import Memory
from mezzotint.models.shape import Shape, read_shapes


def with_shapes(raw: dict[str, Any], config: ModelConfig) -> ModelConfig:
    """The configuration with the sizes of its layers, if config.json lists them."""
    shapes = read_shapes(raw, config.layers, config.heads, config.kv_heads, config.mlp_size)
    return dataclasses.replace(config, shapes=shapes) if shapes else config


def carve(layer: nn.Module, config: ModelConfig, shape: Shape) -> None:
    """Give a layer the sizes of a pruned one; its weights are new and empty, with biases where it had them."""
    attention, mlp = cast(Any, layer.get_submodule("attention")), cast(Any, layer.get_submodule("mlp"))
    width = config.head_dim
    attention.heads, attention.kv_heads = shape.heads, shape.kv_heads
    attention.q = nn.Linear(config.hidden_size, shape.heads * width, bias=attention.q.bias is not None)
    attention.k = nn.Linear(config.hidden_size, shape.kv_heads * width, bias=attention.k.bias is not None)
    attention.v = nn.Linear(config.hidden_size, shape.kv_heads * width, bias=attention.v.bias is not None)
    attention.out = nn.Linear(shape.heads * width, config.hidden_size, bias=shape.compensated)
    mlp.gate = nn.Linear(config.hidden_size, shape.mlp_size, bias=mlp.gate.bias is not None)
    mlp.up = nn.Linear(config.hidden_size, shape.mlp_size, bias=mlp.up.bias is not None)
    mlp.down = nn.Linear(shape.mlp_size, config.hidden_size, bias=shape.compensated)


def biases(family: ModuleType, config: ModelConfig) -> dict[str, str]:
    """our name -> the checkpoint's, of the biases that compensate for what was removed."""
    return {
        f"layers.{index}.{ours}.bias": family.LAYER.format(index) + inner(family, config, index)[f"{ours}.weight"].removesuffix("weight") + "bias"
        for index, shape in enumerate(config.shapes)
        for ours in ("attention.out", "mlp.down")
        if shape.compensated
    }


class UnevenMemory(Memory):
    """A memory whose layers have different numbers of key heads: keys[layer] is (batch, kv_heads of the layer, capacity, head_dim)."""

    def __init__(self, config: ModelConfig, batch: int, capacity: int, like: Tensor):
        def empty() -> list[Tensor]:
            sizes = [(batch, shape.kv_heads, capacity, config.head_dim) for shape in config.shapes]
            return [torch.empty(size, dtype=like.dtype, device=like.device) for size in sizes]

        self.keys, self.values = cast(Tensor, empty()), cast(Tensor, empty())
        self.written = torch.zeros(config.layers, capacity, dtype=torch.bool)

    @property
    def capacity(self) -> int:
        return self.written.shape[1]

    def grow(self, capacity: int) -> None:
        extra = capacity - self.capacity
        if extra > 0:
            self.keys = cast(Tensor, [torch.nn.functional.pad(layer, (0, 0, 0, extra)) for layer in self.keys])
            self.values = cast(Tensor, [torch.nn.functional.pad(layer, (0, 0, 0, extra)) for layer in self.values])
            self.written = torch.nn.functional.pad(self.written, (0, extra))
