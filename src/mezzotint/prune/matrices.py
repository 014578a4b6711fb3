"""The matrices of a layer that pruning may touch, and what flows into them. Embeddings, norms, biases and the head are never pruned."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from mezzotint.models.quantised import packed
from mezzotint.models.transformer import MLP, Layer, Transformer

SITES = {
    "attention.q": ("attention.q", "attention.k", "attention.v"),
    "attention.out": ("attention.out",),
    "mlp.gate": ("mlp.gate", "mlp.up"),
    "mlp.down": ("mlp.down",),
}
"""Where activations are looked at -> the matrices that read them."""

NAMES = tuple(name for names in SITES.values() for name in names)
SITE_OF = {name: site for site, names in SITES.items() for name in names}


def layers_of(model: Transformer) -> list[Layer]:
    """The layers, if they are of the kind that pruning knows. Raises ValueError for experts and for quantised weights."""
    layers = cast(list[Layer], list(model.layers))
    if any(type(layer.mlp) is not MLP or layer.mlp.gate is None for layer in layers):
        raise ValueError(f"a {model.config.family} model has layers without a gated MLP; pruning knows dense models with one only")
    if any(getattr(model.config, name, None) is not None for name in ("block_length", "window")):
        raise ValueError(f"in a {model.config.family} model not every position sees every other; pruning knows fully bidirectional models only")
    if any(type(linear) is not nn.Linear or packed(linear.weight) for layer in layers for linear in matrices(layer).values()):
        raise ValueError("the model is quantised; prune first, then quantise")
    return layers


def mlp_of(layer: Layer) -> MLP:
    """The MLP of a layer that `layers_of` let pass."""
    return cast(MLP, layer.mlp)


def matrices(layer: Layer) -> dict[str, nn.Linear]:
    return {name: cast(nn.Linear, layer.get_submodule(name)) for name in NAMES}


def twin(model: Transformer) -> Transformer:
    """A second model that shares every tensor with the first; replacing a parameter of one leaves the other as it was."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters()})


def replace(owner: nn.Module, name: str, value: Tensor) -> None:
    setattr(owner, name, nn.Parameter(value.detach(), requires_grad=False))


def sparsity_of(model: Transformer) -> float:
    """The share of zeros in the matrices."""
    zeros = total = 0
    for layer in layers_of(model):
        for linear in matrices(layer).values():
            zeros += int((linear.weight == 0).sum())
            total += linear.weight.numel()
    return zeros / total


def show(look: Callable[[str, Tensor], None], site: str, module: nn.Module, arguments: tuple) -> None:
    look(site, arguments[0])


@contextmanager
def inputs(layer: Layer, look: Callable[[str, Tensor], None]) -> Iterator[None]:
    """While open, look(site, x (b, n, c)) sees what enters each site of the layer, and the residual stream that enters its "mlp_norm"."""
    handles = [layer.get_submodule(site).register_forward_pre_hook(partial(show, look, site)) for site in (*SITES, "mlp_norm")]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Stream:
    """Inputs on their way through the layers, one (b, n) batch each, so that a layer can be changed before the next one is run."""

    def __init__(self, model: Transformer, batches: list[Tensor]):
        self.model = model
        self.layers = layers_of(model)
        self.index = 0
        self.places: list[tuple] = []
        self.x: list[Tensor] = []
        for tokens in batches:
            model.hidden(tokens.to(model.device), through=self.enter)

    def enter(self, index: int, layer: Layer, x: Tensor, cos: Tensor, sin: Tensor, scope, attend) -> Tensor:
        if index == 0:
            self.x.append(x)
            self.places.append((cos, sin, scope, attend))
        return x

    def run(self, number: int) -> Tensor:
        """One batch through the current layer; the batch stays where it is."""
        cos, sin, scope, attend = self.places[number]
        return self.layers[self.index](self.index, self.x[number], cos, sin, scope, attend, None)

    def advance(self) -> None:
        """Every batch through the current layer, as it is now."""
        for number in range(len(self.x)):
            self.x[number] = self.run(number)
        self.index += 1


def no_grad(function):
    """Pruned weights must stay usable for gradients, so `no_grad`, not `inference_mode`."""
    return torch.no_grad()(function)
