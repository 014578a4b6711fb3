"""The tensor names that Llama, Qwen2 and Qwen3 share, for the families that were made from them."""

from mezzotint.models.config import ModelConfig
from mezzotint.models.families.names import experts

OUTER = {"embedding.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight", "head.weight": "lm_head.weight"}
LAYER = "model.layers.{}."
INNER = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.out.weight": "self_attn.o_proj.weight",
    "mlp_norm.weight": "post_attention_layernorm.weight",
}
QK_NORM = {"attention.q_norm.weight": "self_attn.q_norm.weight", "attention.k_norm.weight": "self_attn.k_norm.weight"}


def inner(config: ModelConfig, layer: int) -> dict[str, str]:
    return INNER | (QK_NORM if config.qk_norm else {}) | experts(config, layer)
