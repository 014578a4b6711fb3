"""The HTTP application: OpenAI's endpoints, the playground, health and metrics, around one engine."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from mezzotint import __version__
from mezzotint.engine import Chosen, Desk, made
from mezzotint.engine import Request as Asked
from mezzotint.engine.admission import check
from mezzotint.engine.desk import smallest
from mezzotint.engine.gap import left, surest
from mezzotint.grammar.automaton import Automaton
from mezzotint.grammar.compiling import Compiler, CompilerBusy
from mezzotint.grammar.specification import GrammarError
from mezzotint.recipe import Recipe
from mezzotint.server import errors, plan
from mezzotint.server.bodies import Answering, ChatBody, CompletionBody, DetokenizeBody, FimBody, InfillBody, TextFormat, TokenizeBody
from mezzotint.server.errors import ApiError, translated
from mezzotint.server.events import EventStream, disconnected
from mezzotint.server.gate import Gate
from mezzotint.server.generating import Choice, costs, follow, head, leave, shown, submit, usage
from mezzotint.server.metrics import Metrics
from mezzotint.server.page import page_response
from mezzotint.server.settings import ServerSettings

DEFAULT_GAP = 32
"""Most masks of a gap whose size nobody gave."""

log = logging.getLogger("mezzotint.server")
T = TypeVar("T")


class Service:
    """One engine behind HTTP. What the routes share. Raises ValueError (Refused) if the engine could not answer with the default recipe."""

    def __init__(self, settings: ServerSettings, engine: Desk):
        self.settings, self.engine = settings, engine
        self.metrics = Metrics(engine)
        self.compiler = Compiler(engine.tokenizer, engine.model.config.stop_ids, settings.grammar_seconds, settings.grammar_states)
        self.work: asyncio.Task | None = None
        self.warm = False
        for asked in (smallest(engine.model), self.usual):
            check(engine.model, asked, engine.longest, engine.budget)

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """The engine works while the application lives, and at its end gives answers at hand time to finish."""
        self.work = asyncio.create_task(self.engine.run())
        await self.engine.warm_up()
        self.warm = True
        yield
        self.warm = False
        await self.engine.drain(self.settings.drain_seconds)
        self.engine.close()
        await asyncio.wait((self.work,), timeout=5)

    @property
    def usual(self) -> Asked:
        """The shortest request that says nothing about its recipe. A server that had to refuse it does not start."""
        return Asked(((0,),), self.settings.recipe or plan.default_recipe(self.engine.model))

    @property
    def alive(self) -> bool:
        return self.work is not None and not self.work.done()

    async def answer(self, body: Answering, asked: Sequence[Asked], kind: str, prompt_tokens: int, request: Request) -> Response:
        """Run what was asked, and answer whole or as a stream."""
        choices = submit(self.engine, asked, plan.stops_of(body, self.settings))
        first = head(kind, self.settings.name)
        log.info("%s: %d answers for user %r", first["id"], len(choices), body.user)
        writer = Writer(self, body, first, prompt_tokens)
        if body.stream:
            return EventStream(writer.events(choices), lambda: leave(choices), self.settings.write_seconds)
        return await self.whole(writer.whole(choices), choices, request)

    async def whole(self, answering: Coroutine[Any, Any, dict[str, Any]], choices: Sequence[Choice], request: Request) -> Response:
        """One JSON answer, unless the client goes before it is there: then the runs are given up."""
        try:
            return JSONResponse(await while_there(answering, request))
        finally:
            leave(choices)


async def while_there(work: Coroutine[Any, Any, T], request: Request) -> T:
    """What the work gives, unless the client goes before: then it is given up."""
    gone = asyncio.ensure_future(disconnected(request.receive))
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((gone, task), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(499, "the client has gone")
        return task.result()
    finally:
        gone.cancel()
        task.cancel()


class Writer:
    """The form of an answer: completions or chats, whole or in chunks."""

    def __init__(self, service: Service, body: Answering, first: dict[str, Any], prompt_tokens: int):
        self.service, self.body, self.first, self.prompt_tokens = service, body, first, prompt_tokens
        self.chat = isinstance(body, ChatBody | FimBody)
        self.tokenizer = service.engine.tokenizer

    async def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        async for _ in follow(choices, self.service.metrics):
            pass
        return {
            **self.first,
            "choices": [self.choice(c, c.answer.text, c.fresh(), c.answer.finish, delta=False) for c in choices],
            "usage": usage(choices, self.prompt_tokens),
            "diffusion": costs(choices),
        }

    async def events(self, choices: Sequence[Choice]) -> AsyncIterator[dict[str, Any] | str]:
        """Chunks. Text that was sent never changes; steps are sent to those who asked to watch."""
        options = self.body.stream_options
        counted = options is not None and options.include_usage
        first = {**self.first, "object": "chat.completion.chunk" if self.chat else "text_completion"} | ({"usage": None} if counted else {})
        if self.chat:
            for choice in choices:
                yield {**first, "choices": [{"index": choice.index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}]}
        try:
            async for piece in follow(choices, self.service.metrics):
                choice = piece.choice
                if self.body.diffusion.watch and piece.update is not None:
                    yield {**first, "choices": [], "diffusion": shown(piece, self.tokenizer)}
                if piece.text:
                    yield {**first, "choices": [self.choice(choice, piece.text, choice.fresh(), None, delta=True)]}
                if piece.update is None:
                    yield {**first, "choices": [self.choice(choice, "", choice.fresh(), choice.answer.finish, delta=True)], "diffusion": costs([choice])[0]}
        except Exception as error:
            yield translated(error).body
            return
        if counted:
            yield {**first, "choices": [], "usage": usage(choices, self.prompt_tokens)}
        yield "[DONE]"

    def choice(self, choice: Choice, text: str, chosen: list[Chosen], finish: str | None, *, delta: bool) -> dict[str, Any]:
        found = {"index": choice.index, "logprobs": self.logprobs(choice, chosen), "finish_reason": finish}
        if not self.chat:
            return found | {"text": text}
        if delta:
            return found | {"delta": {"content": text} if text else {}}
        return found | {"message": {"role": "assistant", "content": text, "refusal": None}}

    def logprobs(self, choice: Choice, chosen: list[Chosen]) -> dict[str, Any] | None:
        """Log-probabilities of tokens when they were chosen, in the endpoint's own form."""
        if (chosen and chosen[0].logprob is None) or self.body.logprobs is None or self.body.logprobs is False:  # type: ignore[attr-defined]
            return None
        if self.chat:
            return {"content": [self.entry(c.token, c.logprob) | {"top_logprobs": [self.entry(*a) for a in c.alternatives]} for c in chosen], "refusal": None}
        words = [self.word(c.token) for c in chosen]
        offsets = [choice.offset + sum(map(len, words[:i])) for i in range(len(words))]
        choice.offset += sum(map(len, words))
        return {
            "tokens": words,
            "token_logprobs": [c.logprob for c in chosen],
            "top_logprobs": [{self.word(token): logprob for token, logprob in c.alternatives} for c in chosen],
            "text_offset": offsets,
        }

    def word(self, token: int) -> str:
        return self.tokenizer.decode([token], clean_up_tokenization_spaces=False)

    def entry(self, token: int, logprob: float | None) -> dict[str, Any]:
        word = self.word(token)
        return {"token": word, "logprob": logprob, "bytes": list(word.encode())}


