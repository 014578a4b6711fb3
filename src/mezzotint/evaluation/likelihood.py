"""How likely a model finds a text: a Monte-Carlo bound, with an even spread of mask counts."""

import math

import torch
from jaxtyping import Int
from torch import Tensor

from mezzotint.models.transformer import Transformer


@torch.inference_mode()
def bound(model: Transformer, ids: Int[Tensor, " n"], start: int, *, samples: int = 32, seed: int = 0, batch: int = 16) -> float:
    """Upper bound on -log p(ids[start:] | ids[:start]) in nats (LLaDA, arXiv 2502.09992, eq. 6).

    Sample s masks k of the L tokens, k spread evenly over 1..L, and costs L / k times their cross-entropy.
    """
    length = len(ids) - start
    generator = torch.Generator().manual_seed(seed)
    shift = torch.rand(1, generator=generator)
    counts = (((torch.arange(samples) + shift) / samples) * length).floor().long() + 1
    order = torch.rand(samples, length, generator=generator).argsort(1).argsort(1)
    masked = order < counts[:, None]
    target = ids[start:].to(model.device)
    positions = torch.arange(start, len(ids))
    total = 0.0
    for first in range(0, samples, batch):
        chosen = masked[first : first + batch].to(model.device)
        tokens = ids.to(model.device).repeat(len(chosen), 1)
        tokens[:, start:] = tokens[:, start:].masked_fill(chosen, model.config.mask_id)
        logits = model(tokens, predict=positions)
        cost = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), target.expand(len(chosen), -1), reduction="none")
        total += float(((cost * chosen).sum(1) * length / counts[first : first + batch].to(cost.device)).sum())
    return total / samples


def bits_per_byte(nats: float, text_bytes: int) -> float:
    return nats / math.log(2) / text_bytes
