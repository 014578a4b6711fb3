"""One model at several sizes: heads and neurons in order of importance, so that a smaller size is a prefix of every matrix (DynaBERT, arXiv 2004.04037)."""

import copy
import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mezzotint.models.transformer import Layer, Transformer
from mezzotint.prune.groundwork import Orders, orders, relative
from mezzotint.prune.matrices import layers_of, mlp_of, replace
from mezzotint.prune.pruner import SinkAwarePruner
from mezzotint.prune.refit import refit
from mezzotint.prune.structure import channels, settle, shape_of


class Nested(Transformer):
    """A model whose layers can be narrowed at run time; called like any other, at the level that was set last.

    levels: from 1 (all of it) downwards. All levels share one set of matrices; each has biases of its own that stand for the mean of what it leaves out.
    Do not change the level in the middle of a run that keeps a memory. Its type and device are those of the model it was made from.
    """

    def __init__(self, sizes: dict[float, Transformer]):
        nn.Module.__init__(self)
        self.sizes = dict(sorted(sizes.items(), reverse=True))
        self.set_capacity(max(sizes))
        self.eval()

    def _apply(self, fn, recurse: bool = True):
        raise ValueError("a nested model cannot be moved or converted: its levels share their matrices; do so with the model before `nest`")

    @property
    def levels(self) -> tuple[float, ...]:
        return tuple(self.sizes)

    def at(self, level: float) -> Transformer:
        """The model of one level, by itself."""
        if level not in self.sizes:
            raise ValueError(f"level={level!r} is not one of this model's: {', '.join(map(str, self.sizes))}")
        return self.sizes[level]

    def set_capacity(self, level: float) -> None:
        """Compute at this level from now on. Nothing is copied."""
        chosen = self.at(level)
        self.level, self.config = level, chosen.config
        for name, child in chosen.named_children():
            setattr(self, name, child)


@torch.no_grad()
def nest(pruner: SinkAwarePruner, levels: Sequence[float] = (1.0, 0.85, 0.7)) -> Nested:
    """Order the heads (by groups where keys are shared) and neurons of the pruner's model, and cut the levels: the share of each layer's width that stays.

    The ranking is that of the dense model under the pruner's settings. Raises ValueError for levels that are not in (0, 1] or lack 1.
    """
    if 1.0 not in levels or not all(0 < level <= 1 for level in levels):
        raise ValueError(f"levels={tuple(levels)!r} must lie in (0, 1] and have 1 among them")
    settings = dataclasses.replace(pruner.settings, grouping="group")
    shapes = [shape_of(layer) for layer in layers_of(pruner.model)]
    found = orders(
        pruner.model, pruner.exposures(settings), settings, relative(pruner.analyze_attention_dynamics().instability, [shape.heads for shape in shapes])
    )
    ordered = copy.deepcopy(pruner.model, {id(p): p for p in pruner.model.parameters()})
    neuron_order = [torch.tensor(order[::-1]) for order in found.neurons]
    head_order = []
    for index, (layer, shape) in enumerate(zip(layers_of(ordered), shapes, strict=True)):
        group = shape.heads // shape.kv_heads
        key_heads = [unit[0] // group for unit in reversed(found.units[index])]
        heads = [key * group + i for key in key_heads for i in range(group)]
        head_order.append(heads)
        permute(layer, heads, key_heads, neuron_order[index], ordered.config.head_dim)
    multiple = settings.rounding(max(shape.mlp_size for shape in shapes))
    return Nested({level: narrowed(ordered, level, found, head_order, neuron_order, multiple) for level in levels})


def permute(layer: Layer, heads: list[int], key_heads: list[int], neurons: Tensor, width: int) -> None:
    """Rearrange a layer's heads and neurons; what it computes stays the same."""
    mine, theirs = channels(heads, width), channels(key_heads, width)
    for name, order in (("attention.q", mine), ("attention.k", theirs), ("attention.v", theirs), ("mlp.gate", neurons), ("mlp.up", neurons)):
        linear = layer.get_submodule(name)
        for leaf in ("weight", "bias"):
            value = getattr(linear, leaf)
            if value is not None:
                replace(linear, leaf, value[order.to(value.device)])
    replace(layer.attention.out, "weight", layer.attention.out.weight[:, mine.to(layer.attention.out.weight.device)])
    replace(mlp_of(layer).down, "weight", mlp_of(layer).down.weight[:, neurons.to(mlp_of(layer).down.weight.device)])


def narrowed(ordered: Transformer, level: float, found: Orders, head_order: list[list[int]], neuron_order: list[Tensor], multiple: int) -> Transformer:
    """A model of views into the ordered one's matrices; its neurons are a multiple, as far as there are so many."""
    if level == 1:
        return ordered
    model = copy.deepcopy(ordered, {id(p): p for p in ordered.parameters()})
    width = model.config.head_dim
    for index, layer in enumerate(layers_of(model)):
        shape = shape_of(layer)
        group = shape.heads // shape.kv_heads
        keys, neurons = max(1, round(level * shape.kv_heads)), min(shape.mlp_size, max(1, round(level * shape.mlp_size / multiple)) * multiple)
        heads = keys * group
        layer.attention.heads, layer.attention.kv_heads = heads, keys
        for name, rows in (
            ("attention.q", heads * width),
            ("attention.k", keys * width),
            ("attention.v", keys * width),
            ("mlp.gate", neurons),
            ("mlp.up", neurons),
        ):
            shrink(layer.get_submodule(name), slice(rows), slice(None))
        moments = found.moments[index]
        for name, kept, order, columns in (
            ("attention.out", channels(head_order[index][:heads], width), channels(head_order[index], width), heads * width),
            ("mlp.down", neuron_order[index][:neurons], neuron_order[index], neurons),
        ):
            linear = layer.get_submodule(name)
            original = torch.empty_like(linear.weight)  # type: ignore[arg-type]
            original[:, order] = linear.weight  # type: ignore[index]
            bias = refit(original, linear.bias, moments[name].to(original.device), kept.to(original.device), "bias").bias  # type: ignore[arg-type]
            shrink(linear, slice(None), slice(columns))
            replace(linear, "bias", bias.to(original.dtype))
    settle(model)
    return model


def shrink(linear: nn.Module, rows: slice, columns: slice) -> None:
    """Views of a projection's first rows and columns."""
    weight, bias = linear.weight, linear.bias
    replace(linear, "weight", weight[rows, columns])  # type: ignore[index]
    if bias is not None:
        replace(linear, "bias", bias[rows])  # type: ignore[index]
    linear.out_features, linear.in_features = linear.weight.shape  # type: ignore[union-attr,assignment]
