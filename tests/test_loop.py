"""The loop's promises: every strategy composes, rows are independent, runs do not meet, what is skipped changes nothing."""

import copy
import dataclasses
import itertools
import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from conftest import HERE
from torch.testing import assert_close

import mezzotint as mz
from mezzotint.commit import Prediction, Timed
from mezzotint.strategies import KINDS

PROMPT = torch.arange(40, 53)[None]


def recipe_for(gen_length=32, **strategies) -> mz.Recipe:
    return mz.Recipe(gen_length=gen_length, block_length=8, early_stop="off", **strategies)


def variants(kind):
    """Each registered strategy at its defaults."""
    return [cls() for cls in KINDS[kind].values()]


def confidence_for(commit) -> str:
    return (getattr(commit, "needs", ()) or ("probability",))[0]


def fits(commit, cache) -> bool:
    """Refused elsewhere: a greedy cache needs an order, and edited tokens must be computed."""
    if isinstance(cache, mz.GreedyCache):
        return isinstance(commit, mz.Shuffled)
    return not (isinstance(commit, mz.Edit) and isinstance(cache, mz.DelayedCache | mz.SubBlockCache))


COMBINATIONS = list(
    dict.fromkeys(
        [
            *((commit, mz.Full(), cache, mz.Dense()) for commit, cache in itertools.product(variants("commit"), variants("cache")) if fits(commit, cache)),
            *((commit, suffix, mz.NoCache(), mz.Dense()) for commit, suffix in itertools.product(variants("commit"), variants("suffix"))),
            *((mz.Shuffled(), suffix, cache, mz.Dense()) for suffix, cache in itertools.product(variants("suffix"), variants("cache"))),
            *itertools.product([mz.Threshold()], [mz.Full()], [mz.PrefixCache()], variants("attention")),
        ]
    )
)
"""Every pair of strategies. Sparse attention meets every suffix and cache in test_sparse_attention.py, on tiles small enough to matter."""


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize(("commit", "suffix", "cache", "attention"), COMBINATIONS, ids=lambda s: type(s).__name__)
def test_every_combination_fills_the_canvas(tiny, family, commit, suffix, cache, attention):
    """Ends with no mask left, the prompt untouched, compute ⊆ visible, the same tokens for the same seed."""
    model = tiny[family]
    recipe = recipe_for(16, steps=8, commit=commit, suffix=suffix, cache=cache, attention=attention, confidence=confidence_for(commit))
    canvas = mz.Canvas.blank(list(PROMPT), 16, model.config.mask_id, model.device)
    for step in mz.denoise(model, canvas, recipe, seed=3):
        assert torch.isin(step.computed, step.visible).all()
        assert step.visible.max() < canvas.length
    assert canvas.decided.all()
    assert not canvas.open.any()
    assert torch.equal(canvas.tokens[:, :13], PROMPT)
    assert torch.equal(canvas.tokens, mz.denoise_all(model, PROMPT, recipe, seed=3).tokens)


NULLS = {
    "suffix": [mz.DPad(window=512, k=0.0, a=3.0), mz.UniformDropout(number=512)],
    "attention": [mz.Dense(), mz.SlidingWindow(window=2 * 45, block_size=8), mz.StreamingLLM(window=2 * 45, block_size=8, first=1)],
    "cache": [mz.NoCache()],
}


@pytest.mark.parametrize(("kind", "strategy"), [(k, s) for k, found in NULLS.items() for s in found], ids=str)
def test_a_setting_equals_the_plain_loop(tiny, kind, strategy):
    plain = mz.denoise_all(tiny["llada"], PROMPT, recipe_for())
    other = mz.denoise_all(tiny["llada"], PROMPT, recipe_for(**{kind: strategy}))
    assert torch.equal(plain.tokens, other.tokens)
    assert plain.forwards == other.forwards == 32
    assert plain.positions_computed == other.positions_computed == 32 * 45


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("family", ["llada", "dream"])
def test_rows_of_different_lengths_equal_one_by_one(tiny, family, temperature):
    model = tiny[family]
    prompts = [torch.arange(10, 10 + n) for n in (5, 17, 9)]
    sampling = "gumbel" if family == "llada" else "categorical"
    recipe = mz.Recipe(gen_length=16, block_length=8, temperature=temperature, sampling=sampling, commit=mz.Threshold(0.3), early_stop="step")
    together = mz.denoise_all(model, prompts, recipe, seed=[5, 6, 7])
    for row, prompt in enumerate(prompts):
        alone = mz.denoise_all(model, prompt[None], recipe, seed=5 + row)
        assert torch.equal(together.tokens[row, -16:], alone.tokens[0, -16:])
        assert together.finish_reasons[row] == alone.finish_reason


