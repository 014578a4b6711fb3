"""Which visible positions are computed, and which are read from memory."""

from mezzotint.cache.delayed import DelayedCache, GreedyCache, PromptCache
from mezzotint.cache.fast_dllm import DualCache, PrefixCache
from mezzotint.cache.feature import FeatureCache
from mezzotint.cache.none import NoCache
from mezzotint.cache.sub_block import SubBlockCache

CACHES: dict[str, type] = {
    "none": NoCache,
    "prefix": PrefixCache,
    "dual": DualCache,
    "delayed": DelayedCache,
    "greedy": GreedyCache,
    "prompt": PromptCache,
    "feature": FeatureCache,
    "sub_block": SubBlockCache,
}

__all__ = ["CACHES", "DelayedCache", "DualCache", "FeatureCache", "GreedyCache", "NoCache", "PrefixCache", "PromptCache", "SubBlockCache"]
