"""Smaller models from trained ones: weights, heads, neurons and layers removed, sinks in view (arXiv 2602.17664)."""

from mezzotint.prune.calibration import Calibration, Sample, from_suite, from_text
from mezzotint.prune.capacity import Nested, nest
from mezzotint.prune.checkpoint import save
from mezzotint.prune.pruner import Pruned, SinkAwarePruner, ThresholdError
from mezzotint.prune.settings import PRESETS, Goal, Preset, Structured
from mezzotint.prune.sparsity import METHODS, Sparsity
from mezzotint.prune.unstructured import Sparsified, sparsify

__all__ = [
    "METHODS",
    "PRESETS",
    "Calibration",
    "Goal",
    "Nested",
    "Preset",
    "Pruned",
    "Sample",
    "SinkAwarePruner",
    "Sparsified",
    "Sparsity",
    "Structured",
    "ThresholdError",
    "from_suite",
    "from_text",
    "nest",
    "save",
    "sparsify",
]
