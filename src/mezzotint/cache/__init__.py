"""Which visible positions are computed, and which are read from memory."""

from mezzotint.cache.fast_dllm import DualCache, PrefixCache
from mezzotint.cache.none import NoCache

CACHES: dict[str, type] = {"none": NoCache, "prefix": PrefixCache, "dual": DualCache}

__all__ = ["CACHES", "DualCache", "NoCache", "PrefixCache"]
