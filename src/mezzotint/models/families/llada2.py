"""LLaDA2.0 and 2.1 (arXiv 2512.15745): LLaDA2.0-mini, -flash, LLaDA2.1-mini, -flash. Experts in blocks of 32, half of a head's features rotated.

2.0 and 2.1 have the same class and shape; 2.1 was trained to edit its own tokens, which the commit rule `Edit` uses. mask and stop ids are in no
config.json. The field `sliding_window` is not used by the official code.
"""

from mezzotint.models.config import Mixture, ModelConfig
from mezzotint.models.families.fields import Fields
from mezzotint.models.families.names import Derived, experts, rows

ARCHITECTURES = ("LLaDA2MoeModelLM",)
MASKS = ("<|mask|>",)
TURN_END = "<|role_end|>"
REQUIRED = {"hidden_act": "silu", "score_function": "sigmoid", "norm_head": False}
BLOCK_LENGTH = 32

OUTER = {"embedding.weight": "model.word_embeddings.weight", "norm.weight": "model.norm.weight", "head.weight": "lm_head.weight"}
LAYER = "model.layers.{}."
INNER = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.out.weight": "attention.dense.weight",
    "mlp_norm.weight": "post_attention_layernorm.weight",
}
QK_NORM = {"attention.q_norm.weight": "attention.query_layernorm.weight", "attention.k_norm.weight": "attention.key_layernorm.weight"}


def inner(config: ModelConfig, layer: int) -> dict[str, str]:
    table = INNER | (QK_NORM if config.qk_norm else {})
    if config.out_bias:
        table["attention.out.bias"] = "attention.dense.bias"
    return table | experts(config, layer, bias="mlp.gate.expert_bias", shared="mlp.shared_experts")


def derived(config: ModelConfig) -> dict[str, Derived]:
    """Queries, keys and values lie one below the other in one tensor."""
    ends = [count * config.head_dim for count in (config.heads, config.heads + config.kv_heads, config.heads + 2 * config.kv_heads)]
    table = {}
    for layer in range(config.layers):
        for part in ("weight", "bias") if config.qkv_bias else ("weight",):
            stored = LAYER.format(layer) + f"attention.query_key_value.{part}"
            for ours, start, end in zip("qkv", [0, *ends], ends, strict=False):
                table[f"layers.{layer}.attention.{ours}.{part}"] = rows(stored, start, end, ends[-1])
    return table


def note(config: ModelConfig) -> str:
    return "LLaDA2.1 looks the same as 2.0; 2.1 may correct its own tokens: --recipe llada2.1-quality or llada2.1-speed"


def configure(config: dict) -> ModelConfig:
    """The model's shape from LLaDA2's `config.json`. Raises ValueError naming a field that is missing or unsupported."""
    fields = Fields(config, "LLaDA2")
    fields.demand(REQUIRED)
    size, first = fields.size("moe_intermediate_size"), fields.integer("first_k_dense_replace", 0)
    return ModelConfig(
        family="llada2",
        **fields.shape(),
        **fields.rope(600000.0),
        qkv_bias=fields.flag("use_qkv_bias", False),
        out_bias=fields.flag("use_bias", False),
        qk_norm=fields.flag("use_qk_norm", True),
        mixture=Mixture(
            experts=fields.size("num_experts"),
            active=fields.size("num_experts_per_tok"),
            size=size,
            score="sigmoid",
            bias="selection" if fields.flag("moe_router_enable_expert_bias", True) else "none",
            renormalise=fields.flag("norm_topk_prob", True),
            scale=fields.number("routed_scaling_factor", 1.0),
            groups=fields.size("n_group", 1),
            kept_groups=fields.size("topk_group", 1),
            shared_size=size * fields.integer("num_shared_experts", 0),
            full_precision=True,
            dense=tuple(range(first)),
        ),
        **fields.tokens(mask=156895, stop=156892),
        block_length=BLOCK_LENGTH,
        recipe="llada2",
    )
