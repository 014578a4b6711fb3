"""Which predictions become tokens: samplers with their confidences, and commit rules."""

from mezzotint.commit.rules import RULES, EntropyBound, Factor, Origin, Quota, Rule, Threshold, Timed
from mezzotint.commit.sampling import CONFIDENCES, SAMPLINGS, Prediction, Sampler

__all__ = ["CONFIDENCES", "RULES", "SAMPLINGS", "EntropyBound", "Factor", "Origin", "Prediction", "Quota", "Rule", "Sampler", "Threshold", "Timed"]
