"""iLLaDA (GSAI-ML): iLLaDA-8B-Base, -Instruct. Llama's layout with GQA and a tied head, full attention; decoded as LLaDA is.

The mask id 5 is neither in config.json nor among the tokenizer's special tokens. With `layer_norm_eps` the norms are LayerNorms with a bias.
"""

from mezzotint.models.config import ModelConfig
from mezzotint.models.families import qwen
from mezzotint.models.families.fields import Fields
from mezzotint.models.families.qwen import LAYER, OUTER

__all__ = ["LAYER", "OUTER", "configure", "inner"]

ARCHITECTURES = ("ILLaDAForCausalLM",)
MASKS = ("<[MASK]>",)
TURN_END = "<|eot_id|>"
REQUIRED = {"hidden_act": "silu", "mlp_bias": False, "attention_bias": False}


def inner(config: ModelConfig, layer: int) -> dict[str, str]:
    table = qwen.inner(config, layer)
    biases = {"attention_norm.bias": "input_layernorm.bias", "mlp_norm.bias": "post_attention_layernorm.bias"}
    return table | (biases if config.norm_bias else {})


def outer(config: ModelConfig) -> dict[str, str]:
    return {"norm.bias": "model.norm.bias"} if config.norm_bias else {}


def configure(config: dict) -> ModelConfig:
    """The model's shape from iLLaDA's `config.json`. Raises ValueError naming a field that is missing or unsupported."""
    fields = Fields(config, "iLLaDA")
    fields.demand(REQUIRED)
    layered = config.get("layer_norm_eps") is not None
    shape = fields.shape(eps="layer_norm_eps" if layered else "rms_norm_eps")
    return ModelConfig(
        family="illada",
        **shape,
        **fields.rope(10000.0),
        norm="layer" if layered else "rms",
        norm_bias=layered,
        **fields.tokens(mask=5, stop=2, pad=1),
    )
