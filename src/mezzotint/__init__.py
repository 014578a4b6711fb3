"""Mezzotint: fast, training-free inference for diffusion language models."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mezzotint.attention import Dense, SlidingWindow, SparseD, StreamingLLM
    from mezzotint.cache import DelayedCache, DualCache, FeatureCache, GreedyCache, NoCache, PrefixCache, PromptCache, SubBlockCache
    from mezzotint.canvas import Block, Canvas
    from mezzotint.commit import AtLeast, Edit, EntropyBound, Factor, Linear, LocalLeap, Origin, Quota, Sequential, Shuffled, Threshold, Timed
    from mezzotint.denoising import Generation, Step, denoise, denoise_all
    from mezzotint.generation import generate, infill, load, stream
    from mezzotint.models.loading import CheckpointError, load_model
    from mezzotint.models.quantised import quantise
    from mezzotint.models.rope import RopeScaling
    from mezzotint.prune import Nested, SinkAwarePruner, Sparsity, nest, save, sparsify
    from mezzotint.recipe import Recipe
    from mezzotint.recipes import RECIPES, named
    from mezzotint.suffix import DPad, Full, NoSuffix, UniformDropout

_HOMES = {
    "mezzotint.attention": ("Dense", "SlidingWindow", "SparseD", "StreamingLLM"),
    "mezzotint.cache": ("DelayedCache", "DualCache", "FeatureCache", "GreedyCache", "NoCache", "PrefixCache", "PromptCache", "SubBlockCache"),
    "mezzotint.canvas": ("Block", "Canvas"),
    "mezzotint.commit": ("AtLeast", "Edit", "EntropyBound", "Factor", "Linear", "LocalLeap", "Origin", "Quota", "Sequential", "Shuffled", "Threshold", "Timed"),
    "mezzotint.denoising": ("Generation", "Step", "denoise", "denoise_all"),
    "mezzotint.generation": ("generate", "infill", "load", "stream"),
    "mezzotint.models.loading": ("CheckpointError", "load_model"),
    "mezzotint.models.quantised": ("quantise",),
    "mezzotint.models.rope": ("RopeScaling",),
    "mezzotint.prune": ("Nested", "SinkAwarePruner", "Sparsity", "nest", "save", "sparsify"),
    "mezzotint.recipe": ("Recipe",),
    "mezzotint.recipes": ("RECIPES", "named"),
    "mezzotint.suffix": ("DPad", "Full", "NoSuffix", "UniformDropout"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [*_HOME, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]

try:
    __version__ = version("mezzotint")
except PackageNotFoundError:
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    """Names are imported when first used, so that `import mezzotint` and `mezzotint --help` need no torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'mezzotint' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value
