"""What there is to know of a model that works in another process."""

from dataclasses import dataclass

import torch

from mezzotint.models.config import ModelConfig


@dataclass(frozen=True)
class Outline:
    """A model's shape and number type, without its weights."""

    config: ModelConfig
    dtype: torch.dtype

    @property
    def device(self) -> torch.device:
        """Where canvases are laid out."""
        return torch.device("cpu")
