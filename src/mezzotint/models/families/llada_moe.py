"""LLaDA-MoE (inclusionAI): LLaDA-MoE-7B-A1B-Base, -Instruct, -Instruct-TD. Full attention, QK-norm, experts in every layer.

The router's softmax is neither renormalised nor scaled, whatever config.json says; a stored expert bias is part of the weights.
The mask id is in no config.json.
"""

from mezzotint.models.config import Mixture, ModelConfig
from mezzotint.models.families.fields import Fields
from mezzotint.models.families.names import experts
from mezzotint.models.families.qwen import INNER, LAYER, OUTER, QK_NORM

__all__ = ["LAYER", "OUTER", "configure", "inner", "recognises"]

ARCHITECTURES = ("LLaDAMoEModelLM", "LLaDAMoEModel")
MASKS = ("<|mask|>",)
TURN_END = "<|role_end|>"
REQUIRED = {"hidden_act": "silu", "clip_qkv": None, "attention_bias": False}


def recognises(config: dict) -> bool:
    """Its model_type is `llada` as well."""
    return "num_experts" in config and "moe_layer_freq" in config


def inner(config: ModelConfig, layer: int) -> dict[str, str]:
    return INNER | (QK_NORM if config.qk_norm else {}) | experts(config, layer, bias="mlp.expert_bias", shared="shared_expert")


def configure(config: dict) -> ModelConfig:
    """The model's shape from LLaDA-MoE's `config.json`. Raises ValueError naming a field that is missing or unsupported."""
    fields = Fields(config, "LLaDA-MoE")
    fields.demand(REQUIRED)
    frequency, layers = config.get("moe_layer_freq", 1), fields.size("num_hidden_layers")
    sparse = frequency if isinstance(frequency, list) else [frequency] * layers
    if len(sparse) != layers or not all(value in (0, 1) for value in sparse):
        raise ValueError(f"config.json: moe_layer_freq={frequency!r} must be 0 or 1, or a list of them for the {layers} layers")
    return ModelConfig(
        family="llada-moe",
        **fields.shape("dense_intermediate_size"),
        **fields.rope(50000.0),
        qk_norm=fields.flag("qk_layernorm", True),
        mixture=Mixture(
            experts=fields.size("num_experts"),
            active=fields.size("num_experts_per_tok"),
            size=fields.size("expert_intermediate_size"),
            bias="weights" if fields.flag("moe_router_enable_expert_bias", False) else "none",
            shared_size=fields.integer("shared_expert_intermediate_size", 0),
            dense=tuple(layer for layer, expert in enumerate(sparse) if not expert),
        ),
        **fields.tokens(mask=156895, stop=156892),
    )
