"""Sampling under a grammar: all of a block's candidates come from one text that matches, so that whatever subset is committed stays satisfiable.

The model's predictions are independent per position; conditioned on the grammar they are a chain over the automaton's states. Dynamic programming over the
block gives the likeliest matching text (temperature 0; as in DINGO, arXiv 2505.23061) or an exact draw (above 0), and every position's exact marginal
distribution, which confidence is measured on: a token that the grammar forces has probability 1 and is committed at once.
"""

from collections.abc import Callable, Sequence

import numpy as np
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
        self.members = torch.from_numpy(automaton.members).to(device)
        self.sizes = torch.from_numpy(np.diff(automaton.bounds)).to(device)
        self.owner = torch.repeat_interleave(torch.arange(len(self.sizes), device=device), self.sizes)
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

    def scores(self, logprobs: Tensor, free: list[int], ids: list[int], reduce: str) -> list[np.ndarray]:
        """Per position, the log-weight of every class of tokens: its likeliest member's, or the sum of all."""
        return [self.weigh(logprobs[place], reduce) if place >= 0 else self.fixed(token) for place, token in zip(free, ids, strict=True)]

    def weigh(self, logprobs: Tensor, reduce: str) -> np.ndarray:
        weights = logprobs[self.members]
        peak = torch.segment_reduce(weights, "max", lengths=self.sizes)
        if reduce == "max":
            return peak.cpu().numpy()
        total = torch.segment_reduce((weights - peak[self.owner]).exp(), "sum", lengths=self.sizes)
        return (peak + total.log()).cpu().numpy()

    def fixed(self, token: int) -> np.ndarray:
        """0 for the classes that hold a decided token, else nothing."""
        weights = np.full(len(self.sizes), -np.inf)
        weights[self.owner[self.members == token].cpu().numpy()] = 0.0
        return weights

    def allowed(self, position: int) -> np.ndarray:
        """(states,) 0 for states after `position` from which the answer can still end in time, else -inf."""
        left = self.most - (position + 1 - self.canvas.start)
        least = self.automaton.least
        found = np.where((least >= 0) & (least <= left), 0.0, -np.inf)
        found[self.automaton.end] = 0.0
        return found

    def ahead(self, scores: list[np.ndarray], span: list[int], combine: Callable) -> list[np.ndarray]:
        """Per position and one more, (states,) the combined weight of every way from there to the block's end."""
        automaton = self.automaton
        weights = [self.allowed(span[-1])]
        for score, position in zip(reversed(scores), reversed([span[0] - 1, *span[:-1]]), strict=True):
            ways = combine(score[automaton.kind] + weights[-1][automaton.target], automaton.source, automaton.states)
            weights.append(ways + self.allowed(position) if position >= span[0] else ways)
        return weights[::-1]

    def walk(self, logprobs: Tensor, free: list[int], ids: list[int], ahead: list[np.ndarray], generator: torch.Generator | None) -> list[int]:
        """One matching text: the likeliest, or a draw. Its tokens at the open positions."""
        automaton, state, tokens = self.automaton, self.state, []
        for index, (place, token) in enumerate(zip(free, ids, strict=True)):
            if place < 0:
                state = automaton.step(state, token)
                continue
            pairs = automaton.pairs_of(state)
            weights = self.weigh(logprobs[place], "max" if generator is None else "sum")[automaton.kind[pairs]] + ahead[index + 1][automaton.target[pairs]]
            if not np.isfinite(weights).any():
                raise RuntimeError(f"no text matches the grammar from position {index} on")
            pair = pairs[pick(torch.from_numpy(weights), generator)]
            first, last = automaton.bounds[automaton.kind[pair]], automaton.bounds[automaton.kind[pair] + 1]
            members = self.members[int(first) : int(last)]
            tokens.append(int(members[pick(logprobs[place, members].cpu(), generator)]))
            state = int(automaton.target[pair])
        return tokens

    def marginals(self, logprobs: Tensor, free: list[int], ids: list[int], span: list[int]) -> Tensor:
        """(w, vocab) for every open position, the distribution of its token among all texts that match."""
        automaton = self.automaton
        scores = self.scores(logprobs, free, ids, "sum")
        ahead = self.ahead(scores, span, logsumexp)
        behind = np.full(automaton.states, -np.inf)
        behind[self.state] = 0.0
        rows = []
        for index, place in enumerate(free):
            before = behind[automaton.source]
            if place >= 0:
                classes = torch.from_numpy(logsumexp(before + ahead[index + 1][automaton.target], automaton.kind, len(self.sizes))).to(logprobs.device)
                chance = torch.zeros(logprobs.shape[-1], dtype=torch.float64, device=logprobs.device)
                chance.index_add_(0, self.members, (classes - classes.max()).exp()[self.owner])
                rows.append((chance.log() + logprobs[place]).softmax(-1))
            behind = logsumexp(before + scores[index][automaton.kind], automaton.target, automaton.states) + self.allowed(span[index])
        return torch.stack(rows)


def pick(weights: Tensor, generator: torch.Generator | None) -> int:
    """The largest log-weight, or a draw in proportion."""
    if generator is None:
        return int(weights.argmax())
    return int(torch.multinomial(weights.softmax(-1), 1, generator=generator))


def highest(weights: np.ndarray, index: np.ndarray, count: int) -> np.ndarray:
    """The largest of the weights that go to each place."""
    found = np.full(count, -np.inf)
    np.maximum.at(found, index, weights)
    return found


def logsumexp(weights: np.ndarray, index: np.ndarray, count: int) -> np.ndarray:
    """log of the sum of exp of the weights that go to each place."""
    peak = highest(weights, index, count)
    level = np.where(np.isneginf(peak), 0.0, peak)
    total = np.bincount(index, np.exp(weights - level[index]), count)
    with np.errstate(divide="ignore"):
        return level + np.log(total)
