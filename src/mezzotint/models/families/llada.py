"""LLaDA (arXiv 2502.09992): LLaDA-8B-Base, LLaDA-8B-Instruct, LLaDA-1.5, and Mezzotint's own bundled model.

Official names: `blocks.{i}.ff_out` is the MLP's down projection, the top-level `ff_out` the output head.
Logits are not shifted: row p predicts position p.
"""

from mezzotint.models.config import ModelConfig
from mezzotint.models.families.fields import Fields

ARCHITECTURES = ("LLaDAModelLM", "LLaDAModel")

OUTER = {
    "embedding.weight": "model.transformer.wte.weight",
    "norm.weight": "model.transformer.ln_f.weight",
    "head.weight": "model.transformer.ff_out.weight",
}
INNER = {
    "attention_norm.weight": "attn_norm.weight",
    "attention.q": "q_proj",
    "attention.k": "k_proj",
    "attention.v": "v_proj",
    "attention.out.weight": "attn_out.weight",
    "mlp_norm.weight": "ff_norm.weight",
    "mlp.gate.weight": "ff_proj.weight",
    "mlp.up.weight": "up_proj.weight",
    "mlp.down.weight": "ff_out.weight",
}
LAYER = "model.transformer.blocks.{}."
TURN_END = "<|eot_id|>"

REQUIRED = {
    "block_type": "llama",
    "activation_type": "silu",
    "layer_norm_type": "rms",
    "rope": True,
    "alibi": False,
    "include_bias": False,
    "attention_layer_norm": False,
    "scale_logits": False,
    "input_emb_norm": False,
    "block_group_size": 1,
    "bias_for_layer_norm": False,
    "clip_qkv": None,
}
"""Fields that select another network; the released checkpoints all have these values."""


def configure(config: dict) -> ModelConfig:
    """The model's shape from LLaDA's `config.json`. Raises ValueError naming a field that is missing or unsupported."""
    fields = Fields(config, "LLaDA")
    fields.demand(REQUIRED)
    heads, hidden = fields.size("n_heads"), fields.size("d_model")
    return ModelConfig(
        family="llada",
        vocab_size=fields.size("embedding_size", fields.size("vocab_size")),
        hidden_size=hidden,
        layers=fields.size("n_layers"),
        heads=heads,
        kv_heads=fields.kv_heads("n_kv_heads", heads),
        head_dim=fields.share(hidden, heads),
        mlp_size=int(hidden * fields.number("mlp_ratio", 4.0)) if config.get("mlp_hidden_size") is None else fields.size("mlp_hidden_size"),
        norm_eps=fields.number("rms_norm_eps", 1e-5),
        rope_theta=fields.number("rope_theta", 10000.0),
        rope_full_precision=fields.flag("rope_full_precision", True),
        qkv_bias=fields.flag("include_qkv_bias", False),
        tied_head=fields.flag("weight_tying", False),
        max_length=fields.size("max_sequence_length"),
        **fields.tokens(),
    )


def official(config: ModelConfig) -> dict:
    """LLaDA's `config.json` for a shape: what `configure` reads back."""
    return {
        "architectures": ["LLaDAModelLM"],
        "model_type": "llada",
        **REQUIRED,
        "d_model": config.hidden_size,
        "n_layers": config.layers,
        "n_heads": config.heads,
        "n_kv_heads": config.kv_heads,
        "mlp_hidden_size": config.mlp_size,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_full_precision": config.rope_full_precision,
        "include_qkv_bias": config.qkv_bias,
        "weight_tying": config.tied_head,
        "max_sequence_length": config.max_length,
        "vocab_size": config.vocab_size,
        "embedding_size": config.vocab_size,
        "mask_token_id": config.mask_id,
        "eos_token_id": config.stop_ids[0],
        "pad_token_id": config.pad_id,
    }
