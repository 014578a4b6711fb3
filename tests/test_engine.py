"""The engine's promises: a request's tokens do not depend on what runs beside it, requests come and go between steps, nothing exceeds its limits."""

import asyncio
import dataclasses
import pickle
import random

import pytest
import torch
from conftest import serve

import mezzotint as mz
from mezzotint.engine import Busy, Engine, EngineSettings, Expired, Failed, Refused, Request
from mezzotint.engine.admission import needed
from mezzotint.engine.gap import gap_sizes, surest
from mezzotint.generation import encode

RECIPES = (
    mz.Recipe(gen_length=32, block_length=16),
    mz.Recipe(gen_length=32, block_length=8, temperature=1.0, early_stop="off"),
    mz.Recipe(gen_length=32, block_length=8, commit=mz.Threshold(0.8), cache=mz.DualCache(), suffix=mz.DPad(window=16)),
    mz.Recipe(gen_length=16, block_length=8, max_tokens=20, commit=mz.Threshold(0.8), cache=mz.PrefixCache()),
    mz.Recipe(gen_length=16, block_length=8, cache=mz.DelayedCache(4), early_stop="off"),
    mz.Recipe(gen_length=16, block_length=8, cfg_scale=1.0, commit=mz.Threshold(0.8)),
    mz.Recipe(gen_length=16, block_length=8, cache=mz.FeatureCache(4, 2), commit=mz.Threshold(0.8)),
)
PROMPTS = ("Copy these words: amber coral", "Sort from small to large: 9 4 31 22", "How often does fox occur? fox tiger fox")


@pytest.fixture(scope="module")
def engine():
    return Engine(EngineSettings(running=16))


def request(engine, index, **settings):
    prompt = tuple(encode(engine.tokenizer, PROMPTS[index % len(PROMPTS)]))
    return Request((prompt,), RECIPES[index % len(RECIPES)], seed=index, **settings)


async def answer(engine, asked):
    ticket = engine.submit(asked)
    updates = [update async for update in ticket]
    return [token for update in updates for token in update.decided], updates, ticket


def test_the_same_tokens_alone_and_in_company(engine):
    """Every recipe, mixed with every other, arriving at random moments: the tokens of a run alone, and those of `denoise`."""
    asked = [request(engine, i) for i in range(10)]
    alone = [serve(engine, answer(engine, a))[0][0] for a in asked]

    async def later(a, delay):
        await asyncio.sleep(delay)
        return (await answer(engine, a))[0]

    rng = random.Random(0)
    together = serve(engine, *(later(a, rng.random() / 4) for a in asked))
    assert together == alone
    for a, tokens in zip(asked[:7], alone, strict=False):
        direct = mz.denoise_all(engine.model, torch.tensor([a.prompt]), a.recipe, seed=a.seed).tokens[0, len(a.prompt) :].tolist()
        assert tokens == direct[: len(tokens)]


@torch.inference_mode()
def test_not_a_bit_depends_on_company(engine):
    """Logits and candidates of a run alone and among others of other lengths, recipes and moments are the same bits."""
    from mezzotint.engine.drawing import draw_all
    from mezzotint.engine.packing import Packed, packable

    wanted = [a for i in range(15) if packable(begun(engine, a := request(engine, i)).ask)]
    assert len(wanted) >= 8

    def course(asked, steps):
        """The logits and candidates of every step of runs that start together."""
        runs = [begun(engine, a) for a in asked]
        found = [[] for _ in runs]
        for _ in range(steps):
            live = [(run, own) for run, own in zip(runs, found, strict=True) if run.ask is not None]
            if not live:
                break
            logits = Packed(engine.model, [run.ask for run, _ in live]).answer()
            predictions = draw_all([run.hear(mine) for (run, _), mine in zip(live, logits, strict=True)])
            for (run, own), mine, prediction in zip(live, logits, predictions, strict=True):
                own += [mine.clone(), prediction.tokens.clone(), prediction.confidence.clone()]
                run.take(prediction)
        return found

    together = course(wanted, 3)
    for asked, mine in zip(wanted, together, strict=True):
        (alone,) = course([asked], 3)
        assert all(torch.equal(a, b) for a, b in zip(alone, mine, strict=True)), asked.recipe


