"""The course of an answer: one or more runs of the engine, followed together, whole or as a stream."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mezzotint.engine import Chosen, Desk, Ticket, Update
from mezzotint.engine import Request as Asked
from mezzotint.server.answer import Answer
from mezzotint.server.metrics import Metrics


@dataclass
class Choice:
    """One answer: its run, its text so far, and what was chosen where."""

    index: int
    ticket: Ticket
    answer: Answer
    chosen: dict[int, Chosen] = field(default_factory=dict)
    reported: int = 0
    offset: int = 0
    seconds: float = 0.0

    def fresh(self) -> list[Chosen]:
        """The choices behind tokens that have not been reported yet."""
        new = [self.chosen[i] for i in range(self.reported, len(self.answer.tokens)) if i in self.chosen]
        self.reported = len(self.answer.tokens)
        return new


def submit(engine: Desk, requests: Sequence[Asked], stops: Sequence[str]) -> list[Choice]:
    """All of them, or none: whatever was queued before one is refused is taken back."""
    tickets: list[Ticket] = []
    try:
        for request in requests:
            tickets.append(engine.submit(request))
    except Exception:
        for ticket in tickets:
            ticket.cancel()
        raise
    config, answers = engine.model.config, []
    for index, ticket in enumerate(tickets):
        ended = (config.stop_ids, (*stops, config.stop_text) if config.stop_text else stops) if ticket.request.open_ended else ((), stops)
        answers.append(Choice(index, ticket, Answer(engine.tokenizer, *ended)))
    return answers


@dataclass(frozen=True)
class Piece:
    """What became certain of one choice. update is None at its end; text may be empty."""

    choice: Choice
    text: str
    update: Update | None


async def follow(choices: Sequence[Choice], metrics: Metrics) -> AsyncIterator[Piece]:
    """Every choice's pieces as they come, each choice's last with update None. Cancels the runs when it is left. Raises what a run raised."""
    news: asyncio.Queue[Piece | Exception] = asyncio.Queue()

    async def watch(choice: Choice) -> None:
        try:
            reason = "length"
            async for update in choice.ticket:
                choice.chosen.update((c.position, c) for c in update.accepted)
                silent = not choice.answer.text
                text = choice.answer.add(update.decided)
                if silent and text:
                    metrics.first.observe(time.monotonic() - choice.ticket.submitted)
                choice.seconds = time.monotonic() - choice.ticket.submitted
                news.put_nowait(Piece(choice, text, update))
                if choice.answer.finish is not None:
                    choice.ticket.cancel()
                    break
                reason = update.finished or reason
            news.put_nowait(Piece(choice, choice.answer.end(reason), None))
        except Exception as error:
            news.put_nowait(error)

    tasks = [asyncio.create_task(watch(choice)) for choice in choices]
    left = len(choices)
    try:
        while left:
            piece = await news.get()
            if isinstance(piece, Exception):
                raise piece
            left -= piece.update is None
            yield piece
    finally:
        leave(choices)
        for task in tasks:
            task.cancel()


def leave(choices: Sequence[Choice]) -> None:
    """Give up whatever is still running."""
    for choice in choices:
        choice.ticket.cancel()


def head(kind: str, name: str) -> dict[str, Any]:
    """What every object of one response begins with."""
    prefix = "chatcmpl" if kind.startswith("chat") else "cmpl"
    return {"id": f"{prefix}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": name}


def usage(choices: Sequence[Choice], prompts: int) -> dict[str, int]:
    """Tokens given (each prompt once) and tokens answered."""
    answered = sum(len(choice.answer.tokens) for choice in choices)
    return {"prompt_tokens": prompts, "completion_tokens": answered, "total_tokens": prompts + answered}


def costs(choices: Sequence[Choice]) -> list[dict[str, Any]]:
    """What each choice took, and with what it can be repeated."""
    return [
        {
            "index": choice.index,
            "forwards": choice.ticket.forwards,
            "positions_computed": choice.ticket.positions,
            "seconds": round(choice.seconds, 4),
            "seed": choice.ticket.request.seed,
            "recipe": choice.ticket.request.recipe.to_dict(),
        }
        for choice in choices
    ]


def shown(piece: Piece, tokenizer: Any) -> dict[str, Any]:
    """A step for whoever watches: what was accepted, what is only a draft, which block is active, which masks are hidden."""
    update = piece.update
    assert update is not None
    stop_ids = piece.choice.answer.stop_ids

    def told(chosen: Sequence[Chosen]) -> list[dict[str, Any]]:
        return [
            {
                "position": c.position,
                "text": "" if c.token in stop_ids else tokenizer.decode([c.token], clean_up_tokenization_spaces=False),
                "end": c.token in stop_ids,
                "logprob": c.logprob,
            }
            for c in chosen
        ]

    return {
        "index": piece.choice.index,
        "step": update.step,
        "block": update.block,
        "accepted": told(update.accepted),
        "drafts": told(update.drafts),
        "unseen": update.unseen,
        "length": update.length,
        "computed": update.computed,
        "remembered": update.remembered,
        "forwards": piece.choice.ticket.forwards,
        "seconds": round(piece.choice.seconds, 4),
        "finished": update.finished,
    }
