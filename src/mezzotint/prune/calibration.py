"""What importance is measured on: token ids, the span that noise may mask, and the noise."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mezzotint.analysis.recording import masked_at, noise_level, total_mass
from mezzotint.analysis.sinks import SinkRule, transience
from mezzotint.models.config import ModelConfig
from mezzotint.models.transformer import Transformer

NOISES = ("steps", "uniform")
STEPS, INTERVAL = 50, 5


def noise_of(noise: str, config: ModelConfig) -> str:
    """The kind of noise; "auto" is that of the released code for the model's family."""
    return noise if noise != "auto" else "uniform" if config.family == "dream" else "steps"


@dataclass(frozen=True)
class Sample:
    """ids: (n,) on the host; noise may mask positions [start, end), and the likelihood is that of those."""

    ids: Int[Tensor, " n"]
    start: int
    end: int


@dataclass(frozen=True)
class Calibration:
    """Samples and their noised views.

    noise: "steps" (ten of LLaDA's fifty noise levels, the last of them all masks) or "uniform" (ten levels drawn evenly from (0, 1), first and last position
        never masked, as the released code does it for Dream). Each (seed, sample, level) has a generator of its own, so results do not depend on the order.
    views: how many of the ten levels each sample is shown at, evenly apart and starting one further for each sample.
    drawn: (samples, levels, n) views made elsewhere, in place of drawing.
    """

    samples: tuple[Sample, ...]
    seed: int = 0
    views: int = STEPS // INTERVAL
    drawn: Int[Tensor, "samples levels n"] | None = None

    def __post_init__(self) -> None:
        if not self.samples:
            raise ValueError("calibration data is empty; give at least one sample")
        if not 1 <= self.views <= STEPS // INTERVAL:
            raise ValueError(f"views={self.views} must be from 1 to {STEPS // INTERVAL}")

    @staticmethod
    def of(data: "Calibration | Tensor | Sequence[Any]", seed: int = 0) -> "Calibration":
        """From a calibration, a (samples, n) tensor of ids, or a list of 1-D ids or `Sample`s. Without a span, all positions may be masked."""
        if isinstance(data, Calibration):
            return data
        samples = []
        for row in data:
            if isinstance(row, Sample):
                samples.append(row)
                continue
            if isinstance(row, str):
                raise ValueError("calibration data is text; make token ids of it first, e.g. with mezzotint.prune.from_text(tokenizer, text)")
            ids = torch.as_tensor(row, dtype=torch.long).cpu()
            if ids.ndim != 1 or len(ids) < 2:
                raise ValueError(f"calibration data has a row of shape {tuple(ids.shape)}; give rows of at least 2 token ids")
            samples.append(Sample(ids, 0, len(ids)))
        return Calibration(tuple(samples), seed)

    def some(self, numbers: Sequence[int]) -> "Calibration":
        """These samples only, with the views that were drawn of them."""
        return replace(self, samples=tuple(self.samples[i] for i in numbers), drawn=None if self.drawn is None else self.drawn[list(numbers)])

    def identity(self) -> dict[str, Any]:
        """Tells it from other calibrations."""
        drawn = None if self.drawn is None else hashlib.sha256(self.drawn.numpy().tobytes()).hexdigest()[:16]
        return {"calibration": digest(self.samples), "calibration_seed": self.seed, "calibration_views": self.views, "calibration_drawn": drawn}

    def noised(self, number: int, mask_id: int, noise: str) -> Int[Tensor, "levels n"]:
        """Sample `number` at every level."""
        if self.drawn is not None:
            return self.drawn[number]
        sample, views = self.samples[number], []
        steps = range(INTERVAL, STEPS + 1, INTERVAL)
        for index in sorted((number + len(steps) * view // self.views) % len(steps) for view in range(self.views)):
            generator = torch.Generator().manual_seed(((self.seed * 100003 + number) * 1009 + index) % 2**63)
            level = noise_level(steps[index], STEPS) if noise == "steps" else float(torch.rand((), generator=generator)) * (1 - 1e-3) + 1e-3
            masked = masked_at(len(sample.ids), level, generator)
            masked[: sample.start] = masked[sample.end :] = False
            if noise == "uniform":
                masked[0] = masked[-1] = False
            views.append(sample.ids.masked_fill(masked, mask_id))
        return torch.stack(views)


def check_samples(samples: Sequence[Sample], config: ModelConfig) -> None:
    """Refuse ids that the model has no embedding for, and samples beyond its reach."""
    vocab_size = config.vocab_size
    for number, sample in enumerate(samples):
        if len(sample.ids) > config.reach:
            raise ValueError(f"sample {number} has {len(sample.ids)} tokens, more than the model's {config.context}")
        strange = sample.ids[(sample.ids < 0) | (sample.ids >= vocab_size)]
        if len(strange):
            raise ValueError(f"sample {number} holds the token id {int(strange[0])}; accepted: 0 to {vocab_size - 1}, the model's vocabulary")


def digest(samples: Sequence[Sample]) -> str:
    """Tells samples from others."""
    found = hashlib.sha256()
    for sample in samples:
        found.update(f"{len(sample.ids)} {sample.start} {sample.end} ".encode() + sample.ids.numpy().tobytes())
    return found.hexdigest()[:16]


@dataclass(frozen=True)
class Exposure:
    """One forward of calibration: tokens (b, n) on the host, and how much each position counts, (b, n) on the model's device, None for all alike."""

    tokens: Int[Tensor, "b n"]
    weight: Float[Tensor, "b n"] | None


def sink_scores(model: Transformer, views: Int[Tensor, "levels n"], rule: SinkRule) -> Float[Tensor, "levels n"]:
    """How much each position of each view is a sink."""
    return torch.stack([rule.score(total_mass(model, view[None].to(model.device))[0]) for view in views])


def exposures(
    model: Transformer, data: Calibration, *, noise: str, clean: bool, rule: SinkRule | None, average: str, instability: bool, batch: int, first: int = 0
) -> Iterator[tuple[int, list[Exposure]]]:
    """The forwards of calibration, as (samples done so far, forwards): one per sample, or one per sample and level of noise.

    noise: how views are drawn; clean: the forwards are of the clean samples, and views only serve to find sinks; rule: None weighs all positions alike;
    average: "per_step" (each view by its own sinks) or "mean" (a sample's forwards by the mean score of its views); instability: only sinks that come and go
    are weighed down; batch: samples of equal length whose forwards are run together.
    """
    for begin in range(first, len(data.samples), batch):
        numbers = range(begin, min(begin + batch, len(data.samples)))
        lengths = {len(data.samples[i].ids) for i in numbers}
        if len(lengths) > 1:
            raise ValueError(f"batch={batch}: samples of lengths {sorted(lengths)} cannot be run together; use batch=1 or samples of one length")
        tokens = torch.stack([data.samples[i].ids for i in numbers])
        views = tokens[:, None] if clean and rule is None else torch.stack([data.noised(i, model.config.mask_id, noise) for i in numbers])
        if rule is None:
            yield numbers[-1] + 1, [Exposure(view, None) for view in views.unbind(1)]
            continue
        scores = torch.stack([sink_scores(model, view, rule) for view in views])
        if instability:
            scores = scores * torch.stack([transience(s) for s in scores])[:, None]
        if clean:
            yield numbers[-1] + 1, [Exposure(tokens, 1 - scores.mean(1))]
            continue
        if average == "mean":
            scores = scores.mean(1, keepdim=True).expand_as(scores)
        yield numbers[-1] + 1, [Exposure(view, 1 - score) for view, score in zip(views.unbind(1), scores.unbind(1), strict=True)]


def from_text(tokenizer: Any, text: str, *, count: int = 128, length: int = 512, seed: int = 0) -> tuple[Sample, ...]:
    """Random windows of a text, as Wanda and its descendants calibrate. Raises ValueError if the text is too short."""
    ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
    if len(ids) < length:
        raise ValueError(f"the calibration text has {len(ids)} tokens, fewer than length={length}")
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(ids) - length + 1, (count,), generator=generator).tolist()
    return tuple(Sample(ids[start : start + length], 0, length) for start in starts)


def from_suite(tokenizer: Any, *, count: int = 128, length: int = 128, seed: int = 0, held_out: bool = False) -> tuple[Sample, ...]:
    """Questions and answers of the built-in tasks, each filled up to `length` with end tokens as a canvas is; noise masks the answer.

    held_out: the sixteenth of the questions that evaluation uses and training never sees.
    """
    import random

    from mezzotint.evaluation.tasks import TASKS
    from mezzotint.evaluation.tasks.example import draw
    from mezzotint.generation import encode

    rng = random.Random(seed)
    makers: list[Callable] = [TASKS[task].make for task in TASKS]
    sources = [draw(make, rng, held_out=held_out) for make in makers]
    end = tokenizer.eos_token_id
    samples: list[Sample] = []
    patience = 0
    while len(samples) < count:
        example = next(sources[(len(samples) + patience) % len(sources)])
        if example.document:
            start, stop = example.gap
            before, gap, after = (
                tokenizer(t, add_special_tokens=False)["input_ids"] for t in (example.document[:start], example.answer, example.document[stop:])
            )
            prompt, ids = before, [*before, *gap, *after]
            span = (len(before), len(before) + len(gap))
        else:
            prompt = encode(tokenizer, example.prompt)
            ids = [*prompt, *tokenizer(example.answer, add_special_tokens=False)["input_ids"]]
            span = (len(prompt), length)
        if len(ids) >= length or span[0] == span[1]:
            patience += 1
            if patience > 1000 + 20 * count:
                raise ValueError(f"length={length} tokens are too few for the built-in questions")
            continue
        samples.append(Sample(torch.tensor(ids + [end] * (length - len(ids))), *span))
    return tuple(samples)


def spans(samples: Sequence[Sample]) -> Bool[Tensor, "samples n"]:
    """Where noise may mask, for samples of one length."""
    place = torch.arange(len(samples[0].ids))
    return torch.stack([(place >= s.start) & (place < s.end) for s in samples])