def begun(engine, asked):
    from mezzotint.engine.run import Run

    run = Run(engine.model, asked)
    run.start()
    return run


def test_steps_share_forwards(engine):
    rounds = []
    engine.on_round = rounds.append
    recipe = mz.Recipe(gen_length=16, block_length=8, early_stop="off")
    prompts = [tuple(encode(engine.tokenizer, PROMPTS[i % 3])) for i in range(6)]
    found = serve(engine, *(answer(engine, Request((p,), recipe)) for p in prompts))
    engine.on_round = lambda round: None
    assert len(rounds) == 16
    assert {r.runs for r in rounds} == {6}
    assert sum(r.committed for r in rounds) == 6 * 16
    assert [ticket.forwards for _, _, ticket in found] == [16] * 6
    assert sum(r.computed for r in rounds) == sum(ticket.positions for _, _, ticket in found) == sum(16 * (len(p) + 16) for p in prompts)


def test_updates_tell_the_whole_story(engine):
    asked = dataclasses.replace(request(engine, 3, alternatives=2, drafts=True), recipe=mz.Recipe(gen_length=16, block_length=8, cache=mz.PrefixCache()))
    tokens, updates, _ = serve(engine, answer(engine, asked))[0]
    accepted = {c.position: c for u in updates for c in u.accepted}
    assert [accepted[i].token for i in range(len(tokens))] == tokens
    assert all(c.logprob is not None and c.logprob <= 0 and len(c.alternatives) == 2 for c in accepted.values())
    assert all(u.drafts or u.finished or u.block[1] - u.block[0] == len([p for p in accepted if u.block[0] <= p < u.block[1]]) for u in updates)
    assert len(tokens) <= 20
    assert updates[-1].finished in ("stop", "length")
    assert sum(u.remembered for u in updates) > 0


def test_gaps_are_filled_in_place(engine):
    ids = engine.tokenizer("def add(a, b):\n    return ", add_special_tokens=False)["input_ids"]
    end = engine.tokenizer("\n", add_special_tokens=False)["input_ids"]
    asked = Request((tuple(ids), 3, tuple(end), 2, tuple(end)), mz.Recipe(gen_length=8, block_length=4))
    tokens = serve(engine, answer(engine, asked))[0][0]
    direct = mz.Canvas.gaps([ids, 3, end, 2, end], engine.model.config.mask_id, engine.model.device)
    mz.denoise_all(engine.model, direct, asked.recipe)
    assert tokens[: 3 + len(end) + 2] == direct.tokens[0, len(ids) : len(ids) + 5 + len(end)].tolist()


def test_cancelling_and_deadlines_free_the_place(engine):
    long = Request((tuple(encode(engine.tokenizer, PROMPTS[0])),), mz.Recipe(gen_length=512, early_stop="off"))

    async def leave():
        ticket = engine.submit(long)
        async for _ in ticket:
            ticket.cancel()
        return ticket

    async def late():
        with pytest.raises(Expired, match=r"0\.3 s"):
            async for _ in engine.submit(Request(long.pieces, long.recipe, seconds=0.3)):
                pass

    ends = []
    engine.on_end = lambda ticket, reason: ends.append(reason)
    serve(engine, leave(), late(), answer(engine, request(engine, 0)))
    engine.on_end = lambda ticket, reason: None
    assert sorted(ends)[:2] == ["cancelled", "expired"]
    assert not engine.running
    assert not engine.waiting


def test_what_does_not_fit_is_refused_with_the_number(engine):
    prompt = (tuple(range(20, 40)),)
    with pytest.raises(Refused, match=r"4116 tokens .* limit is 4096"):
        engine.submit(Request(prompt, mz.Recipe(gen_length=4096)))
    with pytest.raises(Refused, match="token id 99999"):
        engine.submit(Request(((99999,),), mz.Recipe()))
    short = mz.Recipe(gen_length=64, block_length=16, cache=mz.DualCache(), attention=mz.SparseD(skip=0.2, block_size=8))
    with pytest.raises(Refused, match="makes its pattern after a dense phase"):
        engine.submit(Request((*prompt, 12), short))
    small = Engine(EngineSettings(memory=2**21, waiting=1, running=1))
    with pytest.raises(Refused, match=r"bytes at 532 tokens, the budget is 2,097,152"):
        small.submit(Request(prompt, mz.Recipe(gen_length=512)))
    small.submit(Request(prompt, mz.Recipe(gen_length=16, block_length=16)))
    small.submit(Request(prompt, mz.Recipe(gen_length=16, block_length=16)))
    with pytest.raises(Busy, match="2 are waiting, the queue is full"):
        small.submit(Request(prompt, mz.Recipe(gen_length=16, block_length=16)))


