"""Text in, text out: chat templates, `generate`, `stream` and `infill` on top of the loop."""

import dataclasses
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import torch

from mezzotint.canvas import Canvas
from mezzotint.denoising import Generation, Seed, Step, Tally, ample, denoise
from mezzotint.models.config import ModelConfig
from mezzotint.models.families import family_of
from mezzotint.models.loading import CheckpointError, folder_of, load_model, read_config
from mezzotint.models.outline import Outline
from mezzotint.models.rope import RopeScaling
from mezzotint.models.transformer import Transformer
from mezzotint.recipe import Recipe, round_up
from mezzotint.recipes import named

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

Messages = Sequence[dict[str, str]]
"""A chat: dictionaries with `role` and `content`."""

GAP = re.compile(r"\[\[(\d+)\]\]")
MOST_MASKS_PER_GAP = 4096


def load(
    source: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str | None = None,
    rope_scaling: RopeScaling | str | None = None,
    mask_id: int | None = None,
    block_causal: int | None = None,
    weights: str | None = None,
    mesh: "DeviceMesh | None" = None,
) -> tuple[Transformer, Any]:
    """A model and its tokenizer, from a folder, a hub id, or (None) the bundled one. Arguments as for `load_model`.

    The end of a chat turn (`<|eot_id|>`, `<|im_end|>`) is added to the model's stop ids if the tokenizer has it. Families that keep their chat
    template in code, or fix a variable of it, have it set on the tokenizer.
    """
    folder = folder_of(source)
    model = load_model(folder, device=device, dtype=dtype, rope_scaling=rope_scaling, mask_id=mask_id, block_causal=block_causal, weights=weights, mesh=mesh)
    tokenizer = load_tokenizer(folder)
    family = family_of(read_config(folder))
    if tokenizer.chat_template is None:
        tokenizer.chat_template = getattr(family, "CHAT_TEMPLATE", None)
    elif isinstance(tokenizer.chat_template, str):
        fixed = getattr(family, "TEMPLATE_VARIABLES", {})
        tokenizer.chat_template = "".join(f"{{%- set {name} = {value} -%}}" for name, value in fixed.items()) + tokenizer.chat_template
    model.config = with_turn_end(model.config, tokenizer.get_vocab().get(family.TURN_END))
    return model, tokenizer


def with_turn_end(config: ModelConfig, turn_end: int | None) -> ModelConfig:
    """A model that also stops at the end of a chat turn, if its tokenizer has one."""
    known = turn_end is None or turn_end in config.stop_ids
    return config if known else dataclasses.replace(config, stop_ids=(*config.stop_ids, turn_end))


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer, without running any code of the checkpoint.

    Dream ships its own slow tokenizer class; its vocabulary and rules are Qwen2's, so those files are read by that class.
    """
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    ways: list[dict[str, str]] = [{}]
    if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        ways.append({"tokenizer_type": "qwen2"})
    reason = ""
    for way in ways:
        try:
            with warnings.catch_warnings():  # config.json is read along with the tokenizer, and remarked upon
                warnings.simplefilter("ignore", FutureWarning)
                return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **way)
        except Exception as error:  # damaged files raise whatever they lead to, plain Exceptions among it; all mean the same to the user
            reason = reason or next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    raise CheckpointError(f"{folder} has no tokenizer that can be read without remote code; its tokenizer files are missing or damaged: {reason}")


def default_recipe(model: Transformer | Outline) -> Recipe:
    """The recipe that is used when none is given: the family's own decoding, in the blocks that the model was trained in."""
    return fitted(named(model.config.recipe), model.config)


def fitted(recipe: Recipe, config: ModelConfig) -> Recipe:
    """A recipe with the model's trained blocks. Models that take a block's first token from the block before are decoded in the recipe's smaller ones."""
    block = config.block_length
    if block is None or (config.carry and block % recipe.width == 0):
        return recipe
    return recipe.with_(block_length=block, gen_length=round_up(recipe.gen_length, block), steps=None)


class Written(str):
    """A prompt that a chat template has been written into: it is encoded as it stands, with the begin token only if the template has one."""


def encode(tokenizer: Any, prompt: str | Messages, *, chat: bool | None = None) -> list[int]:
    """Token ids of a prompt. A string becomes one user turn if the tokenizer has a chat template (or `chat` says so), else plain text; `Written` stays."""
    if not prompt or (isinstance(prompt, str) and not prompt.strip()):
        raise ValueError("the prompt is empty; give some text")
    if isinstance(prompt, Written):
        return tokenizer(str(prompt), add_special_tokens=False)["input_ids"]
    templated = bool(tokenizer.chat_template) if chat is None else chat
    if not isinstance(prompt, str) or templated:
        if not tokenizer.chat_template:
            raise ValueError("chat=True, but this tokenizer has no chat template; give plain text with chat=False")
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return tokenizer(text, add_special_tokens=False)["input_ids"]
    return opening(tokenizer) + tokenizer(prompt, add_special_tokens=False)["input_ids"]