def test_two_interleaved_runs_equal_two_in_turn(tiny):
    model = tiny["llada"]
    recipe = recipe_for(cache=mz.PrefixCache(), suffix=mz.DPad(window=16), commit=mz.Threshold(0.5))
    first, second = PROMPT, PROMPT.flip(1)
    turns = [list(mz.denoise(model, p, recipe, seed=1))[-1].tokens for p in (first, second)]
    runs = [mz.denoise(model, p, recipe, seed=1) for p in (first, second)]
    last = [None, None]
    for steps in itertools.zip_longest(*runs):
        for i, step in enumerate(steps):
            last[i] = step.tokens if step is not None else last[i]
    assert all(torch.equal(a, b) for a, b in zip(turns, last, strict=True))


@dataclass(frozen=True)
class ComputeBlockAndLater:
    """A toy planner: after a block's first step only the block and what follows is computed, the rest is remembered."""

    stores: ClassVar[bool] = True

    def begin(self, canvas):
        return lambda moment, visible: visible if moment.within == 0 else visible[visible >= moment.block.start]


def test_memory_serves_what_is_not_computed(tiny):
    model = tiny["llada"]
    toy = mz.denoise_all(model, PROMPT, recipe_for(cache=ComputeBlockAndLater()))
    named = mz.denoise_all(model, PROMPT, recipe_for(cache=mz.PrefixCache()))
    assert torch.equal(toy.tokens, named.tokens)
    assert toy.positions_computed < 32 * 45


def test_a_delayed_cache_refreshed_every_step_is_exact(tiny):
    for family in ("llada", "dream"):
        plain = mz.denoise_all(tiny[family], PROMPT, recipe_for())
        exact = mz.denoise_all(tiny[family], PROMPT, recipe_for(cache=mz.DelayedCache(refresh=1)))
        assert torch.equal(plain.tokens, exact.tokens)
        fewer = mz.denoise_all(tiny[family], PROMPT, recipe_for(cache=mz.DelayedCache(refresh=8)))
        assert fewer.positions_computed < plain.positions_computed
    with pytest.raises(ValueError, match="one row at a time, this batch has 2"):
        mz.denoise_all(tiny["llada"], PROMPT.repeat(2, 1), recipe_for(cache=mz.DelayedCache()))


@pytest.mark.parametrize("cache", [mz.PrefixCache(refresh=1), mz.DualCache(refresh=1)], ids=["prefix", "dual"])
def test_a_block_cache_refreshed_every_step_is_exact_and_between_refreshes_cheaper(tiny, cache):
    for family in tiny:
        plain = mz.denoise_all(tiny[family], PROMPT, recipe_for())
        exact = mz.denoise_all(tiny[family], PROMPT, recipe_for(cache=cache))
        assert torch.equal(plain.tokens, exact.tokens)
        costs = [mz.denoise_all(tiny[family], PROMPT, recipe_for(cache=type(cache)(refresh=r))).positions_computed for r in (1, 2, 4, 0)]
        assert costs == sorted(costs, reverse=True)
        assert costs[0] == plain.positions_computed
        assert len(set(costs)) == 4


def test_a_prompt_cache_refreshed_every_step_is_exact(tiny):
    for family in ("llada", "dream"):
        plain = mz.denoise_all(tiny[family], PROMPT, recipe_for())
        assert torch.equal(plain.tokens, mz.denoise_all(tiny[family], PROMPT, recipe_for(cache=mz.PromptCache(refresh=1))).tokens)
        once = mz.denoise_all(tiny[family], PROMPT, recipe_for(cache=mz.PromptCache()))
        first = 13 - tiny[family].config.shift
        assert once.positions_computed == 45 + 31 * (45 - first)


