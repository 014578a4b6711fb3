"""Which predictions become tokens: samplers with their confidences, and commit rules."""

from mezzotint.commit.rules import RULES, Factor, Origin, Quota, Rule, Threshold, Timed
from mezzotint.commit.sampling import CONFIDENCES, SAMPLINGS, Prediction, Sampler

__all__ = ["CONFIDENCES", "RULES", "SAMPLINGS", "Factor", "Origin", "Prediction", "Quota", "Rule", "Sampler", "Threshold", "Timed"]