def opening(tokenizer: Any) -> list[int]:
    """The ids every document starts with: the begin token, for tokenizers that have one."""
    return [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]


def check_length(model: Transformer, ids: Sequence[int]) -> None:
    """Raises ValueError for a prompt behind which no token fits."""
    check_reach(model.config, "the prompt", len(ids), 1)


def check_reach(config: ModelConfig, what: str, tokens: int, room: int) -> None:
    """Raises ValueError if so many tokens and as much room behind them do not fit the model's context."""
    if tokens + room > config.reach:
        scaling = ample(config, tokens + room)
        raise ValueError(
            f"{what} has {tokens} tokens, the model's context is {config.reach}; shorten it or choose a rope scaling (e.g. --rope-scaling {scaling})"
        )


def answer_ids(row: Sequence[int], stop_ids: Sequence[int], limit: int | None = None) -> tuple[list[int], bool]:
    """The ids before the first stop id, at most `limit` of them, and whether a stop id ended them."""
    end = next((i for i, token in enumerate(row) if token in stop_ids), None)
    kept = list(row if end is None else row[:end])
    if limit is not None and len(kept) > limit:
        return kept[:limit], False
    return kept, end is not None


def until(text: str, mark: str) -> tuple[str, bool]:
    """The text before `mark`, and whether it is there. No mark: the whole text."""
    before, found, _ = text.partition(mark) if mark else (text, "", "")
    return before, bool(found)