def create_app(settings: ServerSettings | None = None, engine: Desk | None = None) -> FastAPI:
    """The application, around an engine that is made from the settings unless one is given."""
    settings = settings or ServerSettings()
    service = Service(settings, engine or made(settings.engine))
    engine = service.engine
    refusals: dict[int | str, dict[str, Any]] = {
        code: {"description": text}
        for code, text in (
            (400, "the request cannot be honoured; the error names the field"),
            (401, "no valid API key"),
            (404, "no such model"),
            (408, "the request took too long to arrive"),
            (413, "the request is too large"),
            (429, "the queue is full; see Retry-After"),
            (500, "the run failed"),
            (503, "the server is ending; see Retry-After"),
            (504, "the deadline passed"),
        )
    }
    streamed: dict[int | str, dict[str, Any]] = {200: {"description": "the answer, whole or (stream=true) as events", "content": {"text/event-stream": {}}}}
    app = FastAPI(title="Mezzotint", version=__version__, lifespan=service.lifespan, docs_url=None, redoc_url=None, responses=refusals)
    app.state.service = service
    created = int(time.time())
    errors.install(app)

    async def on_thread(work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)

    @app.post("/v1/completions", responses=streamed)
    async def completions(body: CompletionBody, request: Request) -> Any:
        """Continue a text, or (with `suffix`) fill the gap between prompt and suffix, seen from both sides."""
        return await complete(body, request, "text_completion")

    @app.post("/v1/fim/completions", responses=streamed)
    async def fim(body: FimBody, request: Request) -> Any:
        """Fill the gap between prompt and suffix, in the form of Mistral's API."""
        if body.random_seed is not None:
            if body.seed not in (None, body.random_seed):
                raise ApiError(400, f"seed={body.seed} and random_seed={body.random_seed} differ; give one", "random_seed")
            body = body.model_copy(update={"seed": body.random_seed})
        return await complete(body, request, "chat.completion")

    async def complete(body: CompletionBody, request: Request, kind: str) -> Response:
        plan.check_model(body.model, settings)
        plan.check_used(body)
        limit, _ = plan.limit_of(body)
        n = plan.check_count(len(plan.several(body.prompt)), body, settings)
        prompts = await on_thread(plan.prompts_of, body, engine.tokenizer)
        seed = plan.seed_of(body)
        rest = {"alternatives": body.logprobs, "drafts": body.diffusion.watch, "seconds": body.diffusion.seconds}
        if body.suffix is None:
            if body.diffusion.gap is not None:
                raise ApiError(400, f"diffusion.gap={body.diffusion.gap!r} needs a suffix", "diffusion.gap")
            recipe = plan.recipe_of(body, engine, settings, limit)
            grammar = await grammar_of(body, recipe, len(prompts) * n)
            asked = [Asked((ids,), recipe, seed + i * n + j, grammar=grammar, **rest) for i, ids in enumerate(prompts) for j in range(n)]
            return await service.answer(body, asked, kind, sum(map(len, prompts)), request)
        if body.response_format is not None and not isinstance(body.response_format, TextFormat):
            raise ApiError(400, "response_format cannot be combined with suffix", "response_format")
        recipe = plan.recipe_of(body, engine, settings, None)
        after = await on_thread(plan.suffix_ids, body, engine)
        asked, until = [], time.monotonic() + (body.diffusion.seconds or engine.settings.seconds)
        sizes = await while_there(gap_sizes(body, prompts, after, limit, until), request)
        rest["seconds"] = left(until)
        for i, (ids, size) in enumerate(zip(prompts, sizes, strict=True)):
            plan.check_seen(engine, (ids, size, after))
            asked += [Asked((ids, size, after), recipe, seed + i * n + j, **rest) for j in range(n)]
        return await service.answer(body, asked, kind, sum(len(ids) + len(after) for ids in prompts), request)

    async def gap_sizes(body: CompletionBody, prompts: Sequence[tuple[int, ...]], after: tuple[int, ...], limit: int | None, until: float) -> list[int]:
        """How many masks stand between each prompt and the suffix: as the request says, or the size the model is surest of."""
        wanted = body.diffusion.gap
        if wanted not in (None, "auto"):
            size = plan.check_gap(int(wanted))
            if limit is not None and size > limit:
                raise ApiError(400, f"diffusion.gap={size} is more than max_tokens={limit}", "diffusion.gap")
            return [size] * len(prompts)
        tried = plan.gap_sizes(plan.check_gap(limit or DEFAULT_GAP))
        return [await surest(engine, before, after, tried, until) for before in prompts]

    async def grammar_of(body: Answering, recipe: Recipe, answers: int) -> Automaton | None:
        """What all answers must match, compiled."""
        if body.response_format is None or isinstance(body.response_format, TextFormat):
            return None
        if body.stop is not None:
            raise ApiError(400, "stop cannot be combined with response_format: the text would no longer match", "stop")
        plan.check_constrained(recipe)
        try:
            grammar = await service.compiler.compile(plan.specification_of(body.response_format))
        except GrammarError as error:
            raise ApiError(400, f"response_format: {error}", "response_format") from None
        except CompilerBusy as error:
            raise ApiError(429, str(error), "response_format", "busy", {"Retry-After": "1"}) from None
        most = recipe.max_tokens or recipe.gen_length
        if grammar.least[0] > most:
            raise ApiError(400, f"response_format needs at least {grammar.least[0]} tokens, the answer may have {most}", "response_format")
        if recipe.width * grammar.states > settings.grammar_work:
            raise ApiError(
                400, f"response_format has {grammar.states} states, too many over blocks of {recipe.width}; ask for a smaller block_length", "response_format"
            )
        edges = len(grammar.source)
        if edges * recipe.width * answers > settings.grammar_edges:
            raise ApiError(
                400,
                f"response_format has {edges} edges, too many over blocks of {recipe.width} for {answers} answers; ask for a smaller block_length or n",
                "response_format",
            )
        return grammar

    @app.post("/v1/chat/completions", responses=streamed)
    async def chats(body: ChatBody, request: Request) -> Any:
        """Answer a chat."""
        plan.check_model(body.model, settings)
        plan.check_used(body)
        limit, _ = plan.limit_of(body)
        if body.top_logprobs is not None and not body.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs=true", "top_logprobs")
        if body.diffusion.gap is not None:
            raise ApiError(400, "diffusion.gap is for /v1/completions with a suffix", "diffusion.gap")
        n = plan.check_count(1, body, settings)
        ids = await on_thread(plan.chat_ids, body, engine.tokenizer)
        recipe = plan.recipe_of(body, engine, settings, limit)
        grammar = await grammar_of(body, recipe, n)
        seed = plan.seed_of(body)
        alternatives = (body.top_logprobs or 0) if body.logprobs else None
        rest = {"alternatives": alternatives, "drafts": body.diffusion.watch, "seconds": body.diffusion.seconds}
        asked = [Asked((ids,), recipe, seed + j, grammar=grammar, **rest) for j in range(n)]
        return await service.answer(body, asked, "chat.completion", len(ids), request)

    @app.post("/infill", responses=streamed)
    async def infill(body: InfillBody, request: Request) -> Any:
        """Fill every [[8]]-style gap of a text."""
        plan.check_model(body.model, settings)
        plan.check_used(body)
        if body.diffusion.gap is not None:
            raise ApiError(400, "diffusion.gap is for a suffix; here the gaps are written in the text, e.g. [[8]]", "diffusion.gap")
        recipe = plan.recipe_of(body, engine, settings, None)
        rest = {"drafts": body.diffusion.watch, "seconds": body.diffusion.seconds, "seed": plan.seed_of(body)}
        asked, pieces, masks, starts = await on_thread(lambda: plan.infill_request(body.text, body, recipe, engine, **rest))
        choices = submit(engine, [asked], ())

        def filled() -> dict[str, Any]:
            tokens = choices[0].answer.tokens
            fills = [engine.tokenizer.decode(tokens[s : s + n], skip_special_tokens=True) for s, n in zip(starts, masks, strict=True)]
            text = pieces[0] + "".join(fill + after for fill, after in zip(fills, pieces[1:], strict=True))
            return {"text": text, "fills": fills, "gaps": [[s, n] for s, n in zip(starts, masks, strict=True)], "diffusion": costs(choices)[0]}

        async def events() -> AsyncIterator[dict[str, Any] | str]:
            yield {"pieces": pieces, "gaps": list(zip(starts, masks, strict=True))}
            try:
                async for piece in follow(choices, service.metrics):
                    if body.diffusion.watch and piece.update is not None:
                        yield {"diffusion": shown(piece, engine.tokenizer)}
            except Exception as error:
                yield translated(error).body
                return
            yield filled()
            yield "[DONE]"

        async def whole() -> dict[str, Any]:
            async for _ in follow(choices, service.metrics):
                pass
            return filled()

        if body.stream:
            return EventStream(events(), lambda: leave(choices), settings.write_seconds)
        return await service.whole(whole(), choices, request)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [about()]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        plan.check_model(name, settings)
        return about()

    def about() -> dict[str, Any]:
        config = engine.model.config
        return {"id": settings.name, "object": "model", "created": created, "owned_by": "mezzotint", "family": config.family, "max_model_len": engine.longest}

    @app.get("/recipes")
    async def recipes() -> dict[str, Any]:
        """The named recipes, with where their settings come from."""
        from mezzotint.recipes import RECIPES

        default = settings.recipe or plan.default_recipe(engine.model)
        return {"default": default.to_dict(), "recipes": {n: {"recipe": r.recipe.to_dict(), "source": r.source} for n, r in RECIPES.items()}}

    @app.post("/tokenize")
    async def tokenize(body: TokenizeBody) -> dict[str, Any]:
        plan.check_model(body.model, settings)
        first = plan.opening(engine.tokenizer) if body.add_special_tokens else []
        ids = await on_thread(lambda: engine.tokenizer(body.prompt, add_special_tokens=False)["input_ids"])
        return {"tokens": [*first, *ids], "count": len(first) + len(ids), "max_model_len": engine.longest}

    @app.post("/detokenize")
    async def detokenize(body: DetokenizeBody) -> dict[str, Any]:
        plan.check_model(body.model, settings)
        wrong = next((t for t in body.tokens if t >= engine.model.config.vocab_size), None)
        if wrong is not None:
            raise ApiError(400, f"token id {wrong} is not one of this model's {engine.model.config.vocab_size}", "tokens")
        return {"prompt": engine.tokenizer.decode(body.tokens, clean_up_tokenization_spaces=False)}

    @app.get("/health")
    async def health() -> JSONResponse:
        """Whether the process works."""
        return JSONResponse({"status": "ok" if service.alive else "the engine has stopped"}, 200 if service.alive else 500)

    @app.get("/ready")
    async def ready() -> JSONResponse:
        """Whether new requests are taken."""
        able = service.alive and service.warm and engine.open
        return JSONResponse({"status": "ready" if able else "not ready"}, 200 if able else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return page_response()

    app.add_middleware(Gate, settings=settings, counted=service.metrics.on_response)
    return app
