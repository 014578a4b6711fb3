"""Dream (arXiv 2508.15487): Dream-v0-Base/Instruct-7B, Dream-Coder-7B, DiffuCoder-7B. Qwen2-style with GQA and biases on q, k, v.

Predictions are shifted by one: row p predicts position p + 1. Rotation happens in the activations' dtype.
"""

from mezzotint.models.config import ModelConfig
from mezzotint.models.families.fields import Fields
from mezzotint.models.families.qwen import LAYER, OUTER, inner

__all__ = ["LAYER", "OUTER", "configure", "inner"]

ARCHITECTURES = ("DreamModel",)
TURN_END = "<|im_end|>"
REQUIRED = {"hidden_act": "silu", "use_sliding_window": False}


def configure(config: dict) -> ModelConfig:
    """The model's shape from Dream's `config.json`. Raises ValueError naming a field that is missing or unsupported."""
    fields = Fields(config, "Dream")
    fields.demand(REQUIRED)
    return ModelConfig(
        family="dream",
        **fields.shape(),
        **fields.rope(1e6),
        **fields.tokens(),
        qkv_bias=True,
        shift=1,
        recipe="dream-greedy",
    )