def generate(
    model: Transformer,
    tokenizer: Any,
    prompt: str | Messages | Sequence[str],
    recipe: Recipe | None = None,
    *,
    seed: Seed = 0,
    chat: bool | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Any:
    """Answer a prompt: a `Generation` for a string or a chat, a list of them for a list of strings (run as one batch).

    `tokens` are the answer's ids before the stop id, `text` their text; forwards and positions_computed are counted until the
    row has ended. on_step sees every `Step`. Raises ValueError for an empty prompt or one longer than the context.
    """
    recipe = recipe or default_recipe(model)
    several = not isinstance(prompt, str) and len(prompt) > 0 and all(isinstance(p, str) for p in prompt)
    prompts = list(prompt) if several else [prompt]
    ids = [encode(tokenizer, p, chat=chat) for p in prompts]  # type: ignore[arg-type]
    for row in ids:
        check_length(model, row)
    begun = time.perf_counter()
    tally = Tally(len(ids), recipe)
    seconds = [0.0] * len(ids)
    last: Step | None = None
    for last in denoise(model, [torch.tensor(row) for row in ids], recipe, seed=seed):
        running = tally.running
        tally.count(last)
        now = time.perf_counter() - begun
        seconds = [now if active else before for active, before in zip(running, seconds, strict=True)]
        if on_step is not None:
            on_step(last)
    assert last is not None
    results = []
    for row, (tokens, begin) in enumerate(zip(last.tokens.tolist(), last.begins, strict=True)):
        kept, stopped = answer_ids(tokens[begin:], model.config.stop_ids, recipe.max_tokens or recipe.gen_length)
        text, ended = until(tokenizer.decode(kept, skip_special_tokens=True), model.config.stop_text)
        stopped = stopped or ended
        reason = ("stop" if stopped else "length",)
        answer = torch.tensor(kept, dtype=torch.long)
        results.append(Generation(answer, tally.row_forwards[row], tally.row_positions[row], seconds[row], reason, recipe, text, tally.recall))
    return results if several else results[0]


def stream(
    model: Transformer, tokenizer: Any, prompt: str | Messages, recipe: Recipe | None = None, *, seed: SupportsIndex = 0, chat: bool | None = None
) -> Iterator[str]:
    """The answer's text as it becomes certain: only decided, contiguous text that never changes; the pieces join to `generate`'s text."""
    recipe = recipe or default_recipe(model)
    ids = encode(tokenizer, prompt, chat=chat)
    check_length(model, ids)
    decided: list[int] = []
    sent = ""
    for step in denoise(model, torch.tensor([ids]), recipe, seed=seed):
        begin = step.begins[0]
        row = step.ids[0].tolist()[max(0, begin - step.block.start) :]
        known = 0 if step.tentative else row.index(-1) if -1 in row else len(row)
        decided = decided[: max(0, step.block.start - begin)] + row[:known]
        kept, stopped = answer_ids(decided, model.config.stop_ids, recipe.max_tokens or recipe.gen_length)
        text, ended = until(tokenizer.decode(kept, skip_special_tokens=True), model.config.stop_text)
        whole = text if stopped or ended or step.finished[0] else text[: len(text) - len(model.config.stop_text)].rstrip("�")
        if len(whole) > len(sent):
            yield whole[len(sent) :]
            sent = whole


def unseen(config: ModelConfig, pieces: Sequence[Sequence[int] | int]) -> int:
    """How many tokens given behind the first gap do not guide what fills it: models trained in blocks see nothing behind the block they are at.

    pieces: as for `Canvas.gaps`. The token that ends the document does not count.
    """
    grid = config.block_length
    first = next((i for i, piece in enumerate(pieces) if isinstance(piece, int)), None)
    if grid is None or first is None:
        return 0
    place = sum(len(piece) for piece in pieces[:first] if not isinstance(piece, int))
    end = round_up(place + 1, grid)
    count = 0
    for piece in pieces[first:]:
        if not isinstance(piece, int):
            count += sum(place + i >= end and token not in config.stop_ids for i, token in enumerate(piece))
        place += piece if isinstance(piece, int) else len(piece)
    return count


def gapped(model: Transformer | Outline, tokenizer: Any, text: str, *, ends: bool) -> tuple[Canvas, list[list[int]], list[int]]:
    """A text with `[[8]]`-style gaps as a canvas, the ids given around the gaps, and the gaps' sizes."""
    pieces = GAP.split(text)
    if len(pieces) == 1:
        raise ValueError("the text has no gap; write one as [[8]], 8 being the number of masks")
    masks = [int(count) for count in pieces[1::2]]
    for count in masks:
        if not 1 <= count <= MOST_MASKS_PER_GAP:
            raise ValueError(f"a gap of {count} masks is not possible; accepted: 1 to {MOST_MASKS_PER_GAP}")
    given = [tokenizer(piece, add_special_tokens=False)["input_ids"] if piece else [] for piece in pieces[::2]]
    given[0] = opening(tokenizer) + given[0]
    if ends and model.config.stop_ids:
        given[-1] = [*given[-1], model.config.stop_ids[0]]
    laid = [part for pair in zip(given, [*masks, 0], strict=True) for part in pair][:-1]
    if count := unseen(model.config, laid):
        warnings.warn(
            f"{model.config.family} sees blocks of {model.config.block_length} tokens and nothing behind them: {count} of the tokens given behind a gap do not "
            "guide what fills it; for text that is seen from both sides choose a model with full attention",
            stacklevel=3,
        )
    return Canvas.gaps(laid, model.config.mask_id, model.device), given, masks


@dataclasses.dataclass(frozen=True)
class Infilled(Generation):
    """A `Generation` whose text is the whole filled text; `fills` holds what went into each gap."""

    fills: tuple[str, ...] = ()


def infill(
    model: Transformer,
    tokenizer: Any,
    text: str,
    recipe: Recipe | None = None,
    *,
    seed: SupportsIndex = 0,
    ends: bool = True,
    on_step: Callable[[Step], None] | None = None,
) -> Infilled:
    """Fill gaps written `[[8]]` (8 masks) between given text; everything given is seen from both sides and stays. Models trained in blocks
    see nothing behind the block that a mask lies in: a warning says so where text stands there.

    Blocks of the recipe's block_length (None: of gen_length) start at the first gap; every gap is filled to its end, so stop ids
    end nothing. ends: the text is a whole document, so an end token follows it. Raises ValueError if there is no gap, one of 0
    or more than 4,096 masks, or a recipe with max_tokens.
    """
    recipe = (recipe or default_recipe(model)).with_(early_stop="off")
    if recipe.max_tokens is not None:
        raise ValueError(f"max_tokens={recipe.max_tokens} has no meaning when gaps are filled: their sizes are given; leave it out")
    pieces = GAP.split(text)
    canvas, given, masks = gapped(model, tokenizer, text, ends=ends)
    check_reach(model.config, "the text with its gaps", canvas.length, 0)
    begun = time.perf_counter()
    tally = Tally(1, recipe)
    for step in denoise(model, canvas, recipe, seed=seed):
        tally.count(step)
        if on_step is not None:
            on_step(step)
    row = canvas.tokens[0].tolist()
    fills, filled, place = [], pieces[0], len(given[0])
    for count, ids, after in zip(masks, given[1:], pieces[2::2], strict=True):
        fills.append(tokenizer.decode(row[place : place + count], skip_special_tokens=True))
        filled += fills[-1] + after
        place += count + len(ids)
    seconds = time.perf_counter() - begun
    return Infilled(canvas.tokens[0].cpu(), tally.forwards, tally.positions, seconds, ("length",), recipe, filled, tally.recall, tuple(fills))
