"""Which predictions become tokens: samplers with their confidences, and commit rules."""

from mezzotint.commit.blocks import AtLeast, Edit, Sequential
from mezzotint.commit.rules import EntropyBound, Factor, Linear, LocalLeap, Origin, Quota, Rule, Shuffled, Threshold, Timed
from mezzotint.commit.sampling import CONFIDENCES, LEAST_TEMPERATURE, SAMPLINGS, Prediction, Sampler

RULES: dict[str, type] = {
    "quota": Quota,
    "timed": Timed,
    "origin": Origin,
    "linear": Linear,
    "shuffled": Shuffled,
    "threshold": Threshold,
    "local_leap": LocalLeap,
    "factor": Factor,
    "entropy_bound": EntropyBound,
    "at_least": AtLeast,
    "sequential": Sequential,
    "edit": Edit,
}

__all__ = [
    "CONFIDENCES",
    "LEAST_TEMPERATURE",
    "RULES",
    "SAMPLINGS",
    "AtLeast",
    "Edit",
    "EntropyBound",
    "Factor",
    "Linear",
    "LocalLeap",
    "Origin",
    "Prediction",
    "Quota",
    "Rule",
    "Sampler",
    "Sequential",
    "Shuffled",
    "Threshold",
    "Timed",
]
