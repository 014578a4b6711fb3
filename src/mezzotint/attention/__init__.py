"""Who looks at whom."""

from mezzotint.attention.dense import Dense

ATTENTIONS: dict[str, type] = {"dense": Dense}

__all__ = ["ATTENTIONS", "Dense"]
