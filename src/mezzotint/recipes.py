"""Named recipes, each with where its settings come from."""

from dataclasses import dataclass

from mezzotint.cache import PrefixCache
from mezzotint.commit import EntropyBound, Factor, Origin, Threshold, Timed
from mezzotint.recipe import Recipe


@dataclass(frozen=True)
class Named:
    recipe: Recipe
    source: str


def _llada(gen_length: int, block_length: int, task: str) -> Named:
    return Named(Recipe(gen_length=gen_length, block_length=block_length), f"LLaDA-1.5 evaluation, {task}: one token per forward")


_DREAM = Recipe(gen_length=256, block_length=None, commit=Timed(), sampling="categorical", confidence="entropy", temperature=0.2, top_p=0.95)

RECIPES: dict[str, Named] = {
    "plain": Named(Recipe(), "one token per forward, the surest first, blocks of 32: what every other recipe is compared with"),
    "llada": Named(Recipe(gen_length=128, block_length=32, early_stop="off"), "LLaDA generate.py defaults (arXiv 2502.09992): the whole canvas, no early stop"),
    "llada-gsm8k": _llada(256, 16, "GSM8K"),
    "llada-math": _llada(1024, 128, "MATH"),
    "llada-code": _llada(512, 32, "HumanEval and MBPP"),
    "dream": Named(_DREAM, "Dream-v0-Instruct README: entropy, temperature 0.2, top-p 0.95, no top-k, one canvas without blocks"),
    "dream-greedy": Named(_DREAM.with_(temperature=0.0, top_p=1.0), "Dream's entropy order at temperature 0, top-k off"),
    "dream-maskgit": Named(
        _DREAM.with_(confidence="probability", temperature=0.05),
        "SparseD's Dream script: maskgit_plus, temperature 0.05, top-p 0.95; top-k off",
    ),
    "dream-origin": Named(_DREAM.with_(commit=Origin()), "Dream's origin sampler: positions unmasked at random along the time schedule"),
    "threshold": Named(Recipe(commit=Threshold(0.9)), "Fast-dLLM (arXiv 2505.22618): every token at least 0.9 sure"),
    "factor": Named(Recipe(commit=Factor(1.0)), "Fast-dLLM, factor 1.0: more tokens together must be surer together"),
    "entropy-bound": Named(
        Recipe(commit=EntropyBound(0.1), confidence="entropy"), "EB-Sampler (arXiv 2505.24857), gamma 0.1: as many tokens as stay jointly sure"
    ),
    "prefix": Named(Recipe(commit=Threshold(0.9), cache=PrefixCache()), "Fast-dLLM with its prefix cache"),
}


def named(name: str) -> Recipe:
    """The recipe of that name. Raises ValueError listing the names."""
    if name not in RECIPES:
        raise ValueError(f"recipe={name!r} is unknown; accepted: {', '.join(RECIPES)}")
    return RECIPES[name].recipe
