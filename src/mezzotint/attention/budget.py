"""How many tiles of keys a tile of rows keeps, given the attention mass of each."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mezzotint.kernels.block_mass import Mass


def largest(mass: Float[Tensor, "*rows keys"], count: int) -> Bool[Tensor, "*rows keys"]:
    """The `count` tiles with the most mass."""
    kept = torch.zeros_like(mass, dtype=torch.bool)
    return kept.scatter_(-1, mass.topk(min(count, mass.shape[-1]), dim=-1).indices, True)


def enough(mass: Float[Tensor, "*rows keys"], share: float) -> Bool[Tensor, "*rows keys"]:
    """The fewest tiles that together hold `share` of the mass."""
    ordered, place = mass.sort(dim=-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(mass, dtype=torch.bool).scatter_(-1, place, before < share * mass.sum(-1, keepdim=True))


def apart(mass: Mass, select: float) -> Bool[Tensor, "b h rows keys"]:
    """A share of the prompt's tiles and a share of the generation's, each rounded up: neither can crowd out the other (SparseD, "isolated selection").

    Prompt tiles are ranked by their part of all attention, generation tiles by a softmax among themselves.
    """
    first = mass.total.shape[-1] - mass.within.shape[-1]
    parts = [largest(part, math.ceil(select * part.shape[-1])) for part in (mass.total[..., :first], mass.within)]
    return torch.cat(parts, dim=-1)


def official(mass: Mass, select: float) -> Bool[Tensor, "b h rows keys"]:
    """The official code: the prompt's part of a joint choice, one tile more than the share of all, and a choice inside the generation."""
    tiles, within = mass.total.shape[-1], mass.within.shape[-1]
    joint = largest(mass.total, int(tiles * select) + 1)
    return torch.cat((joint[..., : tiles - within], largest(mass.within, int(within * select) + 1)), dim=-1)
