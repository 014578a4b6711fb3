"""A recipe names everything about a run that is not the model, the prompt or the seed. Frozen, printable, JSON and CLI round trip."""

import dataclasses
import json
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mezzotint.attention import Dense, SparseD
from mezzotint.cache import DelayedCache, DualCache, FeatureCache, GreedyCache, NoCache, PrefixCache, PromptCache, SubBlockCache
from mezzotint.commit import CONFIDENCES, LEAST_TEMPERATURE, SAMPLINGS, Edit, Quota, Rule, Sampler, Shuffled
from mezzotint.fields import KIND_NAMES, fits
from mezzotint.strategies import KINDS, convert, parse, told, write
from mezzotint.suffix import Full
from mezzotint.types import Attention, Cache, Suffix

EARLY_STOPS = ("step", "block", "off")
END_TOKENS = ("free", "last", "never")


@dataclass(frozen=True)
class Recipe:
    """How a canvas is decoded.

    gen_length: masks after the prompt, in tokens; block_length: masks decoded together, left to right (None: all of them);
    steps: forwards for the whole canvas under a schedule such as `Quota` (None: gen_length, one token each), a multiple of the blocks, at most gen_length.
    max_tokens: None decodes the fixed canvas of gen_length. A number is the most tokens wanted: the canvas then reaches gen_length
        from the active block's start and grows with it, so that long answers cost what they need. It ends with a whole block: `generate` and `stream` cut
        the answer to max_tokens, `denoise` and `denoise_all` do not.
    commit, suffix, cache, attention: the four strategies.
    sampling, temperature, top_p, top_k, confidence: see `Sampler`; temperature 0 is greedy (otherwise at least 1e-4), top_k 0 keeps all.
    cfg_scale: classifier-free guidance (LLaDA, 0 off); costs twice the rows.
    early_stop: "step" ends a row as soon as a stop id stands in its decided prefix; "block" when a finished block holds one
        (DPad's early termination); "off" decodes the whole canvas, as the official baselines do. Where gaps are filled nothing ends early.
    end_tokens: "free" treats stop ids as any other; "last" gives them confidence 0, so that they are taken when nothing else is open (LLaDA's
        confidence_eos_eot_inf); "never" forbids the end of the text, the first stop id, while the end of a turn may still come (logits_eos_inf); a model
        with one stop id only then fills the whole canvas.
        For models that were trained on answers padded with end tokens.
    reuse: a step after one that committed nothing takes its logits instead of a forward; the canvas has not changed. Lossless, except that a cache that counts
        forwards (delayed, prompt, feature) then refreshes at other steps, and that sparsed makes its pattern, and attends by it, one forward later. Where
        prefix or dual with a refresh is due for one, the forward is made.
    """

    gen_length: int = 128
    block_length: int | None = 32
    steps: int | None = None
    max_tokens: int | None = None
    commit: Rule = field(default_factory=Quota)
    suffix: Suffix = field(default_factory=Full)
    cache: Cache = field(default_factory=NoCache)
    attention: Attention = field(default_factory=Dense)
    sampling: str = "gumbel"
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    confidence: str = "probability"
    cfg_scale: float = 0.0
    early_stop: str = "step"
    end_tokens: str = "free"
    reuse: bool = True

    def __post_init__(self) -> None:
        for name, kind in (("commit", Rule), ("suffix", Suffix), ("cache", Cache), ("attention", Attention)):
            if not isinstance(getattr(self, name), kind) or isinstance(getattr(self, name), type):
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is not a strategy; give one such as {', '.join(c.__name__ + '()' for c in KINDS[name].values())}"
                )
        for name in ("temperature", "top_p", "top_k", "cfg_scale"):
            value = getattr(self, name)
            if not fits(value, int if name == "top_k" else float):
                raise ValueError(f"{name}={value!r} must be {KIND_NAMES[int if name == 'top_k' else float]}")
        if not isinstance(self.reuse, bool):
            raise ValueError(f"reuse={self.reuse!r} must be true or false")
        for name in ("gen_length", "block_length", "steps", "max_tokens"):
            value = getattr(self, name)
            if value is None and name != "gen_length":
                continue
            if value is None or not fits(value, int) or value < 1:
                raise ValueError(f"{name}={value!r} must be a whole number of at least 1")
        if self.block_length is not None and self.gen_length % self.block_length:
            fit = round_up(self.gen_length, self.block_length)
            raise ValueError(
                f"gen_length={self.gen_length} is not a multiple of block_length={self.block_length}; use e.g. gen_length={fit}, or another block_length"
            )
        if self.steps is not None and self.steps < self.blocks:
            raise ValueError(f"steps={self.steps} is fewer than the {self.blocks} blocks; give at least one step per block or a larger block_length")
        if self.steps is not None and self.steps % self.blocks:
            fit = round_up(self.steps, self.blocks)
            raise ValueError(f"steps={self.steps} is not a multiple of the {self.blocks} blocks; use e.g. steps={fit}")
        if self.steps is not None and self.steps > self.gen_length:
            raise ValueError(f"steps={self.steps} is more than one step per token; give at most gen_length={self.gen_length}")
        for name, accepted in (("sampling", SAMPLINGS), ("confidence", CONFIDENCES), ("early_stop", EARLY_STOPS), ("end_tokens", END_TOKENS)):
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; accepted: {', '.join(accepted)}")
        if isinstance(self.cache, FeatureCache) and not isinstance(self.attention, Dense):
            raise ValueError(
                f"cache=feature computes different rows in every layer, so attention={type(self.attention).__name__} has no tiles; choose attention=dense"
            )
        self.check_ahead(max(self.gen_length, self.max_tokens or 0))
        if isinstance(self.cache, GreedyCache) and not isinstance(self.commit, Shuffled):
            raise ValueError(f"cache=greedy must know which positions come next, which commit={type(self.commit).__name__} cannot tell; choose commit=shuffled")
        rewrites = isinstance(self.commit, Edit) or getattr(self.commit, "compat", "none") == "sdar"
        if rewrites and (isinstance(self.cache, DelayedCache | SubBlockCache) or getattr(self.cache, "first_alone", False)):
            commit, cache = told("commit", self.commit), told("cache", self.cache)
            raise ValueError(f"commit={commit} may rewrite tokens that cache={cache} no longer computes; choose prefix, dual or none")
        needed = getattr(self.commit, "needs", CONFIDENCES)
        if not needed and self.end_tokens == "last":
            raise ValueError(f"commit={told('commit', self.commit)} takes positions however sure the model is, so end_tokens=last has no effect; leave it out")
        if not needed and self.confidence != "probability":
            commit = told("commit", self.commit)
            raise ValueError(f"commit={commit} takes positions however sure the model is, so confidence={self.confidence!r} has no effect; leave it out")
        if needed and self.confidence not in needed:
            raise ValueError(f"commit={type(self.commit).__name__} does not understand confidence={self.confidence!r}; give confidence={needed[0]!r}")
        if self.end_tokens == "last" and self.confidence != "probability":
            raise ValueError(f"end_tokens=last is a probability of 0, which confidence={self.confidence!r} does not know; choose confidence=probability")
        if self.temperature != 0 and not self.temperature >= LEAST_TEMPERATURE:
            raise ValueError(f"temperature={self.temperature} must be 0 or at least {LEAST_TEMPERATURE:g}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must lie in (0, 1]")
        if self.top_k < 0:
            raise ValueError(f"top_k={self.top_k} must be 0 (all) or more")
        if not self.cfg_scale >= 0:
            raise ValueError(f"cfg_scale={self.cfg_scale} must be 0 (off) or more")

    def check_ahead(self, positions: int) -> None:
        """Raises ValueError for strategies that so many positions, from the first mask to the end of the canvas once it has grown, do not suit."""
        blocks = round_up(positions, self.width) // self.width
        if isinstance(self.attention, SparseD):
            self._check_pattern(self.attention, blocks)
        if getattr(self.cache, "compat", "none") != "none" and blocks > 1:
            cache, length = told("cache", self.cache), self.gen_length
            raise ValueError(
                f"cache={cache} is for a canvas without blocks, this one has {blocks}; give block_length none, no max_tokens or gap beyond gen_length={length}"
            )

    def _check_pattern(self, sparse: SparseD, blocks: int) -> None:
        """Refuse a pattern that waits for a forward which computes everything, where the cache makes none any more."""
        attention, cache, at_first = told("attention", sparse), told("cache", self.cache), self.whole_only_at_first(blocks)
        if at_first and (sparse.skip > 0 or sparse.compat != "none"):
            run, more = ("the run", "") if blocks > 1 else ("the only block", ", or more blocks")
            raise ValueError(
                f"attention={attention} makes its pattern after a dense phase, in a forward that computes everything, and cache={cache} makes none but the "
                f"first of {run}; choose skip=0, a cache that is refreshed{more}"
            )
        once = sparse.rebuild == "never" or (sparse.rebuild == "block" and blocks == 1)
        if not once and (at_first or (isinstance(self.cache, PromptCache) and sparse.rebuild == "block")):
            raise ValueError(
                f"attention={attention} makes its pattern anew in forwards that compute everything, which cache={cache} does not make then; "
                "choose rebuild=never, or another cache"
            )

    @property
    def width(self) -> int:
        """Tokens per block."""
        return self.block_length or self.gen_length

    @property
    def blocks(self) -> int:
        """Blocks of the fixed canvas."""
        return self.gen_length // self.width

    @property
    def steps_per_block(self) -> int:
        return (self.steps or self.gen_length) // self.blocks

    @property
    def drawing_bytes(self) -> int:
        """What the sampler holds at its widest moment, beside the logits, in bytes for each of them."""
        gumbel = self.sampling == "gumbel"
        number = 8 if gumbel else 4
        held = [2 * number]  # the numbers that are drawn from, and their probabilities
        if self.confidence == "entropy" or self.end_tokens == "last":
            held.append(3 * number)
        if self.temperature > 0:
            held.append(32 if gumbel else 24)
        if self.top_p < 1:
            held.append(4 * number + 8)
        return max(held)

    def whole_only_at_first(self, blocks: int) -> bool:
        """Whether no forward but the first computes all visible positions, on a canvas of so many blocks."""
        cache = self.cache
        if isinstance(cache, PromptCache):
            return cache.refresh == 0
        if isinstance(cache, DelayedCache):
            return cache.prompt
        return blocks == 1 and (isinstance(cache, SubBlockCache) or (isinstance(cache, PrefixCache | DualCache) and cache.refresh == 0))

    def sampler(self, stop_ids: Sequence[int] = ()) -> Sampler:
        """How candidates are drawn; stop_ids: the model's, of which `end_tokens` speaks."""
        never, last = (tuple(stop_ids[:1]) if self.end_tokens == "never" else ()), (tuple(stop_ids) if self.end_tokens == "last" else ())
        return Sampler(self.sampling, self.temperature, self.top_p, self.top_k, self.confidence, never, last)

    def with_(self, **changes: Any) -> "Recipe":
        """A copy with some fields changed; strategies may be given as text (`commit="threshold:tau=0.8"`)."""
        for name in changes:
            if name not in FIELDS:
                raise ValueError(f"recipe field {name!r} is unknown; accepted: {', '.join(FIELDS)}")
        read = {n: parse(n, v) if n in KINDS and isinstance(v, str) else v for n, v in changes.items()}
        return dataclasses.replace(self, **read)

    def with_text(self, changes: dict[str, str]) -> "Recipe":
        """As `with_`, every value written as text, e.g. from a command line."""
        hints = typing.get_type_hints(Recipe)
        return self.with_(**{n: v if n in KINDS or n not in hints else convert("recipe", n, hints[n], v) for n, v in changes.items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain values; strategies as text. Read back by `from_dict`."""
        return {n: write(n, getattr(self, n)) if n in KINDS else getattr(self, n) for n in FIELDS}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Recipe":
        if not isinstance(values, dict):
            raise ValueError(f"a recipe must be an object of fields, not {values!r}")
        return Recipe().with_(**values)

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    @staticmethod
    def from_json(text: str) -> "Recipe":
        return Recipe.from_dict(json.loads(text))

    def __str__(self) -> str:
        """The fields that differ from the defaults, as the command line writes them."""
        plain, mine = Recipe().to_dict(), self.to_dict()
        return " ".join(f"--{n.replace('_', '-')} {str(v).lower() if v is None or isinstance(v, bool) else v}" for n, v in mine.items() if v != plain[n])


FIELDS = tuple(f.name for f in dataclasses.fields(Recipe))


def round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
