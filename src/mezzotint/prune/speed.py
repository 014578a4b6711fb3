"""How long a forward takes, two models in turn and each as often first, so that what disturbs one disturbs the other."""

import statistics
import time

import torch

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


def compare(dense: Transformer, changed: Transformer, *, length: int, predicted: int = 32, batch: int = 1, repeats: int = 9) -> dict[str, float]:
    """A forward of `length` positions that predicts the last `predicted`, `repeats` pairs after two of warming up.

    speedup: median of the pairs' ratios; the others are seconds.
    """
    tokens = torch.randint(dense.config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(0)).to(dense.device)
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