def test_features_refreshed_every_step_are_exact_for_every_row(tiny):
    prompts = [torch.arange(10, 10 + n) for n in (5, 17)]
    for rest in ({}, {"suffix": mz.NoSuffix()}, {"cfg_scale": 1.0}):
        plain = mz.denoise_all(tiny["llada"], prompts, recipe_for(**rest))
        assert torch.equal(plain.tokens, mz.denoise_all(tiny["llada"], prompts, recipe_for(cache=mz.FeatureCache(1, 1), **rest)).tokens)
    together = mz.denoise_all(tiny["llada"], [PROMPT[0], PROMPT[0].flip(0)], recipe_for(cache=mz.FeatureCache(8, 4)))
    for row, prompt in enumerate((PROMPT, PROMPT.flip(1))):
        assert torch.equal(together.tokens[row], mz.denoise_all(tiny["llada"], prompt, recipe_for(cache=mz.FeatureCache(8, 4))).tokens[0])
    with pytest.raises(ValueError, match="attention=dense"):
        recipe_for(cache=mz.FeatureCache(), attention=mz.SparseD())


def test_rows_that_layers_skip_are_not_counted(tiny):
    model = tiny["llada"]
    frozen = mz.denoise_all(model, PROMPT, recipe_for(cache=mz.FeatureCache(100, 100, 0.0)))
    assert frozen.positions_computed == 45 + 31 * round(45 / model.config.layers)  # only the first layer goes on


def test_dropped_masks_do_not_depend_on_the_canvas():
    kept = []
    for length in (200, 900):
        canvas = mz.Canvas.blank([torch.arange(10)], length, 999, torch.device("cpu"))
        visible = mz.DPad(64, 3.0, 1.6).begin(canvas, torch.Generator().manual_seed(0))
        kept.append([visible(canvas.block(index, 32)).tolist() for index in range(3)])
    assert kept[0] == kept[1]
    assert all(42 + 32 * index < kept[0][index][-1] < 42 + 32 * index + 64 for index in range(3))


def test_reading_a_position_never_written_names_it(tiny):
    model = tiny["llada"]
    memory = model.memory(1, 20)
    model(torch.zeros(1, 4, dtype=torch.long), torch.arange(4), memory=memory)
    with pytest.raises(LookupError, match="position 4 of layer 0"):
        model(torch.zeros(1, 2, dtype=torch.long), torch.tensor([0, 1]), over=torch.arange(6), memory=memory)
    with pytest.raises(ValueError, match="memory"):
        model(torch.zeros(1, 2, dtype=torch.long), torch.tensor([0, 1]), over=torch.arange(6))


def test_guidance_works_with_a_cache(tiny):
    """Both streams have their own rows in memory: refreshing every step equals no cache."""

    @dataclass(frozen=True)
    class Always:
        stores: ClassVar[bool] = True

        def begin(self, canvas):
            return lambda moment, visible: visible

    plain = mz.denoise_all(tiny["llada"], PROMPT, recipe_for(cfg_scale=1.5))
    cached = mz.denoise_all(tiny["llada"], PROMPT, recipe_for(cfg_scale=1.5, cache=Always()))
    assert torch.equal(plain.tokens, cached.tokens)
    mz.denoise_all(tiny["llada"], PROMPT, recipe_for(cfg_scale=1.5, cache=mz.DualCache()))


def test_a_step_that_committed_nothing_costs_no_forward(tiny):
    recipe = mz.Recipe(gen_length=32, block_length=None, steps=32, commit=Timed(), sampling="categorical", confidence="entropy", early_stop="off")
    reused = mz.denoise_all(tiny["dream"], PROMPT, recipe)
    repeated = mz.denoise_all(tiny["dream"], PROMPT, recipe.with_(reuse=False))
    assert torch.equal(reused.tokens, repeated.tokens)
    assert (reused.forwards, repeated.forwards) == (31, 32)


@dataclass(frozen=True)
class Hesitating:
    """A rule that commits the leftmost token at every `every`th step of a block and nothing at the others; 0: never anything."""

    every: int = 2

    def begin(self, steps, open):
        count = itertools.count(1)

        def accept(prediction):
            now = self.every and next(count) % self.every == 0
            return prediction.open & (prediction.open.cumsum(1) == 1) if now else torch.zeros_like(prediction.open)

        return accept


