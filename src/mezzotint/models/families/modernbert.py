"""ModernBERT-chat (dllm; ModernBERT, arXiv 2412.13663): ModernBERT-base-chat-v0.1, -large-chat-v0.1. An encoder that answers by filling masks.

Every third layer sees everything; the others see `local_attention` / 2 positions to each side and rotate with a theta of their own. The end of a turn is
the text `[/Answer]`, which is several tokens.
"""

from mezzotint.models.config import ModelConfig
from mezzotint.models.families.fields import Fields
from mezzotint.models.families.names import Derived, rows

ARCHITECTURES = ("ModernBertForMaskedLM",)
MASKS = ("[MASK]",)
TURN_END = "[/Answer]"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ '[SYS]\\n' + message['content'] + '\\n[/SYS]\\n\\n' }}"
    "{% elif message['role'] == 'user' %}{{ '\\n[Question]\\n' + message['content'] + '\\n[/Question]\\n\\n' }}"
    "{% else %}{{ '[Answer]\\n' + message['content'] + '\\n[/Answer]\\n\\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '[Answer]\\n' }}{% endif %}"
)
REQUIRED = {
    "norm_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
    "classifier_bias": False,
    "decoder_bias": True,
    "hidden_activation": "gelu",
    "classifier_activation": "gelu",
}

OUTER = {
    "embedding.weight": "model.embeddings.tok_embeddings.weight",
    "embedding_norm.weight": "model.embeddings.norm.weight",
    "norm.weight": "model.final_norm.weight",
    "transform.dense.weight": "head.dense.weight",
    "transform.norm.weight": "head.norm.weight",
    "head.weight": "decoder.weight",
    "head.bias": "decoder.bias",
}
LAYER = "model.layers.{}."


def inner(config: ModelConfig, layer: int) -> dict[str, str]:
    table = {"attention.out.weight": "attn.Wo.weight", "mlp_norm.weight": "mlp_norm.weight", "mlp.down.weight": "mlp.Wo.weight"}
    return table | ({"attention_norm.weight": "attn_norm.weight"} if layer else {})


def derived(config: ModelConfig) -> dict[str, Derived]:
    """Queries, keys and values lie one below the other, and so do the MLP's activated half and the other."""
    width, table = config.heads * config.head_dim, {}
    for layer in range(config.layers):
        stored, ours = LAYER.format(layer), f"layers.{layer}."
        for index, part in enumerate("qkv"):
            table[f"{ours}attention.{part}.weight"] = rows(f"{stored}attn.Wqkv.weight", index * width, (index + 1) * width, 3 * width)
        for index, part in enumerate(("gate", "up")):
            size = config.mlp_size
            table[f"{ours}mlp.{part}.weight"] = rows(f"{stored}mlp.Wi.weight", index * size, (index + 1) * size, 2 * size)
    return table


def thetas(config: dict) -> tuple[float, float]:
    """Theta of the layers that see everything and of the others, under either of the two names they have had."""
    nested = config.get("rope_parameters") or {}
    found = []
    for name, kind, usual in (("global_rope_theta", "full_attention", 160000.0), ("local_rope_theta", "sliding_attention", 10000.0)):
        inside = nested.get(kind) if isinstance(nested, dict) else None
        value = inside.get("rope_theta") if isinstance(inside, dict) else config.get(name)
        found.append(Fields({name: value}, "ModernBERT").number(name, usual))
    return found[0], found[1]


def every(config: dict) -> int:
    """Each how manieth layer sees everything. Raises ValueError if `layer_types` is not such a pattern."""
    kinds = config.get("layer_types")
    count = Fields(config, "ModernBERT").size("global_attn_every_n_layers", 3)
    if kinds is not None:
        count = next((i for i, kind in enumerate(kinds) if i and kind == "full_attention"), len(kinds))
        if any((kind == "full_attention") != (i % count == 0) for i, kind in enumerate(kinds)):
            raise ValueError(f"config.json: layer_types={kinds!r} must have full_attention at regular distances, beginning with the first layer")
    return count


def configure(config: dict) -> ModelConfig:
    """The model's shape from ModernBERT's `config.json`. Raises ValueError naming a field that is missing or unsupported."""
    fields = Fields(config, "ModernBERT")
    fields.demand(REQUIRED)
    far, near = thetas(config)
    shape = {**fields.shape(eps="norm_eps"), "tied_head": True}
    if shape["kv_heads"] != shape["heads"] or shape["head_dim"] * shape["heads"] != shape["hidden_size"]:
        raise ValueError("config.json: ModernBERT has as many key as query heads, which share the width evenly")
    return ModelConfig(
        family="modernbert",
        **shape,
        rope_theta=far,
        rope_full_precision=False,
        max_length=fields.size("max_position_embeddings"),
        norm="layer",
        first_norm=False,
        embedding_norm=True,
        head_transform=True,
        head_bias=True,
        activation="gelu",
        window=fields.size("local_attention", 128) // 2,
        global_every=every(config),
        local_theta=near,
        mask_id=fields.mask_id(50284),
        stop_ids=fields.ids("eos_token_id", fields.integer("sep_token_id", 50282)),
        pad_id=fields.token("pad_token_id", 50283),
        stop_text=TURN_END,
        recipe="a2d",
    )
