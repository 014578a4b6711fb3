"""Recipes: round trips, and errors that name the field, the value and what is accepted."""

import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mezzotint as mz
from mezzotint.cli.options import RECIPE_FIELDS
from mezzotint.recipe import FIELDS, Recipe
from mezzotint.recipes import RECIPES
from mezzotint.strategies import KINDS, parse, write

strategy_texts = {kind: st.sampled_from([name for name in registry if name != "entropy_bound"]) for kind, registry in KINDS.items()}


def composes(blocks, cache="none", commit="quota", attention="dense", suffix="full"):
    """Whether a recipe takes them together: inside the layers there are no tiles, a greedy cache needs an order, edited tokens must be computed, and a pattern
    needs a whole forward after the dense phase, which these caches make at a block's beginning."""
    if attention == "sparsed" and blocks == 1 and cache in ("prefix", "dual", "sub_block"):
        return False
    refused = {
        "feature": attention != "dense",
        "prompt": attention == "sparsed",
        "greedy": commit != "shuffled",
        "delayed": commit == "edit",
        "sub_block": commit == "edit",
    }
    return not refused.get(cache, False)


recipes = st.builds(
    lambda blocks, width, steps, texts, temperature, top_p, top_k, stop, ends: Recipe(
        gen_length=blocks * width,
        block_length=width,
        steps=None if steps is None else min(steps, width) * blocks,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        early_stop=stop,
        end_tokens=ends,
    ).with_(**(texts if composes(blocks, **texts) else {})),
    st.integers(1, 8),
    st.integers(1, 64),
    st.none() | st.integers(1, 32),
    st.fixed_dictionaries({}, optional=strategy_texts),
    st.just(0.0) | st.floats(1e-4, 2),
    st.floats(0.01, 1),
    st.integers(0, 100),
    st.sampled_from(["step", "block", "off"]),
    st.sampled_from(["free", "never"]),
)


@given(recipes)
def test_json_and_command_line_round_trips(recipe):
    assert Recipe.from_json(recipe.to_json()) == recipe
    words = str(recipe).split()
    options = {flag[2:].replace("-", "_"): value for flag, value in zip(words[::2], words[1::2], strict=True)}
    assert Recipe().with_text(options) == recipe


@given(st.floats(0, 1), st.integers(1, 4096), st.floats(0, 10), st.floats(0, 10))
def test_strategies_round_trip_as_text(tau, window, k, a):
    for kind, strategy in (("commit", mz.Threshold(tau)), ("suffix", mz.DPad(window, k, a))):
        assert parse(kind, write(kind, strategy)) == strategy


def test_every_field_is_on_the_command_line():
    assert set(RECIPE_FIELDS) == set(FIELDS)


def test_named_recipes_are_valid_and_sourced():
    for name, entry in RECIPES.items():
        assert mz.named(name) == entry.recipe
        assert entry.source
        assert Recipe.from_json(entry.recipe.to_json()) == entry.recipe


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"gen_length": 100, "block_length": 32}, ["gen_length=100", "block_length=32", "128"]),
        ({"gen_length": 128, "block_length": 32, "steps": 3}, ["steps=3", "4 blocks"]),
        ({"gen_length": 128, "block_length": 32, "steps": 6}, ["steps=6", "steps=8"]),
        ({"gen_length": 128, "block_length": 32, "steps": 10**8}, ["steps=100000000", "at most gen_length=128"]),
        ({"gen_length": 0}, ["gen_length=0", "at least 1"]),
        ({"temperature": -1.0}, ["temperature=-1.0"]),
        ({"temperature": 1e-40}, ["temperature=1e-40", "0 or at least 0.0001"]),
        ({"temperature": float("nan")}, ["temperature=nan"]),
        ({"top_p": 0.0}, ["top_p=0.0", "(0, 1]"]),
        ({"sampling": "nucleus"}, ["sampling='nucleus'", "gumbel, categorical"]),
        ({"commit": mz.EntropyBound()}, ["EntropyBound", "confidence='entropy'", "confidence='probability'"]),
        ({"commit": mz.Threshold(), "confidence": "entropy"}, ["Threshold", "confidence='entropy'", "confidence='probability'"]),
        ({"early_stop": "yes"}, ["early_stop='yes'", "step, block, off"]),
        ({"end_tokens": "maybe"}, ["end_tokens='maybe'", "free, last, never"]),
        ({"end_tokens": "last", "confidence": "margin"}, ["end_tokens=last", "confidence=probability"]),
    ],
)
def test_errors_name_field_value_and_remedy(fields, words):
    with pytest.raises(ValueError) as error:
        Recipe(**fields)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("commit", "treshold", ["commit='treshold'", "threshold"]),
        ("commit", "threshold:tau=high", ["tau='high'", "float"]),
        ("commit", "threshold:alpha=1", ["alpha=1", "tau=..."]),
        ("suffix", "dpad:k=nan", ["dpad k=nan", "finite"]),
        ("suffix", "dpad:window=2000000000", ["window=2000000000", "131072"]),
        ("attention", "window:impl=triton,block_size=8", ["at least 16"]),
        ("commit", "threshold:tau=7", ["tau=7.0", "[0, 1]"]),
        ("suffix", "dpad:window=0", ["window=0"]),
        ("commit", "timed:eps=2", ["eps=2.0", "(0, 1)"]),
        ("commit", "entropy_bound:gamma=inf", ["gamma=inf"]),
        ("cache", "prefix:every=3", ["every=3", "first_alone"]),
    ],
)
def test_strategy_text_errors(kind, text, words):
    with pytest.raises(ValueError) as error:
        parse(kind, text)
    assert all(word in str(error.value) for word in words), error.value


