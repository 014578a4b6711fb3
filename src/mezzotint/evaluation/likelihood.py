"""How likely a model finds a text: Monte-Carlo bounds with an even spread of mask counts, and the perplexities that papers report.

A masked diffusion model has no exact likelihood; what it gives is a bound: mask k of L tokens, weigh their cross-entropy by L / k, average over k.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mezzotint.canvas import Canvas
from mezzotint.commit import Quota
from mezzotint.denoising import denoise
from mezzotint.models.guidance import Guided
from mezzotint.models.transformer import Transformer
from mezzotint.recipe import Recipe, round_up
from mezzotint.types import Suffix

AT_ONCE = 4096
"""Tokens per forward, over all copies of a text."""

APART = 0x5DEECE66D
"""Turns the seed of the masks into that of the suffix: one stream for both would tie what is kept behind a block to what is masked inside it."""


@dataclass(frozen=True)
class Draws:
    """Which of `length` tokens each sample masks. masked: (samples, length); counts: (samples,) how many, spread evenly over 1..length."""

    masked: Bool[Tensor, "samples length"]
    counts: Int[Tensor, " samples"]

    @staticmethod
    def make(samples: int, length: int, seed: int) -> "Draws":
        """The same for the same arguments on every machine, so that models and recipes can be compared on the same masks."""
        if samples < 1:
            raise ValueError(f"samples={samples} must be at least 1")
        generator = torch.Generator().manual_seed(seed)
        shift = torch.rand(1, generator=generator)
        counts = (((torch.arange(samples) + shift) / samples) * length).floor().long().clamp_max(length - 1) + 1
        order = torch.rand(samples, length, generator=generator).argsort(1).argsort(1)
        return Draws(order < counts[:, None], counts)


def together(length: int) -> int:
    """How many copies of a text go through the network at once, so that their logits fit in memory."""
    return max(1, AT_ONCE // length)


def costs(
    model: Transformer, ids: Int[Tensor, " n"], start: int, draws: Draws, *, cfg_scale: float = 0.0, batch: int | None = None
) -> Float[Tensor, "samples length"]:
    """-log p in nats of every masked token of ids[start:], given ids[:start] and what the sample leaves unmasked; 0 where nothing is masked."""
    target = ids[start:].to(model.device)
    positions = torch.arange(start, len(ids))
    given = (torch.arange(len(ids)) < start).to(model.device)
    found = []
    for chosen in draws.masked.split(batch or together(len(ids))):
        hidden = chosen.to(model.device)
        tokens = ids.to(model.device).repeat(len(hidden), 1)
        tokens[:, start:] = tokens[:, start:].masked_fill(hidden, model.config.mask_id)
        network = model if cfg_scale == 0 else Guided(model, cfg_scale, given.expand(len(hidden), -1))
        logits = network(tokens, torch.arange(len(ids)), predict=positions)
        cost = F.cross_entropy(logits.float().transpose(1, 2), target.expand(len(hidden), -1), reduction="none")
        found.append(cost.double().masked_fill(~hidden, 0.0).cpu())
    return torch.cat(found)


@torch.inference_mode()
def bound(
    model: Transformer, ids: Int[Tensor, " n"], start: int, *, samples: int = 32, seed: int = 0, batch: int | None = None, cfg_scale: float = 0.0
) -> float:
    """Upper bound on -log p(ids[start:] | ids[:start]) in nats (LLaDA, arXiv 2502.09992, eq. 6), exact for a single token.

    Sample s masks k of the L tokens, k spread evenly over 1..L, and costs L / k times their cross-entropy. cfg_scale: classifier-free guidance,
    as LLaDA's likelihood tasks use it; batch: samples per forward (None: as many as make 4,096 tokens). Raises ValueError if nothing follows `start`.
    """
    length = len(ids) - start
    if length < 1:
        raise ValueError("the text to be scored is empty")
    draws = Draws.make(1 if length == 1 else samples, length, seed)
    cost = costs(model, ids, start, draws, cfg_scale=cfg_scale, batch=batch)
    return float((cost.sum(1) * length / draws.counts).mean())


@torch.inference_mode()
def masked_cost(model: Transformer, ids: Int[Tensor, " n"], start: int, *, samples: int = 32, seed: int = 0, batch: int | None = None) -> float:
    """Each sample's mean cross-entropy of its masked tokens in nats, averaged: `exp` of it is the "block perplexity" of the pruning literature
    (arXiv 2602.17664). A sample's mean over k masks is its L / k times the sum, per token: with k spread evenly this is `bound` per token."""
    draws = Draws.make(samples, len(ids) - start, seed)
    cost = costs(model, ids, start, draws, batch=batch)
    return float((cost.sum(1) / draws.counts).mean())


