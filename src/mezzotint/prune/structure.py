"""Heads and neurons that go: what a removable unit is, what it costs, and smaller matrices without it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mezzotint.models.config import ModelConfig
from mezzotint.models.pruned import carve
from mezzotint.models.shape import Shape
from mezzotint.models.transformer import Layer, Transformer
from mezzotint.prune.matrices import layers_of, mlp_of, replace, twin

GROUPING = ("balanced", "group")


@dataclass(frozen=True)
class Kept:
    """What stays of a layer, as sorted indices into what it has now: query heads, key heads, neurons."""

    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    neurons: tuple[int, ...]

    @staticmethod
    def everything(shape: Shape) -> "Kept":
        return Kept(tuple(range(shape.heads)), tuple(range(shape.kv_heads)), tuple(range(shape.mlp_size)))

    def shape(self, compensated: bool) -> Shape:
        return Shape(len(self.heads), len(self.kv_heads), len(self.neurons), compensated)

    def of(self, before: "Kept") -> "Kept":
        """The same in the indices that `before` kept."""
        return Kept(
            *(tuple(theirs[i] for i in mine) for mine, theirs in ((self.heads, before.heads), (self.kv_heads, before.kv_heads), (self.neurons, before.neurons)))
        )


def shape_of(layer: Layer) -> Shape:
    attention = layer.attention
    return Shape(attention.heads, attention.kv_heads, mlp_of(layer).down.in_features, attention.out.bias is not None)


def head_units(shape: Shape, score: Float[Tensor, " heads"], grouping: str) -> list[tuple[int, ...]]:
    """Query heads that are removed together, most removable (highest score) first.

    Without shared keys every head is its own unit. With them, "balanced": one head of every group, each group giving its most removable first, so that groups
    stay of one size; "group": a key head and all the heads that use it.
    """
    size = shape.heads // shape.kv_heads
    if size == 1:
        return [(int(head),) for head in score.argsort(descending=True)]
    table = score.view(shape.kv_heads, size)
    if grouping == "group":
        return [tuple(range(int(g) * size, (int(g) + 1) * size)) for g in table.mean(1).argsort(descending=True)]
    order = table.argsort(1, descending=True)
    return [tuple(sorted(int(g * size + order[g, rank]) for g in range(shape.kv_heads))) for rank in range(size)]


def keep(shape: Shape, gone_heads: Sequence[int], gone_neurons: Sequence[int]) -> Kept:
    """What is left without some heads (whole units) and neurons; a key head nobody uses any more goes too."""
    size = shape.heads // shape.kv_heads
    heads = tuple(sorted(set(range(shape.heads)) - set(gone_heads)))
    return Kept(heads, tuple(sorted({head // size for head in heads})), tuple(sorted(set(range(shape.mlp_size)) - set(gone_neurons))))


def channels(heads: Sequence[int], width: int) -> Int[Tensor, " c"]:
    """Rows of a projection that belong to heads."""
    return (torch.tensor(heads)[:, None] * width + torch.arange(width)).flatten()


@dataclass(frozen=True)
class Repair:
    """New output projections for what is left, and biases for what is gone (`refit.py`): out (hidden, heads · width), down (hidden, neurons)."""

    out: Tensor
    out_bias: Tensor
    down: Tensor
    down_bias: Tensor


@torch.no_grad()
def cut(model: Transformer, index: int, kept: Kept, repair: Repair | None = None) -> None:
    """Replace a layer's matrices by physically smaller ones. Without a repair, what is left is as it was."""
    config, layer = model.config, layers_of(model)[index]
    attention, mlp = layer.attention, mlp_of(layer)
    device = attention.q.weight.device
    mine, theirs = channels(kept.heads, config.head_dim).to(device), channels(kept.kv_heads, config.head_dim).to(device)
    neurons = torch.tensor(kept.neurons, device=device)
    rows = {"attention.q": mine, "attention.k": theirs, "attention.v": theirs, "mlp.gate": neurons, "mlp.up": neurons}
    new = {name: layer.get_submodule(name).weight[at] for name, at in rows.items()}  # type: ignore[index]
    old = {name: layer.get_submodule(name).bias[at] for name, at in rows.items() if layer.get_submodule(name).bias is not None}  # type: ignore[index]
    out, down = attention.out.weight[:, mine], mlp.down.weight[:, neurons]
    out_bias, down_bias = attention.out.bias, mlp.down.bias
    dtype = out.dtype
    if repair is not None:
        out, down = repair.out.to(dtype), repair.down.to(dtype)
        out_bias, down_bias = repair.out_bias.to(dtype), repair.down_bias.to(dtype)
    with torch.device("meta"):
        carve(layer, config, kept.shape(out_bias is not None))
    for name, weight in (new | {"attention.out": out, "mlp.down": down}).items():
        replace(layer.get_submodule(name), "weight", weight.contiguous())
    for name, bias in old.items():
        replace(layer.get_submodule(name), "bias", bias.contiguous())
    if out_bias is not None and down_bias is not None:
        replace(layer.get_submodule("attention.out"), "bias", out_bias)
        replace(layer.get_submodule("mlp.down"), "bias", down_bias)


@torch.no_grad()
def settle(model: Transformer) -> None:
    """Bring the configuration into line with the layers: sizes, number of layers, and biases everywhere or nowhere."""
    layers = layers_of(model)
    if any(layer.attention.out.bias is not None for layer in layers):
        for layer in layers:
            for linear in (layer.attention.out, mlp_of(layer).down):
                if linear.bias is None:
                    replace(linear, "bias", torch.zeros_like(linear.weight[:, 0]))
    model.config = dataclasses.replace(model.config, layers=len(layers), shapes=tuple(shape_of(layer) for layer in layers))


def without_layers(model: Transformer, gone: Sequence[int]) -> Transformer:
    """A model that shares its tensors with this one but lacks some layers."""
    smaller = twin(model)
    smaller.layers = torch.nn.ModuleList(layer for index, layer in enumerate(smaller.layers) if index not in gone)
    settle(smaller)
    return smaller


def flops(config: ModelConfig, shapes: Sequence[Shape], length: int, predicted: int) -> float:
    """Multiplications and additions of one forward of `length` positions that predicts `predicted` of them."""
    return sum(layer_flops(config, shape, length) for shape in shapes) + 2.0 * predicted * config.hidden_size * config.vocab_size


def layer_flops(config: ModelConfig, shape: Shape, length: int) -> float:
    width, hidden = config.head_dim, config.hidden_size
    projections = 4.0 * length * hidden * width * (shape.heads + shape.kv_heads)
    return projections + 4.0 * length**2 * shape.heads * width + 6.0 * length * hidden * shape.mlp_size


def size_of(model: Transformer) -> dict[str, int]:
    """Parameters and the bytes they take, shared ones counted once."""
    weights = list({id(p): p for p in model.parameters()}.values())
    return {"parameters": sum(p.numel() for p in weights), "bytes": sum(p.numel() * p.element_size() for p in weights)}
