"""What every part is told, and the shapes it measures."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch

from mezzotint.models.config import ModelConfig
from mezzotint.models.transformer import Transformer

_LLADA = ModelConfig(
    family="llada",
    vocab_size=126464,
    hidden_size=4096,
    layers=32,
    heads=32,
    kv_heads=32,
    head_dim=128,
    mlp_size=12288,
    norm_eps=1e-5,
    rope_theta=500000.0,
    max_length=1 << 20,
    mask_id=126336,
    stop_ids=(126081,),
    pad_id=126081,
)
_DREAM = replace(
    _LLADA,
    family="dream",
    vocab_size=152064,
    hidden_size=3584,
    layers=28,
    heads=28,
    kv_heads=4,
    mlp_size=18944,
    norm_eps=1e-6,
    rope_theta=1e6,
    mask_id=151666,
    stop_ids=(151643,),
    pad_id=151643,
    shift=1,
    qkv_bias=True,
    rope_full_precision=False,
)
SHAPES = {"llada-8b": _LLADA, "dream-7b": _DREAM}


@dataclass(frozen=True)
class Settings:
    """device, dtype: where and in what; quick: everything in small; best: the kernel tunings that were found fastest; minutes: what a part that goes on by
    itself (training) may take now; folder: where such a part keeps its files."""

    device: torch.device
    dtype: torch.dtype
    quick: bool
    best: dict[str, dict] = field(default_factory=dict)
    minutes: float = 9.0
    folder: str = "runs/gpu"

    def shape(self, name: str) -> ModelConfig:
        config = SHAPES[name]
        if not self.quick:
            return config
        groups = config.heads // config.kv_heads
        heads = 2 * groups if groups > 1 else 4
        tokens = {"vocab_size": 512, "mask_id": 511, "stop_ids": (510,), "pad_id": 510}
        return replace(config, hidden_size=64, layers=2, heads=heads, kv_heads=heads // groups, head_dim=16, mlp_size=128, **tokens)

    def random(self, *size: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator(self.device).manual_seed(seed)
        return torch.randn(*size, generator=generator, device=self.device, dtype=self.dtype)

    def projected(self, heads: int, length: int, dim: int, seed: int) -> torch.Tensor:
        """Random q, k or v (1, heads, length, dim), lying as a projection leaves them."""
        return self.random(1, length, heads, dim, seed=seed).transpose(1, 2)


@dataclass(frozen=True)
class Cell:
    """One measurement that is kept or repeated as a whole. limit: seconds after which it counts as stuck."""

    key: str
    run: Callable[[], dict]
    limit: int = 150


@lru_cache(maxsize=1)
def random_model(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Transformer:
    """Random weights of the usual scale, drawn on the device; the last one asked for is kept."""
    with torch.device("meta"):
        model = Transformer(config).to(dtype)
    model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            weight.data.normal_(0.0, 0.02, generator=generator)
        else:
            weight.data.fill_(0.0 if name.endswith("bias") else 1.0)
    return model.requires_grad_(False).eval()
