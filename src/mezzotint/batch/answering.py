"""From questions to answers: each line is a run of its own in the engine, many share its forwards, and none depends on its company."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import Any

from mezzotint.batch.questions import Question, Unanswerable
from mezzotint.engine import Busy, Desk, Expired, Failed, Request
from mezzotint.engine.gap import gap_sizes, surest
from mezzotint.generation import GAP, answer_ids, encode, fitted, gapped, opening, until
from mezzotint.recipe import Recipe
from mezzotint.recipes import named

DEFAULT_GAP = 32
"""Most masks of a gap whose size nobody gave, as in the server."""

Outcome = tuple[Question, dict[str, Any] | Unanswerable]


async def answers(engine: Desk, questions: Iterable[Question], recipe: Recipe, seed: int) -> AsyncGenerator[Outcome]:
    """Every question with its answer, or with why it has none, as they come. recipe, seed: for lines that give none.

    Questions are taken while the engine has room, so that the input may be longer than memory. Raises what ends the engine itself.
    """
    work = asyncio.create_task(engine.run())
    rest, flying = iter(questions), set[asyncio.Task[Outcome]]()
    try:
        while True:
            while len(flying) < 2 * engine.places and (question := next(rest, None)) is not None:
                flying.add(asyncio.create_task(outcome(engine, question, recipe, seed)))
            if not flying:
                return
            await asyncio.wait((*flying, work), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
                raise RuntimeError("the engine has ended before its questions were answered")
            done = {task for task in flying if task.done()}
            flying -= done
            for task in done:
                yield task.result()
    finally:
        ending: list[asyncio.Task[Any]] = [*flying, work]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)


async def outcome(engine: Desk, question: Question, recipe: Recipe, seed: int) -> Outcome:
    """A question with its answer, or with why it has none: whatever it raises, foreseen or not, stops no other."""
    try:
        return question, await answer(engine, question, recipe, seed)
    except Busy:  # is about the engine
        raise
    except Exception as error:
        known = isinstance(error, ValueError | Expired | Failed)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        return question, Unanswerable(question.number, question.id, " ".join(reason.split()))


async def answer(engine: Desk, question: Question, recipe: Recipe, seed: int) -> dict[str, Any]:
    """One line's answer as plain values. Raises ValueError (Refused included) for what cannot be asked, Failed if the run raised an error."""
    recipe = recipe_of(question, engine, recipe)
    seed = question.fields.get("seed", seed)
    if not question.fills:
        ids = ids_of(engine.tokenizer, question)
        request = Request((tuple(ids),), recipe, seed)
        tokens, found = await run(engine, request)
        config = engine.model.config
        kept, stopped = answer_ids(tokens, config.stop_ids, recipe.max_tokens or recipe.gen_length)
        text, ended = until(engine.tokenizer.decode(kept, skip_special_tokens=True), config.stop_text)
        return {"text": text, "finish_reason": "stop" if stopped or ended else "length", "prompt_tokens": len(ids), "completion_tokens": len(kept), **found}

    around, given, sizes = await laid_out(engine, question)
    pieces = tuple(piece for ids, size in zip(given, [*sizes, 0], strict=True) for piece in (tuple(ids), size))[:-1]
    tokens, found = await run(engine, Request(pieces, recipe, seed))
    fills, place = [], 0
    for size, after in zip(sizes, given[1:], strict=True):
        fills.append(engine.tokenizer.decode(tokens[place : place + size], skip_special_tokens=True))
        place += size + len(after)
    text = around[0] + "".join(fill + after for fill, after in zip(fills, around[1:], strict=True))
    counts = {"prompt_tokens": sum(map(len, given)), "completion_tokens": sum(sizes)}
    return {"text": text, "fills": fills, "finish_reason": "stop", **counts, **found}


def ids_of(tokenizer: Any, question: Question) -> list[int]:
    """The prompt's ids. Templates are the checkpoint's: each refuses unsuitable chats in its own way."""
    try:
        return encode(tokenizer, question.fields[question.kind], chat=False if question.fields.get("raw") else None)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"the model's chat template refuses this: {error}") from None


async def run(engine: Desk, request: Request) -> tuple[list[int], dict[str, Any]]:
    """The ids that were decided, in order, and what the run took."""
    ticket, tokens = engine.submit(request), list[int]()
    try:
        async for update in ticket:
            tokens += update.decided
    finally:
        ticket.cancel()
    return tokens, {"forwards": ticket.forwards, "positions_computed": ticket.positions, "seed": request.seed}


def recipe_of(question: Question, engine: Desk, recipe: Recipe) -> Recipe:
    """The batch's recipe, or the one the line names, with what the line sets. Gaps have a size, so max_tokens limits none of them; those in a text are
    filled to their ends, as `generation.infill` does."""
    if "recipe" in question.diffusion:
        recipe = fitted(named(question.diffusion["recipe"]), engine.model.config)
    changes = question.changes | ({"max_tokens": None} if question.fills else {}) | ({"early_stop": "off"} if question.kind == "text" else {})
    return recipe.with_(**changes)


async def laid_out(engine: Desk, question: Question) -> tuple[list[str], list[list[int]], list[int]]:
    """The texts around the gaps, their ids, and the gaps' sizes. Before a suffix the gap is as large as the line says, or as the model is surest of."""
    model, tokenizer, ends = engine.model, engine.tokenizer, question.diffusion.get("ends", True)
    if question.kind == "text":
        text = question.fields["text"]
        _, given, sizes = gapped(model, tokenizer, text, ends=ends)
        return GAP.split(text)[::2], given, sizes
    around = [question.fields["prompt"], question.fields["suffix"]]
    before, after = ([*tokenizer(text, add_special_tokens=False)["input_ids"]] if text else [] for text in around)
    given = [opening(tokenizer) + before, after + (list(model.config.stop_ids[:1]) if ends else [])]
    most, size = question.fields.get("max_tokens"), question.diffusion.get("gap", "auto")
    if size == "auto":
        size = await surest(engine, tuple(given[0]), tuple(given[1]), gap_sizes(most or DEFAULT_GAP))
    elif most is not None and size > most:
        raise ValueError(f"diffusion.gap={size} is more than max_tokens={most}")
    return around, given, [size]


def one_by_one(engine: Desk, questions: Iterable[Question], recipe: Recipe, seed: int) -> Iterator[Outcome]:
    """`answers` for code that does not run in an event loop."""
    loop = asyncio.new_event_loop()
    found = answers(engine, questions, recipe, seed)

    async def following() -> Outcome | None:
        return await anext(found, None)

    async def leave() -> None:
        """Nothing stays behind, not even what was begun at the moment of Ctrl-C."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await found.aclose()

    task = loop.create_task(following())
    try:
        while (outcome := loop.run_until_complete(task)) is not None:
            yield outcome
            task = loop.create_task(following())
    finally:
        loop.run_until_complete(leave())
        loop.close()
