"""A model with random weights of any shape, made parameter by parameter, so that a large one needs no more memory than it has in the end."""

import torch
from torch import nn

from mezzotint.models.config import Mixture, ModelConfig
from mezzotint.models.int8 import Int8Linear, shrink
from mezzotint.models.transformer import Transformer

POOL = 2**22 + 7
"""So many normal numbers are drawn, and repeated where a model needs more: drawing billions takes minutes, and no product's time depends on them."""


def random_model(config: ModelConfig, dtype: torch.dtype, *, weights: str | None = None, device: str = "cpu") -> Transformer:
    """weights: "int8" as for `load_model`."""
    with torch.device("meta"):
        model = Transformer(config)
        if weights == "int8":
            shrink(model.layers)
    generator = torch.Generator(device).manual_seed(0)
    normal = torch.empty(POOL, device=device).normal_(0, 0.02, generator=generator).to(dtype)
    integers = torch.randint(-127, 128, (POOL,), dtype=torch.int8, device=device, generator=generator)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, Int8Linear) and name == "weight":
                made = filled(parameter.shape, integers)
            elif isinstance(module, Int8Linear) and name == "scale":
                made = torch.full(parameter.shape, 0.02 / 73, device=device)
            elif parameter.ndim == 1:
                made = torch.ones(parameter.shape, dtype=dtype, device=device)
            else:
                made = filled(parameter.shape, normal)
            setattr(module, name, nn.Parameter(made, requires_grad=False))
    if config.tied_head:
        model.head.weight = model.embedding.weight
    return model.eval()


def filled(shape: torch.Size, pool: torch.Tensor) -> torch.Tensor:
    """A tensor of the pool's numbers, from its beginning, as often as they are needed."""
    made = torch.empty(shape, dtype=pool.dtype, device=pool.device)
    for part in made.view(-1).split(len(pool)):
        part.copy_(pool[: len(part)])
    return made


def qwen3(hidden: int, mlp: int, layers: int, heads: int, kv_heads: int, head_dim: int, vocabulary: int = 151936, block: int = 32) -> ModelConfig:
    """A block-causal model of Qwen3's shape (SDAR, A2D)."""
    return ModelConfig(
        family="sdar",
        vocab_size=vocabulary,
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        mlp_size=mlp,
        norm_eps=1e-6,
        rope_theta=1e6,
        max_length=32768,
        mask_id=vocabulary - 1,
        stop_ids=(0,),
        pad_id=0,
        tied_head=True,
        qk_norm=True,
        rope_full_precision=False,
        block_length=block,
    )


def llada_moe(layers: int = 16, experts: int = 64, hidden: int = 2048, size: int = 1024, vocabulary: int = 157184) -> ModelConfig:
    """LLaDA-MoE-7B-A1B's shape."""
    return ModelConfig(
        family="llada-moe",
        vocab_size=vocabulary,
        hidden_size=hidden,
        layers=layers,
        heads=16,
        kv_heads=16,
        head_dim=hidden // 16,
        mlp_size=8192,
        norm_eps=1e-5,
        rope_theta=50000.0,
        max_length=8192,
        mask_id=vocabulary - 1,
        stop_ids=(0,),
        pad_id=0,
        qk_norm=True,
        rope_full_precision=False,
        mixture=Mixture(experts=experts, active=8, size=size),
    )