@torch.inference_mode()
def suffix_cost(
    model: Transformer, ids: Int[Tensor, " n"], start: int, suffix: Suffix, *, ahead: int, samples: int = 8, seed: int = 0, batch: int | None = None
) -> float:
    """Upper bound in nats on -log p of the block ids[start:] as a decoder meets it: clean text before it, `ahead` masks behind it of which the suffix
    strategy keeps some. Every sample draws the suffix anew, from a stream of its own; equal arguments mask the same tokens under every strategy."""
    length = len(ids) - start
    draws = Draws.make(samples, length, seed)
    canvas = Canvas.gaps([ids[:start].tolist(), length + ahead], model.config.mask_id, torch.device("cpu"))
    visible = suffix.begin(canvas, torch.Generator().manual_seed(seed ^ APART))
    block = canvas.block(0, length)
    target = ids[start:].to(model.device)
    predict = torch.arange(start, len(ids))
    seen = [visible(block) for _ in range(samples)]
    batch = batch or together(canvas.length)
    alike: dict[tuple[int, ...], list[int]] = {}
    for sample, positions in enumerate(seen):
        alike.setdefault(tuple(positions[positions >= len(ids)].tolist()), []).append(sample)
    total = 0.0
    for members in alike.values():
        at = seen[members[0]]
        for first in range(0, len(members), batch):
            rows = torch.tensor(members[first : first + batch])
            hidden = draws.masked[rows]
            whole = torch.full((len(rows), canvas.length), model.config.mask_id)
            whole[:, : len(ids)] = ids
            whole[:, start : len(ids)] = whole[:, start : len(ids)].masked_fill(hidden, model.config.mask_id)
            logits = model(whole[:, at].to(model.device), at, predict=predict)
            cost = F.cross_entropy(logits.float().transpose(1, 2), target.expand(len(rows), -1), reduction="none").cpu()
            total += float((cost.double().masked_fill(~hidden, 0.0).sum(1) * length / draws.counts[rows]).sum())
    return total / samples


def greedy(model: Transformer, ids: Int[Tensor, " n"], start: int, *, cfg_scale: float = 0.0) -> bool:
    """True if decoding one token per forward, the surest first, gives exactly ids[start:].

    Models trained in blocks decode them whole, one after the other; what they write behind the last of the ids does not count.
    """
    grid = model.config.block_length
    length = len(ids) - start if grid is None else round_up(len(ids) - start, grid)
    recipe = Recipe(gen_length=length, block_length=grid, commit=Quota(), early_stop="off", cfg_scale=cfg_scale)
    for step in denoise(model, ids[None, :start] if start else Canvas.gaps([length], model.config.mask_id, model.device), recipe):
        begin = step.begins[0]
        wanted = ids[start + max(0, step.block.start - begin) :]
        row = step.ids[0, max(0, begin - step.block.start) :][: len(wanted)]
        if not bool(((row < 0) | (row == wanted[: len(row)])).all()):
            return False
        if len(row) == len(wanted) and bool((row >= 0).all()):
            return True
    return True


def windows(ids: Sequence[int], length: int, context: int = 0) -> list[tuple[list[int], list[int]]]:
    """A text cut into (context, window) pairs: windows of `length` tokens that follow one another, each with up to `context` tokens before it."""
    if length < 1 or context < 0:
        raise ValueError(f"a window of {length} tokens with {context} of context is not possible; accepted: at least 1 and 0")
    return [(list(ids[max(0, i - context) : i]), list(ids[i : i + length])) for i in range(0, len(ids), length)]


def bits_per_byte(nats: float, text_bytes: int) -> float:
    return nats / math.log(2) / text_bytes
