"""A2D (dllm): small Qwen2 and Qwen3 models turned into diffusion models, e.g. Qwen3-0.6B-diffusion-mdlm-v0.1 and -bd3lm-v0.1.

The mdlm checkpoints see their whole canvas, the bd3lm ones blocks of 32 that begin where the prompt ends. config.json is the same for both, so the
user says which: `block_causal=32`. The mask token is found in the tokenizer's files.
"""

from mezzotint.models.config import ModelConfig
from mezzotint.models.families.fields import Fields
from mezzotint.models.families.qwen import LAYER, OUTER, inner

__all__ = ["LAYER", "OUTER", "configure", "inner"]

ARCHITECTURES = ("A2DQwen2LMHeadModel", "A2DQwen3LMHeadModel")
MASKS = ("<|mask|>",)
TURN_END = "<|im_end|>"
REQUIRED = {"hidden_act": "silu", "use_sliding_window": False, "attention_bias": False}
TEMPLATE_VARIABLES = {"enable_thinking": False}


def note(config: ModelConfig) -> str:
    return "" if config.block_length else "a bd3lm checkpoint looks the same as this mdlm one; if it is one, add --block-causal 32"


def configure(config: dict) -> ModelConfig:
    """The model's shape from the Qwen `config.json`. Raises ValueError naming a field that is missing or unsupported."""
    fields = Fields(config, "A2D")
    fields.demand(REQUIRED)
    qwen3 = "A2DQwen3LMHeadModel" in config["architectures"]
    return ModelConfig(
        family="a2d",
        **fields.shape(),
        **fields.rope(1e6),
        qkv_bias=not qwen3,
        qk_norm=qwen3,
        **fields.tokens(),
        aligned_to_end=True,
        recipe="a2d",
    )