def test_recipes_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().gen_length = 3  # type: ignore[misc]
    with pytest.raises(ValueError, match="'gen_lenght' is unknown"):
        Recipe().with_(gen_lenght=3)


WRONG_TYPES = """
from mezzotint.recipe import Recipe
for fields in ({"commit": "threshold"}, {"reuse": "false"}, {"top_k": 1.5}, {"temperature": "hot"}, {"gen_length": True}):
    try:
        Recipe(**fields)
    except ValueError as error:
        print(error)
"""


def test_values_of_the_wrong_type_are_refused():
    """In a process of its own, where no shape checker stands before the recipe."""
    done = subprocess.run([sys.executable, "-c", WRONG_TYPES], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 5
    for line, word in zip(lines, ("Threshold()", "reuse='false'", "top_k=1.5", "temperature='hot'", "gen_length=True"), strict=True):
        assert word in line


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cache": mz.PromptCache(), "attention": mz.SparseD(skip=0, rebuild="block")}, "makes its pattern anew"),
        ({"cache": mz.PromptCache(), "attention": mz.SparseD(skip=0, rebuild=4)}, "makes its pattern anew"),
        ({"cache": mz.DelayedCache(4, compat="un")}, "canvas without blocks"),
        ({"cache": mz.DelayedCache(4, compat="un"), "block_length": None, "max_tokens": 65}, "canvas without blocks, this one has 2"),
        ({"commit": mz.Shuffled(), "end_tokens": "last"}, "end_tokens=last has no effect"),
        ({"commit": mz.Origin(), "confidence": "entropy"}, "commit=origin takes positions .*, so confidence='entropy' has no effect"),
        ({"commit": mz.Sequential(), "confidence": "margin"}, "commit=sequential .* confidence='margin' has no effect"),
        ({"temperature": 10**400}, "temperature"),
        ({"top_k": 10**400}, "top_k"),
    ],
)
def test_what_would_be_ignored_or_overflow_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Recipe(gen_length=64, **fields)
    with pytest.raises(ValueError, match="refresh"):
        mz.PrefixCache(refresh=10**400)
    with pytest.raises(ValueError, match="timed temperature=1e-45"):
        mz.Timed(temperature=1e-45)


@pytest.mark.parametrize("cache", [mz.DualCache(), mz.PrefixCache()])
def test_a_pattern_needs_a_whole_forward_after_the_dense_phase(cache):
    with pytest.raises(ValueError, match="none but the first of the only block"):
        Recipe(gen_length=32, cache=cache, attention=mz.SparseD())
    for enough in ({"gen_length": 64}, {"max_tokens": 64}, {"attention": mz.SparseD(skip=0)}, {"cache": type(cache)(refresh=4)}):
        assert Recipe(**{"gen_length": 32, "cache": cache, "attention": mz.SparseD()} | enough)


def test_a_strategy_of_ones_own_needs_no_registration():
    """Neither to be used nor to be refused: it is then called what it calls itself."""

    class Mine(mz.SparseD):
        pass

    assert mz.Recipe(gen_length=32, block_length=16, attention=Mine(block_size=8)).attention == Mine(block_size=8)
    with pytest.raises(ValueError, match=r"attention=.*Mine\(.* and cache=prefix"):
        mz.Recipe(gen_length=32, attention=Mine(), cache=mz.PrefixCache())
