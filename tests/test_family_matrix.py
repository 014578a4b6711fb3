"""Every family with every pair of strategies: the canvas is filled as it should be, or the recipe is refused by name where it makes no sense."""

import itertools
import random

import pytest
import torch
from test_families import BLOCKS, FOLDERS, HERE

import mezzotint as mz
from mezzotint.attention import ATTENTIONS
from mezzotint.cache import CACHES
from mezzotint.commit import RULES
from mezzotint.suffix import SUFFIXES

SPARSE = {"sparsed": mz.SparseD(skip=0.0, block_size=8, impl="reference"), "window": mz.SlidingWindow(16), "streaming": mz.StreamingLLM(window=16)}
KINDS = {"commit": RULES, "cache": CACHES, "suffix": SUFFIXES, "attention": ATTENTIONS}
BLOCK = 4
PROMPT = torch.arange(1, 12)[None]


@pytest.fixture(scope="module", params=FOLDERS)
def named_model(request):
    """A family's name and its tiny model, block-causal ones in blocks of 4."""
    name = request.param
    return name, mz.load_model(HERE / "families" / FOLDERS[name], mask_id=49 if name == "bd3lm" else 296, block_causal=BLOCK if name in BLOCKS else None)


def strategy(kind: dict, name: str):
    return SPARSE.get(name) or kind[name]()


def turning(names, number: int):
    """`names` in turn."""
    return list(names)[number % len(names)]


def every_pair(name: str, model):
    """A sensible recipe for every pair of commit rule and cache; suffixes and attentions take turns so that they, too, meet everything and each other."""
    for (i, commit), (j, cache) in itertools.product(enumerate(RULES), enumerate(CACHES)):
        suffix, attention = turning(SUFFIXES, i + j), turning(ATTENTIONS, i + j // len(SUFFIXES) + j)
        attention = "dense" if senseless(name, model, commit, cache, attention) else attention
        if not senseless(name, model, commit, cache, attention):
            yield commit, cache, suffix, attention


def every_strategy(name: str, model):
    """A few of those recipes, others for every family, in which each strategy that the family takes occurs."""
    found, met = list(every_pair(name, model)), set()
    random.Random(name).shuffle(found)
    for recipe in found:
        if not met.issuperset(parts := set(zip(KINDS, recipe, strict=True))):
            met |= parts
            yield recipe


def refusal(name: str, model, commit: str, cache: str, suffix: str, attention: str) -> str | None:
    """Why a recipe is refused, None if it has filled its canvas."""
    try:
        rule = RULES[commit]()
        recipe = mz.Recipe(
            gen_length=2 * BLOCK,
            block_length=BLOCK,
            steps=4,
            commit=rule,
            cache=strategy(CACHES, cache),
            suffix=strategy(SUFFIXES, suffix),
            attention=strategy(ATTENTIONS, attention),
            confidence=(getattr(rule, "needs", ()) or ("probability",))[0],
            early_stop="off",
        )
        layout = {"grid": model.config.block_length, "to_end": model.config.aligned_to_end}
        canvas = mz.Canvas.blank(list(PROMPT), recipe.gen_length, model.config.mask_id, model.device, **layout)
        before = canvas.tokens.clone()
        steps = list(mz.denoise(model, canvas, recipe))
    except ValueError as refused:
        return str(refused)
    assert all(torch.isin(step.computed, step.visible).all() for step in steps)
    assert canvas.decided.all()
    assert torch.equal(canvas.tokens[canvas.given], before[canvas.given])
    assert not (canvas.tokens[~canvas.given] == model.config.mask_id).any()
    return None


def senseless(name: str, model, commit: str, cache: str, attention: str) -> str | None:
    """What the refusal must say; None where the recipe makes sense."""
    masked = name in BLOCKS or model.config.window is not None
    if cache == "greedy" and commit != "shuffled":
        return "choose commit=shuffled"
    if cache == "feature" and attention != "dense":
        return "choose attention=dense"
    if commit == "edit" and cache in ("delayed", "sub_block"):
        return "may rewrite tokens that"
    if cache == "feature" and masked:
        return "cache=feature computes different rows in every layer"
    if commit == "edit" and model.config.carry:
        return "rewrites a block's first token"
    if attention != "dense" and name in BLOCKS:
        return "is for models that see their whole canvas"
    return None


def check(name: str, model, recipes) -> None:
    for recipe in recipes:
        assert refusal(name, model, *recipe) is None, recipe


def test_every_strategy_fills_the_canvas_of_every_family(named_model):
    name, model = named_model
    recipes = list(every_strategy(name, model))
    absent = {(kind, strategy) for kind, names in KINDS.items() for strategy in names} - {
        part for recipe in recipes for part in zip(KINDS, recipe, strict=True)
    }
    masked, blocks = name in BLOCKS or model.config.window is not None, name in BLOCKS
    wanted = ({("attention", sparse) for sparse in SPARSE} if blocks else set()) | ({("cache", "feature")} if masked else set())
    assert absent == wanted | ({("commit", "edit")} if model.config.carry else set())
    check(name, model, recipes)


@pytest.mark.slow
def test_every_pair_fills_the_canvas_of_every_family(named_model):
    check(*named_model, every_pair(*named_model))


def test_what_makes_no_sense_is_refused_by_name(named_model):
    name, model = named_model
    for commit, cache, attention in itertools.product(("quota", "edit"), CACHES, ATTENTIONS):
        wanted = senseless(name, model, commit, cache, attention)
        if wanted is not None:
            assert wanted in (refusal(name, model, commit, cache, "full", attention) or "was not refused"), (commit, cache, attention)