@pytest.mark.parametrize("cache", [mz.PrefixCache(refresh=3), mz.DualCache(refresh=3)], ids=["prefix", "dual"])
def test_a_refresh_is_not_swallowed_by_a_step_that_needs_no_forward(tiny, cache):
    recipe = recipe_for(commit=Hesitating(), cache=cache)
    reused, repeated = ([step.computed.tolist() for step in mz.denoise(tiny["llada"], PROMPT, recipe.with_(reuse=reuse))] for reuse in (True, False))
    assert all(mine in ([], theirs) for mine, theirs in zip(reused, repeated, strict=True))
    assert all(mine == theirs for mine, theirs in zip(reused, repeated, strict=True) if len(theirs) == 45)
    assert [] in reused
    assert torch.equal(*(mz.denoise_all(tiny["llada"], PROMPT, recipe.with_(reuse=reuse)).tokens for reuse in (True, False)))


def test_the_surest_is_committed_where_nothing_is_a_number():
    nothing = torch.tensor([[-torch.inf, torch.nan, torch.nan, -torch.inf], [-0.5, -3.0, -0.01, -torch.inf], [-torch.inf] * 4])
    open = torch.tensor([[False, True, True, False], [True, True, True, False], [False] * 4])
    prediction = Prediction(torch.zeros(3, 4, dtype=torch.long), nothing, open, [])
    accepted = mz.EntropyBound(0.1).begin(4, open)(prediction)
    assert accepted.sum(1).tolist() == [1, 2, 0]
    assert not (accepted & ~open).any()
    assert accepted[1].tolist() == [True, False, True, False]


def test_a_run_that_commits_nothing_holds_up_nobody():
    """Not the others, and not its own deadline."""
    import asyncio

    from mezzotint.engine import Engine, EngineSettings, Expired, Request

    engine = Engine(EngineSettings(running=4))
    prompt = tuple(range(20, 30))
    stuck = Request((prompt,), mz.Recipe(gen_length=8, block_length=8, commit=Hesitating(0)), seconds=1.5)
    slow = Request((prompt,), mz.Recipe(gen_length=2, block_length=2, commit=Hesitating(100), early_stop="off"))
    quick = Request((prompt,), mz.Recipe(gen_length=8, block_length=8, early_stop="off"))

    async def decided(request):
        return [token async for update in engine.submit(request) for token in update.decided]

    async def expires():
        with pytest.raises(Expired, match=r"1\.5 s"):
            await decided(stuck)

    async def main():
        work = asyncio.create_task(engine.run())
        try:
            return await asyncio.wait_for(asyncio.gather(decided(slow), decided(quick), expires()), 60)
        finally:
            work.cancel()

    found = asyncio.run(main())
    for request, tokens in zip((slow, quick), found, strict=False):
        assert tokens == mz.denoise_all(engine.model, torch.tensor([prompt]), request.recipe).tokens[0, 10:].tolist()
    assert not engine.running


def test_a_canvas_of_ones_own_is_as_long_as_it_is(tiny):
    """It does not grow, and strategies are asked about its blocks, not the recipe's."""
    model = tiny["llada"]

    def fill(masks, **fields):
        return mz.denoise_all(model, mz.Canvas.gaps([[1, 2, 3], masks, [4]], model.config.mask_id, model.device), mz.Recipe(gen_length=16, **fields))

    with pytest.raises(ValueError, match="max_tokens=16 has no meaning for a Canvas"):
        fill(4, block_length=8, max_tokens=16)
    sparse = {"block_length": 8, "cache": mz.DualCache(), "attention": mz.SparseD(block_size=8)}
    assert fill(12, **sparse).forwards
    with pytest.raises(ValueError, match="the only block"):
        fill(4, **sparse)
    with pytest.raises(ValueError, match="canvas without blocks, this one has 2"):
        fill(20, block_length=None, cache=mz.DelayedCache(compat="un"))
    with pytest.raises(ValueError, match="the only block"):
        mz.denoise_all(model, PROMPT, mz.Recipe(gen_length=16, max_tokens=8, **sparse))


def stopping(model, position):
    """A copy of the model's config under which the token plain decoding puts at `position` is a stop id."""
    tokens = mz.denoise_all(model, PROMPT, recipe_for()).tokens[0, 13:]
    return dataclasses.replace(model.config, stop_ids=(int(tokens[position]), 3)), tokens


