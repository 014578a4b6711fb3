"""Engines in processes of their own behind one desk: the tokens of one engine, the same limits, and work that goes on when one of them dies."""

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from conftest import empties, serve

import mezzotint as mz
from mezzotint.engine import Expired, Failed, Fleet, Refused, Request, made
from mezzotint.engine.fleet import cores_here
from mezzotint.engine.line import Line
from mezzotint.engine.settings import EngineSettings
from mezzotint.generation import encode
from mezzotint.grammar.automaton import Automaton
from mezzotint.models.loading import CheckpointError

pytestmark = pytest.mark.skipif(cores_here() < 2, reason="needs two cores")

RECIPES = (
    mz.named("fast"),
    mz.Recipe(gen_length=32, block_length=8, temperature=1.0, early_stop="off"),
    mz.Recipe(gen_length=16, block_length=8, max_tokens=20, commit=mz.Threshold(0.8), cache=mz.PrefixCache()),
    mz.Recipe(gen_length=16, block_length=8, cfg_scale=1.0, commit=mz.Threshold(0.8)),
)
PROMPTS = ("Copy these words: amber coral", "Sort from small to large: 9 4 31 22", "How often does fox occur? fox tiger fox")
LONG = mz.Recipe(gen_length=512, early_stop="off")


@pytest.fixture(scope="module")
def fleet():
    found = made(EngineSettings(running=4, waiting=6), replicas=2)
    assert isinstance(found, Fleet)
    yield found
    found.close()
    for member in found.members:
        member.process.join(30)
        assert member.process.exitcode == 0


def request(fleet, index, recipe=None, **settings):
    prompt = tuple(encode(fleet.tokenizer, PROMPTS[index % len(PROMPTS)]))
    return Request((prompt,), recipe or RECIPES[index % len(RECIPES)], seed=index, **settings)


async def answer(fleet, asked):
    ticket = fleet.submit(asked)
    return [token for update in [u async for u in ticket] for token in update.decided], ticket


def test_both_ends_of_a_line_may_speak_at_length_at_once():
    """More than a socket holds in both directions, before either end reads."""
    mine, other = Line.pair()
    theirs, said = Line(other), bytes(5_000_000)

    async def main():
        found = {mine: [], theirs: []}
        done = asyncio.Event()

        def hear(line):
            found[line] += line.receive()
            if all(len(got) == 3 for got in found.values()):
                done.set()

        for line in found:
            line.attach(lambda line=line: hear(line))
        for number in range(3):
            mine.send(("to", number, said))
            theirs.send(("from", number, said))
        await asyncio.wait_for(done.wait(), 30)
        assert [what[:2] for what in found[theirs]] == [("to", 0), ("to", 1), ("to", 2)]
        assert [what[:2] for what in found[mine]] == [("from", 0), ("from", 1), ("from", 2)]
        mine.close()
        with pytest.raises(EOFError):
            theirs.receive()
        theirs.send("nobody reads this")
        theirs.close()

    asyncio.run(main())


def test_the_tokens_are_those_of_the_loop(fleet, bundled):
    model, _ = bundled
    rounds, ends, shared = [], [], set()
    fleet.on_round, fleet.on_end = rounds.append, lambda ticket, reason: ends.append(reason)

    async def watched():
        while len(ends) < 10:
            shared.update(i for i, member in enumerate(fleet.members) if member.tickets)
            await asyncio.sleep(0.005)

    asked = [request(fleet, i) for i in range(10)]
    found = serve(fleet, watched(), *(answer(fleet, one) for one in asked))[1:]
    fleet.on_round, fleet.on_end = lambda round: None, lambda ticket, reason: None
    for one, (tokens, ticket) in zip(asked, found, strict=True):
        assert tokens
        alone = mz.denoise_all(model, [torch.tensor(one.prompt)], one.recipe, seed=one.seed).tokens[0, len(one.prompt) :].tolist()
        assert tokens == alone[: len(tokens)]
        assert ticket.forwards > 0 < ticket.positions
    assert shared == {0, 1}, "both engines had work"
    assert sum(r.committed for r in rounds) >= sum(len(tokens) for tokens, _ in found)
    assert len(ends) == 10
    assert fleet.reserved == 0


def test_places_are_given_back_and_deadlines_hold(fleet):
    ends = []
    fleet.on_end = lambda ticket, reason: ends.append(reason)

    async def leave():
        ticket = fleet.submit(request(fleet, 0, LONG))
        async for _ in ticket:
            ticket.cancel()

    async def late():
        with pytest.raises(Expired, match=r"0\.5 s"):
            await answer(fleet, request(fleet, 1, LONG, seconds=0.5))

    async def waits():
        """More than run at once: the last ones wait for a place, one of them in vain."""
        tickets = [fleet.submit(request(fleet, i, LONG)) for i in range(6)]
        await asyncio.sleep(1)
        with pytest.raises(Expired):
            await answer(fleet, request(fleet, 0, LONG, seconds=0.3))
        for ticket in tickets:
            ticket.cancel()

    serve(fleet, leave(), late(), waits())
    fleet.on_end = lambda ticket, reason: None
    assert sorted(ends) == ["cancelled"] * 7 + ["expired"] * 2
    assert not fleet.running
    assert not fleet.waiting
    assert all(not member.tickets for member in fleet.members)
    assert serve(fleet, answer(fleet, request(fleet, 0)))[0][0]


def test_what_does_not_fit_is_refused_at_the_desk(fleet):
    with pytest.raises(Refused, match=r"4116 tokens .* limit is 4096"):
        fleet.submit(Request((tuple(range(20, 40)),), mz.Recipe(gen_length=4096)))


