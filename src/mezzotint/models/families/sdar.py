"""SDAR (arXiv 2510.06303): SDAR-1.7B, -4B, -8B-Chat and their -bN variants, SDAR-30B-A3B-Chat, TraDo. Qwen3 (or Qwen3-MoE) in blocks.

A block sees itself and the blocks before it; blocks stand on multiples of `block_size` from the prompt's first token. The norm's weight is
multiplied in before the cast.
"""

from mezzotint.models.config import Mixture, ModelConfig
from mezzotint.models.families.fields import Fields
from mezzotint.models.families.qwen import LAYER, OUTER, inner

__all__ = ["LAYER", "OUTER", "configure", "inner"]

ARCHITECTURES = ("SDARForCausalLM", "SDARMoeForCausalLM")
MASKS = ("<|MASK|>", "<MASK>")
TURN_END = "<|im_end|>"
REQUIRED = {"hidden_act": "silu", "attention_bias": False, "use_sliding_window": False}


def configure(config: dict) -> ModelConfig:
    """The model's shape from SDAR's `config.json`. Raises ValueError naming a field that is missing or unsupported."""
    fields = Fields(config, "SDAR")
    fields.demand(REQUIRED)
    return ModelConfig(
        family="sdar",
        **fields.shape("intermediate_size" if "intermediate_size" in config else "moe_intermediate_size"),
        **fields.rope(1e6),
        norm="rms_fp32",
        qk_norm=True,
        mixture=mixture(fields) if config.get("num_experts") else None,
        **fields.tokens(mask=151669, stop=151643),
        block_length=fields.size("block_size", 4),
        recipe="sdar",
    )


def mixture(fields: Fields) -> Mixture:
    """Qwen3-MoE's experts; the chosen weights are always renormalised."""
    every, plain = fields.size("decoder_sparse_step", 1), fields.config.get("mlp_only_layers") or []
    if not isinstance(plain, list):
        raise ValueError(f"config.json: mlp_only_layers={plain!r} must be a list of layers")
    return Mixture(
        experts=fields.size("num_experts"),
        active=fields.size("num_experts_per_tok"),
        size=fields.size("moe_intermediate_size"),
        renormalise=True,
        dense=tuple(layer for layer in range(fields.size("num_hidden_layers")) if (layer + 1) % every or layer in plain),
    )
