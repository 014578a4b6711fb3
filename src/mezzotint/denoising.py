"""The one loop: a model, a canvas, a recipe and a seed in; steps out. Every method is a strategy that this loop asks."""

import operator
import time
import warnings
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import SupportsIndex, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mezzotint.canvas import Block, Canvas
from mezzotint.commit import Prediction, Sampler
from mezzotint.layout import check_blocks, lay_out
from mezzotint.models.config import ModelConfig
from mezzotint.models.guidance import Guided
from mezzotint.models.memory import Memory
from mezzotint.models.transformer import Attend, Through, Transformer
from mezzotint.recipe import Recipe, round_up
from mezzotint.types import Moment, Positions, Wanted
from mezzotint.writing import Writing

NOTHING = torch.empty(0, dtype=torch.long)

Seed = SupportsIndex | Sequence[SupportsIndex]
"""One whole number per row, or one to which row i adds i; NumPy's are as good as Python's."""


@dataclass(frozen=True)
class Step:
    """One denoising step.

    index: from 0; block: the active block; computed, visible: canvas positions of the forward (computed is empty if the
    logits were reused); accepted: (b, block) what this step decided, on the host; ids: (b, block) the block's ids after it,
    -1 where undecided (also behind a stop id), on the host; tokens: (b, n) the canvas itself on the device, which later steps change;
    finished: (b,) "stop", "length" or None per row; begins: the first generated position of each row; tentative: the block's
    tokens may still be rewritten; share: how much of the computed rows' way through the layers was computed, below 1 where a cache acts inside the layers;
    asked: rows of which something was asked of the forward; recall: the mean share of attention that a sparse pattern keeps, measured when it was made,
    None for attention without one.
    """

    index: int
    block: Block
    computed: Positions
    visible: Positions
    accepted: Bool[Tensor, "b w"]
    ids: Int[Tensor, "b w"]
    tokens: Int[Tensor, "b n"]
    finished: tuple[str | None, ...]
    recall: float | None = None
    tentative: bool = False
    begins: tuple[int, ...] = ()
    share: float = 1.0
    asked: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Generation:
    """The end of a run.

    tokens: (b, prompt + generated) ids from `denoise_all`, the answer's ids from `generate`; forwards: model calls;
    positions_computed: rows run through the network, summed over forwards and the batch, by `Step.share` where layers skip rows; seconds: wall time;
    finish_reasons: per row, "stop" (a stop id was decided) or "length" (the canvas is full); recall: the last `Step.recall` of the run, None if attention
    was dense all the way.
    """

    tokens: Tensor
    forwards: int
    positions_computed: int
    seconds: float
    finish_reasons: tuple[str, ...]
    recipe: Recipe
    text: str = ""
    recall: float | None = None

    @property
    def finish_reason(self) -> str:
        return self.finish_reasons[0]


@dataclass(frozen=True)
class Ask:
    """A forward that a run wants: who is asked, and the arguments of the call (see `Transformer.forward`). `answer` makes it."""

    network: Transformer | Guided
    tokens: Int[Tensor, "b rows"]
    at: Positions
    over: Positions
    attend: Attend
    memory: Memory | None
    padding: Int[Tensor, " b"] | None
    predict: Positions
    through: Through | None

    def answer(self) -> Tensor:
        """The logits (b, wanted, vocab)."""
        rest = {"attend": self.attend, "memory": self.memory, "padding": self.padding, "predict": self.predict, "through": self.through}
        return self.network(self.tokens, self.at, over=self.over, **rest)


@dataclass(frozen=True)
class Draw:
    """Candidates that a run wants, from the logits it was sent (b, wanted, vocab), for what is `open` of them. `answer` draws them."""

    sampler: Sampler | Callable[[Tensor, Wanted, Sequence[torch.Generator]], Prediction]
    logits: Float[Tensor, "b wanted vocab"]
    open: Wanted
    generators: Sequence[torch.Generator]

    def answer(self) -> Prediction:
        return self.sampler(self.logits, self.open, self.generators)


class Tally:
    """What a run has cost so far, in all and for each row while something of it was open."""

    def __init__(self, batch: int, recipe: Recipe):
        self.streams = 1 if recipe.cfg_scale == 0 else 2
        self.forwards = self.positions = 0
        self.row_forwards, self.row_positions = [0] * batch, [0] * batch
        self.running = [True] * batch
        self.recall: float | None = None

    def count(self, step: Step) -> None:
        self.recall = self.recall if step.recall is None else step.recall
        if len(step.computed):
            positions = self.streams * round(step.share * len(step.computed))
            self.forwards += 1
            self.positions += positions * len(self.running)
            for row, asked in enumerate(step.asked):
                if asked and self.running[row]:
                    self.row_forwards[row] += 1
                    self.row_positions[row] += positions
        self.running = [reason is None for reason in step.finished]