def test_what_strategies_keep_is_reserved(tiny):
    """Layers' outputs, patterns and residuals, beside keys and values."""
    model = tiny["llada"]

    def bytes_of(**fields) -> int:
        return needed(model, Request((tuple(range(5, 105)),), mz.Recipe(gen_length=64, **fields)))

    plain, features = bytes_of(), bytes_of(cache=mz.FeatureCache())
    assert features - plain == (bytes_of(cache=mz.DualCache()) - plain) + 2 * model.config.layers * model.config.hidden_size * 164 * 4
    small, large, residual = (bytes_of(attention=mz.SparseD(block_size=size, residual=kept)) for size, kept in ((8, False), (64, False), (64, True)))
    assert plain < large < small
    assert large < residual


def test_memory_is_reserved_before_admission():
    small = Engine(EngineSettings(memory=3 * 2**20))
    most = []
    small.on_round = lambda round: most.append(round.runs)
    asked = Request((tuple(range(20, 40)),), mz.Recipe(gen_length=64, early_stop="off", steps=8, cache=mz.DualCache()))
    size = small.submit(asked).size
    assert 2**20 < size < 3 * 2**20
    serve(small, answer(small, asked), answer(small, asked))
    assert max(most) == 3 * 2**20 // size


def test_nobody_holds_logits_that_are_not_needed(engine):
    """They are a view of all that were computed together."""
    (_, _, plain), (_, _, asked) = serve(engine, answer(engine, request(engine, 0)), answer(engine, request(engine, 1, alternatives=1)))
    assert plain.run.logits is None
    assert asked.run.logits is None
    unasked = begun(engine, request(engine, 0))
    with torch.inference_mode():
        unasked.hear(unasked.ask.answer())
    assert unasked.logits is None


def test_one_bad_run_ends_alone(engine, monkeypatch):
    from mezzotint.engine.run import Run

    real = Run.take

    def take(self, logits):
        if self.request.seed == 99:
            raise RuntimeError("broken on purpose")
        return real(self, logits)

    monkeypatch.setattr(Run, "take", take)

    async def bad():
        with pytest.raises(Failed, match="broken on purpose"):
            async for _ in engine.submit(Request(request(engine, 0).pieces, RECIPES[0], seed=99)):
                pass

    good = serve(engine, answer(engine, request(engine, 0)), bad())[0][0]
    assert good == serve(engine, answer(engine, request(engine, 0)))[0][0]


def test_an_engine_that_broke_down_says_so_at_once(monkeypatch):
    broken = Engine(EngineSettings())

    def fail(batch):
        raise ConnectionError("a rank has ended")

    monkeypatch.setattr(broken, "_forward", fail)

    async def main():
        work = asyncio.create_task(broken.run())
        with pytest.raises(Failed, match="has stopped"):
            await answer(broken, request(broken, 0))
        with pytest.raises(ConnectionError):
            await work
        with pytest.raises(Failed, match="has stopped"):
            broken.submit(request(broken, 0))

    asyncio.run(main())


def test_a_gap_is_sized_by_an_engine_with_few_places():
    """However many sizes are tried: so many at a time as may run."""
    small = Engine(EngineSettings(running=3, waiting=0))
    large = Engine(EngineSettings())
    found = [serve(engine, surest(engine, (20, 21), (30,), gap_sizes(32)))[0] for engine in (small, large)]
    assert found[0] == found[1]
    assert found[0] in gap_sizes(32)


def test_settings_travel_and_refuse_nonsense():
    settings = EngineSettings(running=3, length=100)
    assert pickle.loads(pickle.dumps(settings)) == settings
    for wrong in ({"running": 0}, {"rows": -3}, {"waiting": -1}, {"seconds": 0}, {"memory": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            EngineSettings(**wrong)
