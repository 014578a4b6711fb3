"""SDAR (arXiv 2510.06303): SDAR-1.7B, -4B, -8B-Chat and their -bN variants, SDAR-30B-A3B-Chat, TraDo. Qwen3 (or Qwen3-MoE) in blocks.

A block sees itself and the blocks before it; blocks stand on multiples of `block_size` from the prompt's first token. The norm's weight is
multiplied in before the cast.
"""

from mezzotint.models.config import Mixture, ModelConfig
from mezzotint.models.families.fields import Fields
from mezzotint.models.families.qwen import LAYER, OUTER, inner

__all__ = ["LAYER", "OUTER", "configure", "inner", "recognises"]

ARCHITECTURES = ("SDARForCausalLM", "SDARMoeForCausalLM")
MASKS = ("<|MASK|>", "<MASK>")
TURN_END = "<|im_end|>"
REQUIRED = {"hidden_act": "silu", "attention_bias": False, "use_sliding_window": False}


def recognises(config: dict) -> bool:
    return bool(set(config.get("architectures") or ()) & set(ARCHITECTURES))


def configure(config: dict) -> ModelConfig:
    """The model's shape from SDAR's `config.json`. Raises ValueError naming a field that is missing or unsupported."""
    fields = Fields(config, "SDAR")
    fields.demand(REQUIRED)
    stop = fields.ids("eos_token_id", 151643)
    return ModelConfig(
        family="sdar",
        **fields.shape("intermediate_size" if "intermediate_size" in config else "moe_intermediate_size"),
        **fields.rope(1e6),
        norm="rms_fp32",
        qk_norm=True,
        mixture=mixture(fields) if config.get("num_experts") else None,
        mask_id=fields.mask_id(151669),
        stop_ids=stop,
        pad_id=fields.integer("pad_token_id", stop[0]),
        block_length=fields.size("block_size", 4),
        recipe="sdar",
    )


def mixture(fields: Fields) -> Mixture:
    """Qwen3-MoE's experts; the chosen weights are always renormalised."""
    every, plain = fields.size("decoder_sparse_step", 1), fields.config.get("mlp_only_layers") or ()
    return Mixture(
        experts=fields.size("num_experts"),
        active=fields.size("num_experts_per_tok"),
        size=fields.size("moe_intermediate_size"),
        renormalise=True,
        dense=tuple(layer for layer in range(fields.size("num_hidden_layers")) if (layer + 1) % every or layer in plain),
    )
