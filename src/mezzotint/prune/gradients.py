"""Importance from first-order changes of the loss: movement (arXiv 2005.07683) at fixed weights, and its Taylor and Fisher relatives."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from mezzotint.models.transformer import Transformer
from mezzotint.prune.calibration import Exposure, Sample
from mezzotint.prune.matrices import layers_of, matrices


def gradient_scores(
    model: Transformer, batches: Iterable[tuple[int, list[Exposure]]], samples: Sequence[Sample], method: str, seen: Callable[[int], None]
) -> Iterator[dict[str, Tensor]]:
    """movement: -Σ g·W, taylor: |Σ g·W|, fisher: Σ (g·W)², over the views of all samples; g the gradient of the masked-diffusion loss.

    batches: (samples done so far, forwards) as `exposures` gives them; seen(done) is called after each. One dictionary per layer.
    """
    mask_id = model.config.mask_id
    linears = [matrices(layer) for layer in layers_of(model)]
    total = [{name: torch.zeros_like(linear.weight, dtype=torch.float32) for name, linear in layer.items()} for layer in linears]
    for layer in linears:
        for linear in layer.values():
            linear.weight = torch.nn.Parameter(linear.weight.detach(), requires_grad=True)
    for number, batch in batches:
        clean = torch.stack([sample.ids for sample in samples[number - len(batch[0].tokens) : number]])
        for tokens, truth in ((row[None], sample[None]) for exposure in batch for row, sample in zip(exposure.tokens, clean, strict=True)):
            masked = (tokens == mask_id) & (truth != mask_id)
            if not masked.any():
                continue
            with torch.enable_grad():
                logits = model(tokens.to(model.device), predict=torch.arange(truth.shape[1]))
                cost = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), truth.to(logits.device), reduction="none")
                loss = (cost * masked.to(cost.device)).sum() / masked.sum()
            loss.backward()
            for layer, sums in zip(linears, total, strict=True):
                for name, linear in layer.items():
                    assert linear.weight.grad is not None
                    change = linear.weight.grad.float() * linear.weight.float()
                    sums[name] += change.square() if method == "fisher" else change
                    linear.weight.grad = None
        seen(number)
    for layer in linears:
        for linear in layer.values():
            linear.weight = torch.nn.Parameter(linear.weight.detach(), requires_grad=False)
    for sums in total:
        yield {name: -value if method == "movement" else value.abs() for name, value in sums.items()}
