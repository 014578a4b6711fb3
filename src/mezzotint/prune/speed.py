"""How long a forward or an answer takes, two models in turn and each as often first, so that what disturbs one disturbs the other."""

import statistics
import time
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from mezzotint.denoising import denoise_all
from mezzotint.generation import answer_ids, default_recipe
from mezzotint.models.transformer import Transformer


@torch.inference_mode()
def seconds(model: Transformer, tokens: torch.Tensor, predict: torch.Tensor) -> float:
    """Wall time of one forward."""
    if tokens.is_cuda:
        torch.cuda.synchronize(tokens.device)
    begun = time.perf_counter()
    model(tokens, predict=predict)
    if tokens.is_cuda:
        torch.cuda.synchronize(tokens.device)
    return time.perf_counter() - begun


def compare(dense: Transformer, changed: Transformer, *, length: int, predicted: int = 32, repeats: int = 9) -> dict[str, float]:
    """A forward of `length` positions that predicts the last `predicted`, `repeats` pairs after two of warming up.

    speedup: median of the pairs' ratios; the others are seconds.
    """
    tokens = torch.randint(dense.config.vocab_size, (1, length), generator=torch.Generator().manual_seed(0)).to(dense.device)
    predict = torch.arange(max(dense.config.shift, length - predicted), length)
    turns = [1, -1] * (repeats // 2 + 2)
    pairs = [[seconds(model, tokens, predict) for model in (dense, changed)[::turn]][::turn] for turn in turns[: repeats + 2]][2:]
    before, after = (sorted(times) for times in zip(*pairs, strict=True))
    return {
        "speedup": statistics.median(a / b for a, b in pairs),
        "dense_seconds_median": statistics.median(before),
        "dense_seconds_p90": before[int(0.9 * (len(before) - 1))],
        "pruned_seconds_median": statistics.median(after),
        "pruned_seconds_p90": after[int(0.9 * (len(after) - 1))],
    }


def answers(dense: Transformer, changed: Transformer, prompts: Sequence[Int[Tensor, " _"]]) -> dict[str, float]:
    """Effective tokens (those before the stop token) per second of both models, each with its default recipe, one prompt after the other; none: nothing."""
    if not prompts:
        return {}
    models, tokens, seconds = (dense, changed), [0, 0], [0.0, 0.0]
    for turn, prompt in enumerate(prompts):
        for which in (0, 1)[:: -1 if turn % 2 else 1]:
            begun = time.perf_counter()
            answer = denoise_all(models[which], prompt[None], default_recipe(models[which])).tokens[0, len(prompt) :]
            seconds[which] += time.perf_counter() - begun
            tokens[which] += len(answer_ids(answer.tolist(), dense.config.stop_ids)[0])
    return {"dense_tokens_per_second": tokens[0] / seconds[0], "tokens_per_second": tokens[1] / seconds[1]}
