"""Who looks at whom."""

from mezzotint.attention.dense import Dense
from mezzotint.attention.sparsed import SparseD
from mezzotint.attention.windows import SlidingWindow, StreamingLLM

ATTENTIONS: dict[str, type] = {"dense": Dense, "sparsed": SparseD, "window": SlidingWindow, "streaming": StreamingLLM}

__all__ = ["ATTENTIONS", "Dense", "SlidingWindow", "SparseD", "StreamingLLM"]
