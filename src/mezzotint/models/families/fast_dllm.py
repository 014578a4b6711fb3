"""Fast-dLLM v2 (arXiv 2509.26328): Fast_dLLM_v2_7B, _1.5B. Qwen2.5 in blocks of `bd_size` whose predictions are shifted by one.

A block's first token cannot be predicted inside it: the row before it does so, alone, when the block before it is clean (the carry token).
The mask id is in no config.json.
"""

from mezzotint.models.config import ModelConfig
from mezzotint.models.families.fields import Fields
from mezzotint.models.families.qwen import LAYER, OUTER, inner

__all__ = ["LAYER", "OUTER", "configure", "inner"]

ARCHITECTURES = ("Fast_dLLM_QwenForCausalLM",)
MASKS = ("|<MASK>|", "<|mask|>", "<MASK>")
TURN_END = "<|im_end|>"
REQUIRED = {"hidden_act": "silu", "use_sliding_window": False}


def configure(config: dict) -> ModelConfig:
    """The model's shape from Fast-dLLM v2's `config.json`. Raises ValueError naming a field that is missing or unsupported."""
    fields = Fields(config, "Fast-dLLM v2")
    fields.demand(REQUIRED)
    return ModelConfig(
        family="fast-dllm-v2",
        **fields.shape(),
        **fields.rope(1e6),
        qkv_bias=True,
        **fields.tokens(mask=151665, stop=151645),
        shift=1,
        block_length=fields.size("bd_size", 32),
        carry=True,
        recipe="fast-dllm-v2",
    )
