"""Dream (arXiv 2508.15487): Dream-v0-Base/Instruct-7B, Dream-Coder-7B, DiffuCoder-7B. Qwen2-style with GQA and biases on q, k, v.

Predictions are shifted by one: row p predicts position p + 1. Rotation happens in the activations' dtype.
"""

from mezzotint.models.config import ModelConfig
from mezzotint.models.families.fields import Fields
from mezzotint.models.rope import from_checkpoint

ARCHITECTURES = ("DreamModel",)

OUTER = {"embedding.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight", "head.weight": "lm_head.weight"}
INNER = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.out.weight": "self_attn.o_proj.weight",
    "mlp_norm.weight": "post_attention_layernorm.weight",
    "mlp.gate.weight": "mlp.gate_proj.weight",
    "mlp.up.weight": "mlp.up_proj.weight",
    "mlp.down.weight": "mlp.down_proj.weight",
}
LAYER = "model.layers.{}."

REQUIRED = {"hidden_act": "silu", "use_sliding_window": False}
TURN_END = "<|im_end|>"


def recognises(config: dict) -> bool:
    return bool(set(config.get("architectures") or ()) & set(ARCHITECTURES))


def configure(config: dict) -> ModelConfig:
    """The model's shape from Dream's `config.json`. Raises ValueError naming a field that is missing or unsupported."""
    fields = Fields(config, "Dream")
    fields.demand(REQUIRED)
    heads, hidden = fields.size("num_attention_heads"), fields.size("hidden_size")
    eos = fields.integer("eos_token_id")
    if hidden % heads:
        raise ValueError(f"config.json: the width {hidden} is not a multiple of the {heads} heads")
    return ModelConfig(
        family="dream",
        vocab_size=fields.size("vocab_size"),
        hidden_size=hidden,
        layers=fields.size("num_hidden_layers"),
        heads=heads,
        kv_heads=fields.size("num_key_value_heads", heads),
        head_dim=hidden // heads,
        mlp_size=fields.size("intermediate_size"),
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope_theta=fields.number("rope_theta", 1e6),
        rope_full_precision=False,
        qkv_bias=True,
        tied_head=bool(config.get("tie_word_embeddings", False)),
        rope_scaling=from_checkpoint(config.get("rope_scaling"), fields.size("max_position_embeddings")),
        max_length=fields.size("max_position_embeddings"),
        mask_id=fields.mask_id(),
        stop_ids=(eos,),
        pad_id=fields.integer("pad_token_id", eos),
        shift=1,
        recipe="dream-greedy",
    )