def as_canvas(prompt: Canvas | Tensor | Sequence[Tensor], model: Transformer, recipe: Recipe) -> Canvas:
    """The canvas a prompt starts: a (b, p) tensor or a list of 1-D tensors of any lengths, followed by masks."""
    if isinstance(prompt, Canvas):
        if recipe.max_tokens is not None:
            raise ValueError(f"max_tokens={recipe.max_tokens} has no meaning for a Canvas, whose length is given; leave it out")
        return prompt
    rows = [torch.as_tensor(row, dtype=torch.long).cpu() for row in prompt]
    if not rows or any(row.ndim != 1 for row in rows):
        raise ValueError("the prompt must be a (batch, length) tensor of token ids or a list of 1-D ones")
    vocabulary = model.config.vocab_size
    wrong = next((int(token) for row in rows for token in row[(row < 0) | (row >= vocabulary)]), None)
    if wrong is not None:
        raise ValueError(f"token id {wrong} is not one of this model's {vocabulary}")
    ahead = recipe.gen_length if recipe.max_tokens is None else min(recipe.gen_length, round_up(recipe.max_tokens, recipe.width))
    config = model.config
    return Canvas.blank(rows, ahead, config.mask_id, model.device, grid=config.block_length, to_end=config.aligned_to_end)


def stop_positions(ids: Int[Tensor, "b w"], given: Bool[Tensor, "b w"], stop_ids: Int[Tensor, " s"], early_stop: str) -> list[int | None]:
    """Where each row ends inside its block: the first stop id that was not given, once everything before it (or the whole block) is decided."""
    stops = torch.isin(ids, stop_ids) & ~given
    if not stops.any():
        return [None] * len(ids)
    decided = (ids >= 0).long().cumprod(1).bool()
    if early_stop == "block":
        decided = decided & decided[:, -1:]
    stops &= decided
    return [int(row.int().argmax()) if found else None for row, found in zip(stops, stops.any(1).tolist(), strict=True)]


_warned: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def warn_beyond(model: Transformer, length: int) -> None:
    """Once per model: a canvas is longer than what the model was trained on, or its scaling was chosen for."""
    config = model.config
    if length > config.reach and model not in _warned:
        _warned.add(model)
        scaling = ample(config, length)
        warnings.warn(
            f"the canvas of {length} tokens exceeds the model's {config.context}; choose a scaling with rope_scaling={scaling!r} or --rope-scaling {scaling}",
            stacklevel=3,
        )


def ample(config: ModelConfig, length: int) -> str:
    """A scaling under which so many tokens fit."""
    return f"ntk:{max(2, -(-length // config.max_length))}"


def denoise(model: Transformer, prompt: Canvas | Tensor | Sequence[Tensor], recipe: Recipe | None = None, *, seed: Seed = 0) -> Iterator[Step]:
    """Uncover a canvas step by step.

    prompt: token ids (b, p), a list of 1-D id tensors of any lengths, or a `Canvas`, which is filled in place, and to its end if something is given behind
    its first mask: stop ids then end nothing, whatever `early_stop` says. seed: one per row, or a number to which row i adds i.
    A row's result does not depend on its neighbours, with two exceptions: a suffix strategy which draws does so once for all rows, from row 0's seed; and
    what counts positions or forwards of the whole batch (sparse attention's tiles, the intervals of `PromptCache` and `FeatureCache`) counts padding and
    neighbours too. Raises ValueError for input that cannot be run.
    """
    recipe = recipe or Recipe()
    canvas = as_canvas(prompt, model, recipe)
    return uncover(model, canvas, recipe, row_seeds(seed, canvas.batch), grows=not isinstance(prompt, Canvas))


@torch.inference_mode()
def uncover(model: Transformer, canvas: Canvas, recipe: Recipe, seeds: list[int], *, grows: bool) -> Iterator[Step]:
    """The loop with its forwards made one by one. `canvas` is filled in place; `grows`: it may be extended up to recipe.max_tokens."""
    check_blocks(canvas, recipe, grows=grows)
    run = turns(model, canvas, recipe, seeds, grows=grows)
    turn = next(run, None)
    while turn is not None:
        if isinstance(turn, Step):
            yield turn
            turn = next(run, None)
        else:
            turn = run.send(turn.answer())


