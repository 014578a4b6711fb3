"""Sampling under a grammar: all of a block's candidates come from one text that matches, so that whatever subset is committed stays satisfiable.

The model's predictions are independent per position; conditioned on the grammar they are a chain over the automaton's states. Dynamic programming over the
block gives the likeliest matching text (temperature 0; as in DINGO, arXiv 2505.23061) or an exact draw (above 0), and every position's exact marginal
distribution, which confidence is measured on: a token that the grammar forces has probability 1 and is committed at once.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mezzotint.canvas import Canvas
from mezzotint.commit import Prediction, Sampler
from mezzotint.commit.sampling import cut
from mezzotint.grammar.automaton import Automaton

LOWEST = -1e4
"""Log-probability of what the sampler's own cuts (top-p, top-k) exclude: taken only if the grammar leaves nothing else."""


class Constrained:
    """A sampler for one run of one row, in place of the recipe's.

    most: tokens that the answer may have; it ends within them. stop_ids stand behind its end.
    """

    def __init__(self, sampler: Sampler, automaton: Automaton, canvas: Canvas, most: int, stop_ids: Sequence[int]):
        self.sampler, self.automaton, self.canvas, self.most = sampler, automaton, canvas, most
        device = canvas.tokens.device
        self.source, self.target, self.kind = (torch.from_numpy(a) for a in (automaton.source, automaton.target, automaton.kind))
        self.members = torch.from_numpy(automaton.members).to(device)
        self.bounds = torch.from_numpy(automaton.bounds)
        self.sizes = self.bounds.diff().to(device)
        self.owner = torch.repeat_interleave(torch.arange(len(self.sizes), device=device), self.sizes)
        self.least = torch.from_numpy(automaton.least)
        self.state, self.upto = 0, canvas.start

    def __call__(self, logits: Tensor, open: Tensor, generators: Sequence[torch.Generator]) -> Prediction:
        """logits (1, w, vocab) for the active block's open positions, which are the canvas's first."""
        clean, tempered = self.logprobs(logits)
        span, ids = self.span(logits.shape[1])
        places = {position: i for i, position in enumerate(p for p, token in zip(span, ids, strict=True) if token < 0)}
        free = [places.get(position, -1) for position in span]
        greedy = self.sampler.temperature == 0
        ahead = self.ahead(self.scores(tempered, free, ids, "max" if greedy else "sum"), span, highest if greedy else logsumexp)
        tokens = self.walk(tempered, free, ids, ahead, None if greedy else generators[0])
        distribution = self.marginals(clean, free, ids, span)
        found = torch.tensor([tokens], device=logits.device)
        confidence = self.sampler._confidence(distribution[None], found, open, generators)
        return Prediction(found, confidence, open, generators)

    def logprobs(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """What confidence is measured on, and what is drawn from: with Gumbel noise the former knows no temperature (LLaDA), else both are one (Dream)."""
        sampler, exact = self.sampler, logits.double()
        if sampler.sampling == "gumbel":
            clean = cut(exact, sampler.top_p, sampler.top_k).log_softmax(-1).clamp_min(LOWEST)
            return clean[0], (clean[0] / (sampler.temperature or 1.0)).clamp_min(LOWEST)
        scaled = exact / sampler.temperature if sampler.temperature > 0 else exact
        both = cut(scaled, sampler.top_p, sampler.top_k).log_softmax(-1).clamp_min(LOWEST)
        return both[0], both[0]

    def span(self, wanted: int) -> tuple[list[int], list[int]]:
        """Positions from the first open one to the last decided or predicted one of the block, with their ids, -1 where open."""
        open = self.canvas.open[0]
        positions = open.nonzero()[:, 0]
        first, last = int(positions[0]), int(positions[wanted - 1])
        while last + 1 < self.canvas.length and not open[last + 1]:
            last += 1
        known = self.canvas.tokens[0, self.upto : last + 1].cpu()
        while self.upto < first:
            self.state = self.automaton.step(self.state, int(known[0]))
            known = known[1:]
            self.upto += 1
        ids = torch.where(open[first : last + 1], -1, known).tolist()
        return list(range(first, last + 1)), ids

    def scores(self, logprobs: Tensor, free: list[int], ids: list[int], reduce: str) -> list[Tensor]:
        """Per position, the log-weight of every class of tokens: its likeliest member's, or the sum of all."""
        return [self.weigh(logprobs[place], reduce) if place >= 0 else self.fixed(token) for place, token in zip(free, ids, strict=True)]

    def weigh(self, logprobs: Tensor, reduce: str) -> Tensor:
        weights = logprobs[self.members]
        if reduce == "max":
            return torch.segment_reduce(weights, "max", lengths=self.sizes).cpu()
        peak = torch.segment_reduce(weights, "max", lengths=self.sizes)
        total = torch.segment_reduce((weights - peak[self.owner]).exp(), "sum", lengths=self.sizes)
        return (peak + total.log()).cpu()

    def fixed(self, token: int) -> Tensor:
        """0 for the classes that hold a decided token, else nothing."""
        weights = torch.full((len(self.sizes),), -torch.inf, dtype=torch.float64)
        weights[self.owner[self.members == token].cpu()] = 0.0
        return weights

    def allowed(self, position: int) -> Tensor:
        """(states,) 0 for states after `position` from which the answer can still end in time, else -inf."""
        left = self.most - (position + 1 - self.canvas.start)
        possible = (self.least >= 0) & (self.least <= max(left, 0))
        if left < 0:
            possible = torch.zeros_like(possible)
        possible[self.automaton.end] = True
        return torch.zeros(len(possible), dtype=torch.float64).masked_fill(~possible, -torch.inf)

    def ahead(self, scores: list[Tensor], span: list[int], combine: Callable) -> list[Tensor]:
        """Per position and one more, (states,) the combined weight of every way from there to the block's end."""
        weights = [self.allowed(span[-1])]
        for score, position in zip(reversed(scores), reversed([span[0] - 1, *span[:-1]]), strict=True):
            ways = score[self.kind] + weights[-1][self.target]
            weights.append(combine(ways, self.source, self.automaton.states) + (self.allowed(position) if position >= span[0] else 0.0))
        return weights[::-1]

    def walk(self, logprobs: Tensor, free: list[int], ids: list[int], ahead: list[Tensor], generator: torch.Generator | None) -> list[int]:
        """One matching text: the likeliest, or a draw. Its tokens at the open positions."""
        state, tokens = self.state, []
        for index, (place, token) in enumerate(zip(free, ids, strict=True)):
            if place < 0:
                state = self.automaton.step(state, token)
                continue
            pairs = torch.from_numpy(self.automaton.pairs_of(state))
            weights = self.weigh(logprobs[place], "max" if generator is None else "sum")[self.kind[pairs]] + ahead[index + 1][self.target[pairs]]
            if not weights.isfinite().any():
                raise RuntimeError(f"no text matches the grammar from position {index} on")
            pair = int(pairs[pick(weights, generator)])
            members = self.members[self.bounds[self.kind[pair]] : self.bounds[self.kind[pair] + 1]]
            tokens.append(int(members[pick(logprobs[place, members].cpu(), generator)]))
            state = int(self.target[pair])
        return tokens

    def marginals(self, logprobs: Tensor, free: list[int], ids: list[int], span: list[int]) -> Tensor:
        """(w, vocab) for every open position, the distribution of its token among all texts that match."""
        scores = self.scores(logprobs, free, ids, "sum")
        ahead = self.ahead(scores, span, logsumexp)
        behind = torch.full((self.automaton.states,), -torch.inf, dtype=torch.float64)
        behind[self.state] = 0.0
        rows = []
        for index, place in enumerate(free):
            ways = behind[self.source] + ahead[index + 1][self.target]
            if place >= 0:
                classes = logsumexp(ways, self.kind, len(self.sizes)).to(logprobs.device)
                peak = classes.max()
                chance = torch.zeros(logprobs.shape[-1], dtype=torch.float64, device=logprobs.device)
                chance.index_add_(0, self.members, (classes - peak).exp()[self.owner])
                weight = chance.log() + logprobs[place]
                rows.append(weight.softmax(-1))
            behind = logsumexp(behind[self.source] + scores[index][self.kind], self.target, self.automaton.states) + self.allowed(span[index])
        return torch.stack(rows)


def pick(weights: Tensor, generator: torch.Generator | None) -> int:
    """The largest log-weight, or a draw in proportion."""
    if generator is None:
        return int(weights.argmax())
    return int(torch.multinomial(weights.softmax(-1), 1, generator=generator))


def highest(weights: Tensor, index: Tensor, count: int) -> Tensor:
    """The largest of the weights that go to each place."""
    return torch.full((count,), -torch.inf, dtype=weights.dtype).scatter_reduce(0, index, weights, "amax")


def logsumexp(weights: Tensor, index: Tensor, count: int) -> Tensor:
    """log of the sum of exp of the weights that go to each place."""
    peak = highest(weights, index, count)
    level = peak.masked_fill(peak.isneginf(), 0.0)
    total = torch.zeros(count, dtype=weights.dtype).index_add(0, index, (weights - level[index]).exp())
    return level + total.log()