@pytest.mark.parametrize("when", ["step", "block"])
def test_a_stop_id_ends_the_row_and_keeps_what_stands_before_it(tiny, when, monkeypatch):
    model = tiny["llada"]
    config, tokens = stopping(model, 10)
    first = int((tokens == config.stop_ids[0]).int().argmax())
    full = mz.denoise_all(model, PROMPT, recipe_for())
    monkeypatch.setattr(model, "config", config)
    early = mz.denoise_all(model, PROMPT, recipe_for().with_(early_stop=when))
    assert early.finish_reason == "stop"
    assert early.forwards < full.forwards
    assert torch.equal(early.tokens[0, 13 : 13 + first + 1], tokens[: first + 1])
    assert (early.tokens[0, 13 + 8 * (first // 8 + 1) :] == config.pad_id).all()


def test_a_finished_row_stays_finished_and_costs_its_neighbour_nothing(tiny, monkeypatch):
    """With a growing canvas and a suffix strategy, a row that stopped neither opens again nor changes what others see."""
    model = tiny["llada"]
    prompts = [PROMPT[0], PROMPT[0].flip(0)]
    for recipe in (
        mz.Recipe(gen_length=16, block_length=8, max_tokens=48, commit=mz.Threshold(0.4)),
        mz.Recipe(gen_length=48, block_length=8, suffix=mz.NoSuffix(), commit=mz.Threshold(0.4)),
    ):
        long = mz.denoise_all(model, prompts[:1], recipe.with_(early_stop="off")).tokens[0, 13:]
        other = mz.denoise_all(model, prompts[1:], recipe.with_(early_stop="off")).tokens[0, 13:]
        stop = next(int(t) for t in long[:20] if t not in other)
        with monkeypatch.context() as patch:
            patch.setattr(model, "config", dataclasses.replace(model.config, stop_ids=(stop,)))
            alone = [mz.denoise_all(model, p[None], recipe) for p in prompts]
            together = mz.denoise_all(model, prompts, recipe)
            steps = list(mz.denoise(model, prompts, recipe))
        assert together.finish_reasons == ("stop", "length")
        assert together.forwards <= sum(a.forwards for a in alone)
        assert torch.equal(together.tokens[1], alone[1].tokens[0])
        end = int((alone[0].tokens[0] == stop).int().argmax())
        assert torch.equal(together.tokens[0, : end + 1], alone[0].tokens[0, : end + 1])
        assert {len(s.visible) for s in steps} == {len(s.visible) for s in mz.denoise(model, prompts[1:], recipe)}


def test_a_growing_canvas_costs_less_and_stops_at_max_tokens(tiny):
    model = tiny["llada"]
    lengths = [step.tokens.shape[1] for step in mz.denoise(model, PROMPT, mz.Recipe(gen_length=16, block_length=8, max_tokens=40, early_stop="off"))]
    assert lengths[0] == 13 + 16
    assert lengths[-1] == 13 + 40
    assert lengths == sorted(lengths)
    one_block_ahead = mz.denoise_all(model, PROMPT, mz.Recipe(gen_length=8, block_length=8, max_tokens=40, early_stop="off"))
    assert one_block_ahead.tokens.shape[1] == 53
    assert (one_block_ahead.forwards, one_block_ahead.finish_reason) == (40, "length")
    cached = mz.denoise_all(model, PROMPT, mz.Recipe(gen_length=16, block_length=8, max_tokens=40, early_stop="off", cache=mz.DualCache()))
    assert cached.tokens.shape[1] == 53


def test_given_text_around_gaps_stays(tiny):
    model = tiny["llada"]
    pieces = [[1, 2, 3], 5, [300, 4], 11, [7]]
    canvas = mz.Canvas.gaps(pieces, model.config.mask_id, model.device)
    given = canvas.tokens[canvas.decided].clone()
    where = canvas.decided.clone()
    result = mz.denoise_all(model, canvas, mz.Recipe(gen_length=8, block_length=8, suffix=mz.NoSuffix()))
    assert torch.equal(canvas.tokens[where], given), "a given mask id is not a gap"
    assert canvas.decided.all()
    assert result.forwards <= 16


def test_logits_only_for_asked_positions(tiny):
    tokens = torch.arange(60, 80)[None]
    for model, shift in ((tiny["llada"], 0), (tiny["dream"], 1)):
        every = model(tokens)
        wanted = torch.tensor([3, 4, 9])
        assert_close(model(tokens, predict=wanted), every[:, wanted - shift], atol=1e-4, rtol=0)
        assert_close(model(tokens, predict=torch.tensor([0, 1, 3])), every[:, (torch.tensor([0, 1, 3]) - shift).clamp_min(0)], atol=1e-4, rtol=0)
    with pytest.raises(LookupError, match="shift 1"):
        tiny["dream"](tokens[:, 5:], torch.arange(5, 20), predict=torch.tensor([2]))


def test_sampling_is_seeded_and_follows_the_distribution(tiny):
    model = tiny["llada"]
    recipe = recipe_for(temperature=1.0)
    one, same, other = (mz.denoise_all(model, PROMPT, recipe, seed=s).tokens for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    from mezzotint.commit import Sampler

    logits = torch.tensor([0.0, 1.0, 2.0]).repeat(1, 4000, 1)
    open = torch.ones(1, 4000, dtype=torch.bool)
    for sampling in ("gumbel", "categorical"):
        drawn = Sampler(sampling, temperature=1.0)(logits, open, [torch.Generator().manual_seed(0)]).tokens
        share = torch.bincount(drawn[0], minlength=3) / 4000
        assert_close(share, logits[0, 0].softmax(-1), atol=0.03, rtol=0)


def test_a_run_beyond_the_trained_length_warns_once(tiny):
    model = mz.load_model(HERE / "dpad" / "ckpt_llada_tiny")
    object.__setattr__(model.config, "max_length", 32)
    with pytest.warns(UserWarning, match="rope_scaling"):
        mz.denoise_all(model, PROMPT, recipe_for(steps=4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mz.denoise_all(model, PROMPT, recipe_for(steps=4))


def test_a_growing_canvas_warns_only_when_it_passes_the_trained_length(tiny):
    model = copy.copy(tiny["llada"])
    model.config = dataclasses.replace(model.config, max_length=64)
    growing = recipe_for(16, max_tokens=64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps = mz.denoise(model, PROMPT, growing)
        for step in steps:
            if step.tokens.shape[1] > 48:
                break
        steps.close()
    with pytest.warns(UserWarning, match="exceeds the model's trained length of 64"):
        mz.denoise_all(model, PROMPT, growing)


def test_a_scaled_model_warns_beyond_what_it_was_scaled_to(tiny):
    for factor, fits in ((1.0, False), (2.0, True)):
        model = copy.copy(tiny["llada"])
        model.config = dataclasses.replace(model.config, max_length=32, rope_scaling=mz.RopeScaling("linear", factor, original_length=32))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            mz.denoise_all(model, PROMPT, recipe_for(steps=4))
        assert bool(said) is not fits


class OnDevice(torch.Tensor):
    """A tensor that says it lives on a device: what is made of it does too, and whatever brings it to the host is counted."""

    waits = 0

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        picked = func is torch.Tensor.__getitem__ and isinstance(args[1], OnDevice) and args[1].dtype == torch.bool
        if func in WAITING or picked:
            OnDevice.waits += 1
            with torch._C.DisableTorchFunctionSubclass():
                found = func(*args, **(kwargs or {}))
                return found.as_subclass(torch.Tensor) if isinstance(found, torch.Tensor) else found
        return super().__torch_function__(func, types, args, kwargs or {})


WAITING = {
    getattr(torch.Tensor, name)
    for name in ("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__", "__contains__", "equal", "unique", "allclose")
} | {torch.equal, torch.nonzero, torch.allclose, torch.masked_select, torch.unique}


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize("commit", [mz.Quota(), mz.Threshold(0.5)], ids=lambda commit: type(commit).__name__)
@pytest.mark.parametrize("cache", [mz.NoCache(), mz.DualCache()], ids=lambda cache: type(cache).__name__)
def test_a_step_waits_for_the_device_once(tiny, family, commit, cache):
    model = copy.deepcopy(tiny[family])
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                module._parameters[name] = torch.nn.Parameter(parameter.data.as_subclass(OnDevice), requires_grad=False)
    assert isinstance(model(PROMPT), OnDevice)
    canvas = mz.Canvas.blank(list(PROMPT), 32, model.config.mask_id, model.device)
    canvas.tokens, canvas.decided = canvas.tokens.as_subclass(OnDevice), canvas.decided.as_subclass(OnDevice)
    waits = []
    steps = mz.denoise(model, canvas, recipe_for(commit=commit, cache=cache))
    while True:
        OnDevice.waits = 0
        if (step := next(steps, None)) is None:
            break
        waits.append(OnDevice.waits)
        assert isinstance(step.tokens, OnDevice)
        assert not isinstance(step.ids, OnDevice)
    assert set(waits) == {1}, waits


@pytest.mark.parametrize("seed", [np.int64(3), [np.int64(3)]], ids=repr)
def test_numpys_numbers_are_seeds(tiny, seed):
    recipe = recipe_for(8, temperature=1.0)
    assert torch.equal(mz.denoise_all(tiny["llada"], PROMPT, recipe, seed=seed).tokens, mz.denoise_all(tiny["llada"], PROMPT, recipe, seed=3).tokens)


def test_sureness_spreads_to_neighbours_and_no_further():
    confidence = torch.tensor([[0.95, 0.80, 0.60, 0.80]])
    prediction = Prediction(torch.zeros(1, 4, dtype=torch.long), confidence, torch.ones(1, 4, dtype=torch.bool), [], at=torch.tensor([0, 4, 5, 20]))
    leap = mz.LocalLeap(tau=0.9, relaxed=0.75, radius=4).begin(1, prediction.open)
    assert leap(prediction).tolist() == [[True, True, False, False]]
    strict = mz.LocalLeap(tau=0.9, relaxed=0.9, radius=4).begin(1, prediction.open)
    assert strict(prediction).tolist() == mz.Threshold(0.9).begin(1, prediction.open)(prediction).tolist() == [[True, False, False, False]]
    unsure = dataclasses.replace(prediction, confidence=confidence / 2)
    assert leap(unsure).tolist() == [[True, False, False, False]]


def test_a_shuffled_order_is_known_after_the_first_step_and_a_greedy_cache_follows_it(tiny):
    for family in tiny:
        plain = recipe_for(commit=mz.Shuffled())
        order, planned = [], []
        for step in mz.denoise(tiny[family], PROMPT, plain, seed=5):
            order.append(step.block.start + step.accepted[0].nonzero()[:, 0])
            planned.append(len(step.computed))
        assert sorted(torch.cat(order).tolist()) == list(range(13, 45))
        assert not torch.equal(torch.cat(order), torch.arange(13, 45))
        exact = mz.denoise_all(tiny[family], PROMPT, plain.with_(cache=mz.GreedyCache(refresh=1)), seed=5)
        assert torch.equal(exact.tokens, mz.denoise_all(tiny[family], PROMPT, plain, seed=5).tokens)
        costs = [mz.denoise_all(tiny[family], PROMPT, plain.with_(cache=mz.GreedyCache(4, window)), seed=5).positions_computed for window in (0, 2, 4)]
        assert costs == sorted(costs)
        assert costs[-1] < 32 * 45 / 2
    with pytest.raises(ValueError, match="choose commit=shuffled"):
        recipe_for(cache=mz.GreedyCache())
    with pytest.raises(ValueError, match="may rewrite tokens that cache=delayed"):
        recipe_for(cache=mz.DelayedCache(), commit=mz.Edit())


def test_an_order_survives_a_first_token_decided_alone(tiny):
    for cache in (mz.PrefixCache(first_alone=True), mz.DualCache(first_alone=True)):
        run = mz.denoise_all(tiny["dream"], PROMPT, recipe_for(commit=mz.Shuffled(), cache=cache), seed=1)
        assert not (run.tokens == tiny["dream"].config.mask_id).any()


def test_a_shuffled_row_draws_for_itself_alone(tiny):
    recipe = recipe_for(commit=mz.Shuffled(), temperature=0.9)
    rows = [PROMPT[0], PROMPT[0] + 1]
    together = mz.denoise_all(tiny["llada"], rows, recipe, seed=[3, 4])
    for row, seed in enumerate((3, 4)):
        assert torch.equal(together.tokens[row], mz.denoise_all(tiny["llada"], [rows[row]], recipe, seed=seed).tokens[0])


@pytest.mark.parametrize("token", [-1, 999999])
def test_ids_that_are_not_the_models_are_refused(tiny, token):
    with pytest.raises(ValueError, match=f"token id {token} is not one of this model's"):
        mz.denoise_all(tiny["llada"], torch.tensor([[5, token]]))
