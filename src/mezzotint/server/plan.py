"""From a request's body to what the engine runs: tokens, recipe, gaps, limits. Everything that cannot be honoured is refused here, by name."""

import secrets
from collections.abc import Sequence
from typing import Any

from mezzotint import generation
from mezzotint.commit import Edit, Shuffled
from mezzotint.engine import Desk, Request
from mezzotint.engine.gap import gap_sizes as gap_sizes
from mezzotint.generation import GAP, MOST_MASKS_PER_GAP, default_recipe, encode, fitted, gapped, opening
from mezzotint.grammar.specification import Specification
from mezzotint.recipe import Recipe
from mezzotint.recipes import named
from mezzotint.server.bodies import Answering, ChatBody, ChoiceFormat, Common, CompletionBody, JsonFormat, Message, RegexFormat
from mezzotint.server.errors import ApiError
from mezzotint.server.settings import ServerSettings
from mezzotint.strategies import told


def recipe_of(body: Common, engine: Desk, settings: ServerSettings, max_tokens: int | None) -> Recipe:
    """The recipe that is named (or the server's), changed by what the request sets."""
    wanted = body.diffusion
    try:
        own = settings.recipe or default_recipe(engine.model)
        recipe = own if wanted.recipe is None else fitted(named(wanted.recipe), engine.model.config)
    except ValueError as error:
        raise ApiError(400, str(error), "diffusion.recipe") from None
    changes = wanted.changes() | {n: v for n in ("temperature", "top_p") if (v := getattr(body, n)) is not None}
    if max_tokens is not None or not continues(body):
        changes["max_tokens"] = max_tokens
    try:
        recipe = recipe.with_(**changes)
    except ValueError as error:
        field = next((n for n, v in changes.items() if str(error).startswith((f"{n}=", f"{n}:", f"{str(v).partition(':')[0]} "))), None)
        raise ApiError(400, str(error), field if field in (None, "temperature", "top_p") else f"diffusion.{field}") from None
    if wanted.attention is not None and getattr(recipe.attention, "impl", "auto") != "auto":
        raise ApiError(400, f"attention={wanted.attention} chooses an impl, which is the server's to choose; accepted: auto", "diffusion.attention")
    if recipe.gen_length > engine.longest:
        raise ApiError(400, f"gen_length={recipe.gen_length} exceeds the limit of {engine.longest} tokens", "diffusion.gen_length")
    return recipe


def continues(body: Common) -> bool:
    """Whether the answer follows the prompt, and so may end anywhere; a gap has a size."""
    return isinstance(body, ChatBody) or (isinstance(body, CompletionBody) and body.suffix is None)


def check_constrained(recipe: Recipe) -> None:
    """A grammar is kept by choosing among all open positions of a block, once each: rules that take an order of their own or rewrite cannot keep it. It says
    itself where the answer ends."""
    if recipe.end_tokens != "free":
        raise ApiError(400, f"response_format cannot be combined with end_tokens={recipe.end_tokens}", "diffusion.end_tokens")
    if isinstance(recipe.commit, Edit | Shuffled) or getattr(recipe.commit, "compat", "none") != "none":
        raise ApiError(400, f"response_format cannot be combined with commit={told('commit', recipe.commit)}", "diffusion.commit")


def seed_of(body: Common) -> int:
    """The request's seed, or a fresh one, which the answer reports."""
    return secrets.randbits(31) if body.seed is None else body.seed


def check_model(name: str | None, settings: ServerSettings) -> None:
    if name is not None and name != settings.name:
        raise ApiError(404, f"model={name!r} is not served here; accepted: {settings.name}", "model", "model_not_found")


def check_used(body: Common) -> None:
    """Refuse what would be passed over."""
    if body.diffusion.watch and not body.stream:
        raise ApiError(400, "diffusion.watch needs stream=true", "diffusion.watch")
    if isinstance(body, Answering) and body.stream_options is not None and not body.stream:
        raise ApiError(400, "stream_options needs stream=true", "stream_options")
    if continues(body) and "ends" in body.diffusion.model_fields_set:
        raise ApiError(400, "diffusion.ends needs a suffix", "diffusion.ends")


def stops_of(body: Answering, settings: ServerSettings) -> tuple[str, ...]:
    stops = () if body.stop is None else (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)
    if len(stops) > settings.stops:
        raise ApiError(400, f"stop has {len(stops)} strings, the limit is {settings.stops}", "stop")
    return stops


def check_count(prompts: int, body: Answering, settings: ServerSettings) -> int:
    """How many answers each prompt gets."""
    n = body.n or 1
    if prompts * n > settings.choices:
        raise ApiError(400, f"{prompts} prompts with n={n} are {prompts * n} answers, the limit is {settings.choices}", "n" if n > 1 else "prompt")
    return n


