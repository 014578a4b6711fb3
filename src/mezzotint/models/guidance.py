"""Classifier-free guidance as a model: called like any other, it runs every row twice, with and without the prompt."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from mezzotint.models.config import ModelConfig
from mezzotint.models.memory import Memory
from mezzotint.models.transformer import Transformer


class Guided(nn.Module):
    """logits = unconditional + (scale + 1) · (conditional - unconditional), the latter with the prompt masked (LLaDA, section 2.4).

    prompt: (b, n) True where the canvas was given. Its memory holds both streams, so caches work as they do without guidance.
    """

    def __init__(self, model: Transformer, scale: float, prompt: Bool[Tensor, "b n"]):
        super().__init__()
        self.model, self.scale, self.prompt = model, scale, prompt

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    def memory(self, batch: int, capacity: int) -> Memory:
        return self.model.memory(2 * batch, capacity)

    def forward(self, tokens: Int[Tensor, "b rows"], at: Int[Tensor, " rows"], *, padding: Tensor | None = None, **rest) -> Tensor:
        prompt = torch.nn.functional.pad(self.prompt, (0, max(0, int(at[-1]) + 1 - self.prompt.shape[1])))
        hidden = prompt[:, at.to(tokens.device, non_blocking=True)]
        both = torch.cat((tokens, tokens.masked_fill(hidden, self.config.mask_id)))
        twice = None if padding is None else torch.cat((padding, padding))
        conditional, unconditional = self.model(both, at, padding=twice, **rest).chunk(2)
        return unconditional + (self.scale + 1) * (conditional - unconditional)