def turns(
    model: Transformer, canvas: Canvas, recipe: Recipe, seeds: list[int], *, grows: bool, sampler: Sampler | Callable | None = None
) -> Generator[Ask | Draw | Step, Tensor | Prediction | None, None]:
    """The loop, which leaves its arithmetic to the caller: it yields an `Ask` and is sent the logits, yields a `Draw` and is sent the candidates, and
    yields the `Step` that came of them.

    A step that needs no forward follows without an `Ask`. sampler: in place of the recipe's. To be driven under `torch.inference_mode()`.
    """
    config, device = model.config, canvas.tokens.device
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    layout = lay_out(canvas, config, recipe)
    grows = grows and recipe.max_tokens is not None
    limit = layout.limit(recipe.max_tokens) if grows and recipe.max_tokens else canvas.length
    warn_beyond(model, canvas.length)

    network = model if recipe.cfg_scale == 0 else Guided(model, recipe.cfg_scale, canvas.decided.clone())
    memory = network.memory(canvas.batch, canvas.length) if recipe.cache.stores else None
    attention, cache = recipe.attention.begin(canvas), recipe.cache.begin(canvas)
    alone, renews = getattr(recipe.cache, "first_alone", False), getattr(recipe.cache, "renews", lambda moment: False)
    suffix = recipe.suffix.begin(canvas, torch.Generator().manual_seed(generators[0].initial_seed()))
    stop_ids = torch.tensor(config.stop_ids)
    stops = recipe.early_stop != "off" and all(bool(canvas.open[row, begin:].all()) for row, begin in enumerate(canvas.begins))
    finished: list[str | None] = [None] * canvas.batch
    sample = sampler or recipe.sampler(config.stop_ids)
    step = index = 0

    while (block := canvas.block(index, recipe.width)).start < limit and None in finished:
        if grows:
            canvas.extend(min(limit, layout.whole(block.start + recipe.gen_length)))
            warn_beyond(model, canvas.length)
            block = canvas.block(index, recipe.width)
            if memory is not None:
                memory.grow(canvas.length)
        writing = Writing(recipe.commit, recipe.steps_per_block, canvas, block)
        visible = layout.enter(block, suffix(block))
        logits, predict, seen = None, NOTHING, visible
        within = 0
        while (wanted := writing.wanted).any():
            computed = NOTHING
            carried = within == 0 and layout.carries(block, wanted)
            planned = getattr(writing.accept, "planned", None)
            asked = wanted if planned is None else wanted & planned
            moment = Moment(step, block, within, config.shift, recipe.blocks * recipe.steps_per_block, canvas.committed, layout.before, planned)
            if logits is None or renews(moment):
                seen = visible[visible < block.start] if carried else visible
                computed = layout.needed(moment, seen if carried else cache(moment, visible), carried)
                predict = block.start + (NOTHING.new_zeros(1) if carried else asked.any(0).nonzero()[:, 0])
                answer = yield Ask(
                    network,
                    canvas.tokens[:, computed.to(device, non_blocking=True)],
                    computed,
                    seen,
                    attention(moment),
                    memory,
                    canvas.padding,
                    predict,
                    getattr(cache, "through", None),
                )
                logits = cast(Tensor, answer)
                logits[..., config.mask_id] = -torch.inf
                if memory is not None:
                    layout.computed(computed)
            asking = tuple(asked.any(1).tolist())
            prediction = yield Draw(sample, logits, asked[:, predict - block.start], generators)
            changed = writing.write(predict, cast(Prediction, prediction), alone=carried or (alone and within == 0))
            if memory is not None and writing.revise and not changed.any():
                layout.closed(block, computed)
            pending = writing.pending.any(1)
            if stops:
                given = canvas.given[:, block.start : block.end]
                for row, position in enumerate(stop_positions(writing.ids, given, stop_ids, recipe.early_stop)):
                    if position is not None and finished[row] is None and not pending[row]:
                        finished[row] = "stop"
                        canvas.finish(row, block.start + position + 1, config.pad_id)
            if block.end >= limit:
                done = ~canvas.open.any(1) & ~pending
                finished = [reason or ("length" if full else None) for reason, full in zip(finished, done.tolist(), strict=True)]
            recall, share, tentative = getattr(attention, "recall", None), getattr(cache, "share", 1.0), bool(pending.any())
            ends, begins = tuple(finished), tuple(canvas.begins)
            yield Step(step, block, computed, seen, changed, writing.ids, canvas.tokens, ends, recall, tentative, begins, share, asking)
            if changed.any() or not recipe.reuse:
                logits = None
            step += 1
            within += not carried
        index += 1


def row_seeds(seed: Seed, rows: int) -> list[int]:
    """One seed per row."""
    seeds = [int(seed) + row for row in range(rows)] if isinstance(seed, Integral) else list(map(operator.index, cast(Sequence[SupportsIndex], seed)))
    if len(seeds) != rows:
        raise ValueError(f"seed has {len(seeds)} values for {rows} rows; give one per row, or one number")
    return seeds


def denoise_all(model: Transformer, prompt: Canvas | Tensor | Sequence[Tensor], recipe: Recipe | None = None, *, seed: Seed = 0) -> Generation:
    """Run `denoise` to its end. The tokens are (b, prompt + generated), shorter prompts padded on the left; with `max_tokens` they are whole blocks, which
    only `generate` and `stream` cut."""
    recipe = recipe or Recipe()
    begun = time.perf_counter()
    canvas = as_canvas(prompt, model, recipe)
    tally = Tally(canvas.batch, recipe)
    for step in uncover(model, canvas, recipe, row_seeds(seed, canvas.batch), grows=not isinstance(prompt, Canvas)):
        tally.count(step)
    reasons = tuple("stop" if row in canvas.fills else "length" for row in range(canvas.batch))
    return Generation(canvas.tokens.clone(), tally.forwards, tally.positions, time.perf_counter() - begun, reasons, recipe, recall=tally.recall)