def several(given: Any) -> Sequence[Any]:
    """The prompts of a completion, each a text or ids."""
    return [given] if isinstance(given, str) or all(isinstance(item, int) for item in given) else given


def prompts_of(body: CompletionBody, tokenizer: Any) -> list[tuple[int, ...]]:
    """The ids of every prompt of a completion. A text is continued as it stands, after the document's opening."""
    prompts = several(body.prompt)
    found = []
    for prompt in prompts:
        if isinstance(prompt, str):
            found.append((*opening(tokenizer), *tokenizer(prompt, add_special_tokens=False)["input_ids"]))
        else:
            found.append(tuple(prompt))  # type: ignore[arg-type]
    if body.suffix is None and any(not ids or (isinstance(p, str) and not p.strip()) for p, ids in zip(prompts, found, strict=True)):
        raise ApiError(400, "the prompt is empty; give some text", "prompt")
    return found


def chat_ids(body: ChatBody, tokenizer: Any) -> tuple[int, ...]:
    """The chat in the model's own template."""
    if not tokenizer.chat_template:
        raise ApiError(400, "this model has no chat template; use /v1/completions", "messages")
    try:
        return tuple(encode(tokenizer, [{"role": spoken(m), "content": content(m)} for m in body.messages]))
    except Exception as error:  # templates are the checkpoint's: each refuses unsuitable chats in its own way
        raise ApiError(400, f"the model's chat template refuses these messages: {error}", "messages") from None


def spoken(message: Message) -> str:
    return "system" if message.role == "developer" else message.role


def content(message: Message) -> str:
    return message.content if isinstance(message.content, str) else "".join(part.text for part in message.content)


def limit_of(body: Answering) -> tuple[int | None, str]:
    """The most tokens wanted, and the field that says so."""
    newer = getattr(body, "max_completion_tokens", None)
    if newer is not None and body.max_tokens is not None and newer != body.max_tokens:
        raise ApiError(400, f"max_tokens={body.max_tokens} and max_completion_tokens={newer} differ; give one", "max_tokens")
    return (body.max_tokens, "max_tokens") if newer is None else (newer, "max_completion_tokens")


def specification_of(wanted: JsonFormat | ChoiceFormat | RegexFormat) -> Specification:
    """Raises GrammarError for a schema that could not be enforced."""
    if isinstance(wanted, JsonFormat):
        return Specification.schema(wanted.json_schema.schema_)
    return Specification.choice(wanted.choices) if isinstance(wanted, ChoiceFormat) else Specification.regex(wanted.regex)


def suffix_ids(body: CompletionBody, engine: Desk) -> tuple[int, ...]:
    """What stands after the gap, with the end of the document unless the text goes on."""
    ids = engine.tokenizer(body.suffix, add_special_tokens=False)["input_ids"] if body.suffix else []
    ends = engine.model.config.stop_ids[:1] if body.diffusion.ends else ()
    return (*ids, *ends)


def check_seen(engine: Desk, pieces: Sequence[tuple[int, ...] | int], param: str = "suffix") -> None:
    """An editor shows what it gets: a fill that was made without the text behind it is refused."""
    if count := generation.unseen(engine.model.config, pieces):
        grid = engine.model.config.block_length
        raise ApiError(400, f"{count} tokens behind the gap would not be seen: this model sees nothing behind its block of {grid} tokens; send none", param)


def infill_request(text: str, body: Common, recipe: Recipe, engine: Desk, **rest: Any) -> tuple[Request, list[str], list[int], list[int]]:
    """The request for a text with [[8]]-style gaps; the pieces of text around them, their sizes, and where each begins after the first one.

    Every gap is filled to its end, as `generation.infill` does."""
    if body.diffusion.early_stop not in (None, "off"):
        raise ApiError(400, "diffusion.early_stop has no meaning here: every gap is filled to its end; leave it out", "diffusion.early_stop")
    pieces = GAP.split(text)
    if len(pieces) > 2 * 64 + 1:
        raise ApiError(400, f"the text has {len(pieces) // 2} gaps, the limit is 64", "text")
    try:
        _, given, masks = gapped(engine.model, engine.tokenizer, text, ends=body.diffusion.ends)
    except ValueError as error:
        raise ApiError(400, str(error), "text") from None
    laid: list[tuple[int, ...] | int] = [tuple(given[0])]
    starts, place = [], 0
    for count, ids in zip(masks, given[1:], strict=True):
        laid += [count, tuple(ids)]
        starts.append(place)
        place += count + len(ids)
    check_seen(engine, laid, "text")
    return Request(tuple(laid), recipe.with_(early_stop="off"), **rest), pieces[::2], masks, starts


def check_gap(size: int) -> int:
    if not 1 <= size <= MOST_MASKS_PER_GAP:
        raise ApiError(400, f"a gap of {size} masks is not possible; accepted: 1 to {MOST_MASKS_PER_GAP}", "diffusion.gap")
    return size
