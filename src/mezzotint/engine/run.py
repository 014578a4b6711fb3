"""One request inside the engine: its canvas, its place in the loop, and what each step changed, in plain values."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mezzotint.canvas import Canvas
from mezzotint.commit import Prediction
from mezzotint.denoising import Ask, Draw, Step, as_canvas, turns
from mezzotint.models.transformer import Transformer
from mezzotint.recipe import Recipe, round_up
from mezzotint.types import Positions

if TYPE_CHECKING:
    from mezzotint.grammar.automaton import Automaton

WITHOUT_FORWARD = 64
"""Steps that a run may take at a time without a forward: then other runs have their turn, and deadlines are looked at."""


@dataclass(frozen=True)
class Request:
    """What is asked of the engine.

    pieces: what stands on the canvas: ids, and numbers of masks between them. Ids alone are a prompt, which the recipe's canvas follows.
    seed: of this request alone; alternatives: so many of the likeliest tokens are reported with every commit, None for no log-probabilities;
    drafts: every step reports its candidates for undecided positions; seconds: deadline, counted from submission; grammar: what the answer must match.
    """

    pieces: tuple[tuple[int, ...] | int, ...]
    recipe: Recipe
    seed: int = 0
    alternatives: int | None = None
    drafts: bool = False
    seconds: float | None = None
    grammar: "Automaton | None" = None

    @property
    def open_ended(self) -> bool:
        return not any(isinstance(piece, int) for piece in self.pieces)

    @property
    def prompt(self) -> tuple[int, ...]:
        """The ids before the first mask."""
        first = next((i for i, piece in enumerate(self.pieces) if isinstance(piece, int)), len(self.pieces))
        return tuple(token for piece in self.pieces[:first] for token in piece)  # type: ignore[union-attr]

    @property
    def length(self) -> int:
        """Canvas positions at the end of the run."""
        given = sum(piece if isinstance(piece, int) else len(piece) for piece in self.pieces)
        recipe = self.recipe
        ahead = recipe.gen_length if recipe.max_tokens is None else round_up(recipe.max_tokens, recipe.width)
        return given + ahead if self.open_ended else given


@dataclass(frozen=True)
class Chosen:
    """A token at a position, counted from the first generated one: log-probability (nats) under the model's own distribution when it was chosen, and the
    likeliest alternatives with theirs. None, where nobody asked."""

    position: int
    token: int
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Update:
    """What one step changed. Positions count from the first generated one.

    decided: ids that joined the contiguous, final beginning of the answer; block: its first position and the one after its last; accepted: what was
    committed; drafts: candidates for what is still open; computed: rows run through the network, 0 if the step needed no forward; remembered: visible rows
    that were read from memory; unseen: positions that the suffix strategy hid; length: positions on the canvas;
    finished: "stop" (a stop id, a text that matches the grammar, or full gaps), "length" (no more room) or None.
    """

    step: int
    block: tuple[int, int]
    decided: tuple[int, ...]
    accepted: tuple[Chosen, ...]
    drafts: tuple[Chosen, ...]
    computed: int
    remembered: int
    unseen: tuple[int, ...]
    length: int
    finished: str | None


class Run:
    """A request on its way. `ask` is the forward it waits for, None if it is to `go_on` without one, or has `ended`."""

    def __init__(self, model: Transformer, request: Request):
        self.request, self.begun = request, time.monotonic()
        recipe, config = request.recipe, model.config
        if request.open_ended:
            self.canvas = as_canvas([torch.tensor(request.prompt)], model, recipe)
        else:
            self.canvas = Canvas.gaps([list(p) if isinstance(p, tuple) else p for p in request.pieces], config.mask_id, model.device)
        sampler = None
        if request.grammar is not None:
            from mezzotint.grammar.constrained import Constrained

            most = recipe.max_tokens or recipe.gen_length
            sampler = Constrained(recipe.sampler(), request.grammar, self.canvas, most, config.stop_ids)
        self.turns = turns(model, self.canvas, recipe, [request.seed], grows=request.open_ended, sampler=sampler)
        start = self.canvas.start
        self.ids = torch.where(self.canvas.given[0, start:], self.canvas.tokens[0, start:].cpu(), -1).tolist()
        self.known = 0
        self.stop_ids = frozenset(config.stop_ids)
        self.limit = (recipe.max_tokens or recipe.gen_length) if request.open_ended else int(self.canvas.open[0].nonzero()[-1]) + 1 - start
        self.ask: Ask | None = None
        self.ended = False
        self.logits: Tensor | None = None
        self.predicted: list[int] = []

    def start(self) -> list[Update]:
        """Go to the first forward."""
        return self._go(next(self.turns, None))

    def hear(self, logits: Tensor) -> Draw:
        """Give the logits asked for; what is to be drawn from them."""
        assert self.ask is not None
        if self.request.drafts or self.request.alternatives is not None:
            self.logits, self.predicted = logits, self.ask.predict.tolist()
        draw = self.turns.send(logits)
        assert isinstance(draw, Draw)
        return draw

    def take(self, prediction: Prediction) -> list[Update]:
        """Give what was drawn, and go to the next forward or the end."""
        return self._go(self.turns.send(prediction))

    def go_on(self) -> list[Update]:
        """Take more of the steps that need no forward."""
        return self._go(next(self.turns, None))

    def close(self) -> None:
        self.turns.close()
        self.ask = self.logits = None
        self.ended = True

    def _go(self, turn: Ask | Draw | Step | None) -> list[Update]:
        """To the next forward, or `WITHOUT_FORWARD` steps on the way there. A step that needs none draws alone."""
        updates: list[Update] = []
        self.ask = None
        while isinstance(turn, Draw | Step):
            if isinstance(turn, Draw):
                turn = self.turns.send(turn.answer())
                continue
            updates.append(self._update(turn))
            if updates[-1].finished:
                self.close()
                return updates
            if len(updates) == WITHOUT_FORWARD:
                return updates
            turn = next(self.turns, None)
        self.ask, self.ended = turn, turn is None
        return updates

    def _update(self, step: Step) -> Update:
        start, block = self.canvas.start, (step.block.start - self.canvas.start, step.block.end - self.canvas.start)
        self.ids += [-1] * (self.canvas.length - start - len(self.ids))
        self.ids[max(0, block[0]) : block[1]] = step.ids[0, max(0, -block[0]) :].tolist()
        before = self.known
        final = block[0] if step.tentative else len(self.ids)
        while self.known < final and self.ids[self.known] >= 0 and (self.limit is None or self.known < self.limit):
            self.known += 1
        full = self.known == self.limit
        finished = step.finished[0] if self.request.open_ended else None
        if full and (finished is None or self.stop_ids.isdisjoint(self.ids[: self.known])):
            finished = "length"
        if finished and (self.request.grammar is not None or not self.request.open_ended):
            finished = "stop"
        accepted = [p for p in (step.accepted[0].nonzero()[:, 0] + block[0]).tolist() if p >= 0]
        undecided = [p - start for p in self.predicted if p >= start and self.ids[p - start] < 0] if self.request.drafts else []
        return Update(
            step.index,
            block,
            tuple(self.ids[before : self.known]),
            self._chosen(accepted, [self.ids[p] for p in accepted]),
            self._chosen(undecided, None),
            len(step.computed) * (1 if self.request.recipe.cfg_scale == 0 else 2),
            len(step.visible) - len(step.computed) if len(step.computed) else 0,
            self._unseen(step.visible),
            len(self.ids),
            finished,
        )

    def _unseen(self, visible: Positions) -> tuple[int, ...]:
        """Generated positions that a step did not see."""
        start, length = self.canvas.start, self.canvas.length
        return () if len(visible) == length else tuple(sorted(set(range(length - start)) - {p - start for p in visible.tolist()}))

    def _chosen(self, positions: list[int], tokens: list[int] | None) -> tuple[Chosen, ...]:
        """Tokens (None: the likeliest) at positions, with their log-probabilities if somebody asked for them."""
        if not positions:
            return ()
        count = self.request.alternatives
        if count is None and not self.request.drafts:
            return tuple(Chosen(p, t) for p, t in zip(positions, tokens or (), strict=True))
        assert self.logits is not None
        place = {p - self.canvas.start: i for i, p in enumerate(self.predicted)}
        logprobs = self.logits[0, [place[p] for p in positions]].float().log_softmax(-1)
        top = logprobs.topk(max(1, count or 0), dim=-1)
        likeliest, values = top.indices.cpu(), top.values.cpu()
        wanted = likeliest[:, 0] if tokens is None else torch.tensor(tokens)
        sure = logprobs.gather(-1, wanted.to(logprobs.device)[:, None])[:, 0].tolist()
        others = [tuple(zip(i[:count], v[:count], strict=True)) if count else () for i, v in zip(likeliest.tolist(), values.tolist(), strict=True)]
        return tuple(Chosen(*each) for each in zip(positions, wanted.tolist(), sure, others, strict=True))