def test_what_cannot_travel_is_refused_and_stops_nobody(fleet):
    class Mine(mz.Threshold):
        pass

    with pytest.raises(Refused, match="cannot be sent to another process"):
        fleet.submit(request(fleet, 0, mz.Recipe(gen_length=16, block_length=8, commit=Mine())))
    assert not fleet.waiting


def test_an_answer_may_be_held_to_a_grammar(fleet):
    """Which goes to each engine once."""
    digits = [fleet.tokenizer(str(digit), add_special_tokens=False)["input_ids"][0] for digit in range(10)]
    grammar = Automaton.build({0: dict.fromkeys(digits, 1), 1: dict.fromkeys(digits, 2)}, 0, {2}, fleet.model.config.stop_ids)
    asked = [request(fleet, i, mz.Recipe(gen_length=8, block_length=8), grammar=grammar) for i in range(6)]
    for tokens, _ in serve(fleet, *(answer(fleet, one) for one in asked)):
        assert set(tokens[:2]) <= set(digits)
        assert tokens[2] in fleet.model.config.stop_ids
    assert all(len(member.shelf.kept) == 1 for member in fleet.members)


def test_a_fleet_that_is_stopped_gives_its_places_back(fleet):
    async def main():
        work = asyncio.create_task(fleet.run())
        ticket = fleet.submit(request(fleet, 0, LONG))
        while not ticket.forwards:
            await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(Failed, match="has stopped"):
            async for _ in ticket:
                pass
        await asyncio.gather(work, return_exceptions=True)

    asyncio.run(main())
    assert not fleet.reserved
    assert not fleet.parcels
    assert not any(member.tickets for member in fleet.members)


def test_signals_to_all_processes_are_for_the_desk(fleet):
    before = [member.process.pid for member in fleet.members]
    for member in fleet.members:
        os.kill(member.process.pid, signal.SIGTERM)
        os.kill(member.process.pid, signal.SIGINT)
    assert all(tokens for tokens, _ in serve(fleet, *(answer(fleet, request(fleet, i)) for i in range(4))))
    assert sorted(member.process.pid for member in fleet.members) == sorted(before)


def test_a_dead_engine_takes_only_its_own_with_it(fleet):
    async def main():
        tickets = [fleet.submit(request(fleet, i, LONG)) for i in range(2)]
        while any(ticket.forwards == 0 for ticket in tickets):
            await asyncio.sleep(0.01)
        victim = fleet.seats[tickets[0]][0]
        assert fleet.seats[tickets[1]][0] is not victim
        victim.process.kill()
        with pytest.raises(Failed, match="has ended; ask again"):
            async for _ in tickets[0]:
                pass
        assert victim.ready is None
        assert fleet.places == fleet.settings.running
        assert (await answer(fleet, request(fleet, 0)))[0], "the other one works on"
        assert tickets[1] in fleet.running
        tickets[1].cancel()
        while victim.ready is None:
            await asyncio.sleep(0.05)
        assert all(found[0] for found in await asyncio.gather(*(answer(fleet, request(fleet, 0)) for _ in range(8))))

    serve(fleet, main())


def test_what_cannot_be_made_says_why(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        made(EngineSettings(str(tmp_path)), replicas=2)
    with pytest.raises(ValueError, match="on a Ray cluster only"):
        made(EngineSettings(tensor_parallel=2), replicas=2)
    with pytest.raises(ValueError, match="one engine on each GPU"):
        made(EngineSettings(device="cuda:1"), replicas=2)
    with pytest.raises(ValueError, match=r"replicas=100000 is more than the \d+ cores"):
        made(EngineSettings(), replicas=100_000)


def test_the_server_answers_through_them_and_drains():
    """SIGTERM to the whole group, as a process manager sends it: the answer at hand is finished, nobody stays behind."""
    httpx = pytest.importorskip("httpx", reason="needs the extra: pip install 'mezzotint[serve]'")
    pytest.importorskip("uvicorn", reason="needs the extra: pip install 'mezzotint[serve]'")
    command = [sys.executable, "-m", "mezzotint", "serve", "--port", "0", "--json", "--replicas", "2"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        body = {"messages": [{"role": "user", "content": PROMPTS[0]}], "diffusion": {"gen_length": 256, "early_stop": "off"}, "stream": True}
        assert httpx.get(url + "/ready").status_code == 200
        with httpx.stream("POST", url + "/v1/chat/completions", json=body, timeout=60) as found:
            lines = (line for line in found.iter_lines() if line)
            next(lines)
            os.killpg(server.pid, signal.SIGTERM)
            assert list(lines)[-1] == "data: [DONE]"
        assert server.wait(60) == 0
    finally:
        server.kill()
    assert empties(server.pid), "processes stay behind"


def test_an_engine_that_cannot_be_started_again_is_tried_later(fleet, monkeypatch):
    """The system has no process to give at first."""
    tries = []
    victim = fleet.members[0]
    start = victim.start

    def sometimes():
        tries.append(1)
        if len(tries) == 1:
            raise OSError(24, "Too many open files")
        start()

    monkeypatch.setattr(victim, "start", sometimes)

    async def main():
        victim.process.kill()
        while len(tries) < 1:
            await asyncio.sleep(0.05)
        assert fleet.open
        assert (await answer(fleet, request(fleet, 0)))[0]
        while victim.ready is None:
            await asyncio.sleep(0.05)

    serve(fleet, main())
    assert len(tries) == 2
