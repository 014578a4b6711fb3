"""Sparse attention: every kernel against dense attention under a mask, and what the strategies promise."""

import dataclasses
import itertools

import pytest
import torch
from torch.testing import assert_close

import mezzotint as mz
from mezzotint.attention import budget, sparsed
from mezzotint.attention.sparsed import SparseRun
from mezzotint.attention.windows import windowed
from mezzotint.kernels import native as kernels_native
from mezzotint.kernels.block_mass import block_mass
from mezzotint.kernels.block_sparse import available, block_sparse, warn_once
from mezzotint.kernels.tiles import Choice, Grid, Tiled
from mezzotint.models.transformer import Scope
from mezzotint.types import Moment

CPU = torch.device("cpu")
PROMPT = torch.arange(40, 93)[None]


def pieces(at, over, start, size, seed=0, heads=4, kv=2, dim=16):
    """Random inputs, their tiles, a random choice, and the token-level mask it means."""
    generator = torch.Generator().manual_seed(seed)
    grid = Grid(start, size)
    rows, keys = Tiled.of(at, grid, CPU), Tiled.of(over, grid, CPU)
    q, k, v = (torch.randn(2, h, len(n), dim, generator=generator) for h, n in ((heads, at), (kv, over), (kv, over)))
    chosen = torch.rand(2, heads, len(rows.tiles), len(keys.tiles), generator=generator) < 0.4
    chosen[..., -1] = True
    nth_row = torch.searchsorted(rows.tiles, grid.slots(at) // size)
    nth_key = torch.searchsorted(keys.tiles, grid.slots(over) // size)
    return q, k, v, rows, keys, chosen, chosen[:, :, nth_row][..., nth_key]


LAYOUTS = {
    "whole": (torch.arange(150), torch.arange(150), 70),
    "no prompt": (torch.arange(64), torch.arange(64), 0),
    "some rows, dropped suffix": (torch.arange(40, 100), torch.cat((torch.arange(100), torch.tensor([103, 111, 140, 149]))), 70),
}
IMPLEMENTATIONS = [
    pytest.param(impl, marks=pytest.mark.skipif(bool(available(impl, "cpu")), reason=available(impl, "cpu") or "it is there"))
    for impl in ("reference", "native", "flex", "triton")
]


needs_native = pytest.mark.skipif(bool(available("native", "cpu")), reason=available("native", "cpu") or "it is there")


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_kernel_equals_masked_dense_attention(layout, padded, impl):
    at, over, start = LAYOUTS[layout]
    q, k, v, rows, keys, chosen, mask = pieces(at, over, start, 16)
    valid = None
    if padded:
        valid = torch.ones(2, len(over), dtype=torch.bool)
        valid[1, :20] = False
        mask = mask & valid[:, None, None]
    wanted = torch.nn.functional.scaled_dot_product_attention(*(x.double() for x in (q, k, v)), attn_mask=mask, enable_gqa=True).nan_to_num()
    scores = (q.double() @ k.double().repeat_interleave(2, 1).transpose(2, 3)) * q.shape[-1] ** -0.5
    sums = scores.masked_fill(~mask, -torch.inf).logsumexp(-1)
    for whole in (None, keys.whole(2, valid)):
        lse = torch.full(q.shape[:3], torch.nan)
        found = block_sparse(q, k, v, rows, keys, Choice.of(chosen, whole), 16, valid=valid, impl=impl, lse=lse)
        assert_close(found.double(), wanted, atol=2e-6, rtol=1e-5)
        assert_close(lse.double(), sums, atol=2e-6, rtol=1e-5)
        assert_close(block_sparse(q, k, v, rows, keys, Choice.of(chosen, whole), 16, valid=valid, impl=impl), found, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_no_choice_is_all_tiles(impl):
    q, k, v, rows, keys, _, _ = pieces(*LAYOUTS["whole"], 16)
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    assert_close(block_sparse(q, k, v, rows, keys, None, 16, impl=impl), wanted, atol=2e-6, rtol=1e-5)


@needs_native
@pytest.mark.parametrize("dim", [1, 5, 32, 62, 80, 128])
def test_the_cpu_kernel_takes_any_layout_and_any_size(dim):
    """Ragged tiles of every length modulo the vector registers, odd features, strides as the model has them, scores far from zero, two threads."""
    torch.set_num_threads(2)
    try:
        for length in (1, 3, 17, 45, 64, 101):
            at = torch.arange(length)
            q, k, v, rows, keys, chosen, mask = pieces(at, at, min(length, 37), 64, seed=length, heads=6, dim=dim)
            q, k, v = ((x * 3 - 20 / dim).transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v))
            wanted = torch.nn.functional.scaled_dot_product_attention(*(x.double() for x in (q, k, v)), attn_mask=mask, enable_gqa=True)
            found = block_sparse(q, k, v, rows, keys, Choice.of(chosen, keys.whole(2, None)), 64, impl="native")
            assert_close(found.double(), wanted, atol=2e-4, rtol=1e-4)
    finally:
        torch.set_num_threads(1)


@needs_native
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_cpu_kernel_rounds_half_precision_once(dtype):
    q, k, v, rows, keys, chosen, mask = pieces(*LAYOUTS["whole"], 16)
    q, k, v = (x.to(dtype) for x in (q, k, v))
    wanted = torch.nn.functional.scaled_dot_product_attention(*(x.double() for x in (q, k, v)), attn_mask=mask, enable_gqa=True).to(dtype)
    found = block_sparse(q, k, v, rows, keys, Choice.of(chosen), 16, impl="native")
    assert found.dtype == dtype
    assert_close(found, wanted, atol=1e-3, rtol=1e-2)


def test_a_library_is_built_whole_or_not_at_all(tmp_path, monkeypatch):
    """A compiler that fails leaves nothing behind and is named; one that works is asked once for a processor, not once for a process."""
    compiler = tmp_path / "cxx"
    compiler.write_text('#!/bin/sh\ncase "$*" in *-dM*) echo "#define X $0";; *) echo "no room" >&2; exit 1;; esac\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    reason = kernels_native.library.__wrapped__()
    assert "no room" in reason
    assert str(compiler) in reason
    assert list((tmp_path / "cache" / "mezzotint").iterdir()) == []
    compiler.write_text('#!/bin/sh\necho "$@" >> "$0.log"\nwhile [ $# -gt 0 ]; do [ "$1" = -o ] && echo built > "$2"; shift; done; echo "#define X 1"\n')
    first = kernels_native.build(str(compiler), tmp_path / "libraries")
    assert first == kernels_native.build(str(compiler), tmp_path / "libraries")
    assert list((tmp_path / "libraries").iterdir()) == [first]
    assert (tmp_path / "cxx.log").read_text().count(" -o ") == 1


def test_without_a_compiler_the_reference_computes_and_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert "none was found" in kernels_native.library.__wrapped__()
    monkeypatch.setattr(sparsed, "available", lambda impl, kind: "none was found")
    warn_once.cache_clear()
    q = torch.zeros(1, 1, 4, 16)
    with pytest.warns(UserWarning, match="none was found"):
        assert sparsed.choose_implementation(q, 4096, 128) == "reference"
    assert sparsed.choose_implementation(q, 1500, 128) is None


needs_triton = pytest.mark.skipif(bool(available("triton", "cpu")), reason=available("triton", "cpu") or "it is there")


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_heads_may_share_a_list(impl):
    """Seven heads on each of two sets of keys, one list per set."""
    q, k, v, rows, keys, chosen, mask = pieces(*LAYOUTS["whole"], 16, heads=14)
    chosen, mask = (x[:, ::7].repeat_interleave(7, 1) for x in (chosen, mask))
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    found = block_sparse(q, k, v, rows, keys, Choice.of(chosen[:, ::7], keys.whole(2, None)), 16, impl=impl)
    assert_close(found, wanted, atol=2e-6, rtol=1e-5)


@needs_triton
@pytest.mark.parametrize("transposed", [False, True])
def test_how_the_kernel_is_cut_does_not_change_the_result(transposed):
    """Rows and columns in pieces of a tile, packed heads, and the tensor memory accelerator, on both layouts that the model produces."""
    from mezzotint.kernels.block_sparse.fused import Tuning, fused

    q, k, v, rows, keys, chosen, mask = pieces(torch.arange(70), torch.arange(70), 40, 32, heads=6)
    chosen, mask = (x[:, ::3].repeat_interleave(3, 1) for x in (chosen, mask))
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    if transposed:
        q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v))
    choice = Choice.of(chosen[:, ::3], keys.whole(2, None))
    for tuned in (Tuning(32, 32, 2, 4, 2, True), Tuning(16, 16, 4, 4, 3, True, True), Tuning(32, 32, 1, 4, 2, False, True)):
        assert_close(fused(q, k, v, rows, keys, choice, 32, None, tuned), wanted, atol=2e-6, rtol=1e-5)


@needs_triton
def test_block_mass_of_tiles_larger_than_a_product():
    q, k, _, rows, keys, _, _ = pieces(torch.arange(260), torch.arange(260), 0, 256, heads=1, kv=1)
    wanted, found = (block_mass(q, k, rows, keys, 256, 1, impl=impl) for impl in ("reference", "triton"))
    assert_close(found.total, wanted.total, atol=1e-6, rtol=1e-5)
    assert_close(found.within, wanted.within, atol=1e-6, rtol=1e-5)


def test_the_choice_matters_to_flex():
    """Called eagerly FlexAttention ignores block lists; two choices must give two results."""
    if available("flex", "cpu"):
        pytest.skip(available("flex", "cpu"))
    q, k, v, rows, keys, chosen, _ = pieces(*LAYOUTS["whole"], 16)
    some = block_sparse(q, k, v, rows, keys, Choice.of(chosen), 16, impl="flex")
    everything = block_sparse(q, k, v, rows, keys, Choice.of(torch.ones_like(chosen)), 16, impl="flex")
    assert (some - everything).abs().max() > 0.1


@pytest.mark.parametrize("impl", [p for p in IMPLEMENTATIONS if p.values[0] != "flex"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_block_mass_is_the_pooled_softmax(layout, padded, impl):
    at, over, start = LAYOUTS[layout]
    q, k, _, rows, keys, _, _ = pieces(at, over, start, 16)
    grid = Grid(start, 16)
    scores = q.double() @ k.double().repeat_interleave(2, 1).transpose(-1, -2) / 4
    valid = None
    if padded:
        valid = torch.ones(2, len(over), dtype=torch.bool)
        valid[1, :20] = False
        scores = scores.masked_fill(~valid[:, None, None], -torch.inf)
    probability = scores.softmax(-1)
    nth_row, nth_key = (torch.searchsorted(t.tiles, grid.slots(p) // 16) for t, p in ((rows, at), (keys, over)))
    columns = torch.zeros(2, 4, len(at), len(keys.tiles), dtype=torch.double).index_add_(3, nth_key, probability)
    wanted = torch.stack([columns[:, :, nth_row == i].mean(2) for i in range(len(rows.tiles))], 2)
    first = int((keys.tiles < grid.prompt_tiles).sum())
    mass = block_mass(q, k, rows, keys, 16, first, valid=valid, impl=impl)
    assert_close(mass.total.double(), wanted, atol=1e-6, rtol=1e-5)
    inside = probability[..., nth_key >= first]
    inside = torch.zeros(2, 4, len(at), len(keys.tiles), dtype=torch.double).index_add_(3, nth_key[nth_key >= first], inside / inside.sum(-1, keepdim=True))
    within = torch.stack([inside[:, :, nth_row == i].mean(2) for i in range(len(rows.tiles))], 2)[..., first:]
    assert_close(mass.within.double(), within, atol=1e-6, rtol=1e-5)


def test_budgets():
    from mezzotint.kernels.block_mass import Mass

    total = torch.tensor([0.1, 0.3, 0.05, 0.05, 0.4, 0.1])[None, None, None]
    mass = Mass(total, total[..., 4:] / 0.5)
    assert budget.apart(mass, 0.5)[0, 0, 0].tolist() == [True, True, False, False, True, False]
    assert budget.apart(mass, 1.0).all()
    assert budget.enough(total, 0.7)[0, 0, 0].tolist() == [False, True, False, False, True, False]
    assert budget.enough(total, 0.71).sum() == 3
    assert budget.enough(total, 1.0).all()


def recipe_for(attention, **rest) -> mz.Recipe:
    return mz.Recipe(**{"gen_length": 32, "block_length": 8, "early_stop": "off", "attention": attention, **rest})


SPARSE = [
    mz.SparseD(block_size=16, impl="reference"),
    mz.SparseD(block_size=16, impl="reference", rebuild="block", residual=True),
    mz.SparseD(block_size=16, impl="reference", rebuild=5, select="mass:0.8", share="group"),
    mz.SparseD(block_size=16, impl="reference", rebuild="recall:0.95", share="all"),
    mz.SlidingWindow(32, 16, impl="reference"),
    mz.StreamingLLM(32, 16, impl="reference", first=8),
]
OTHERS = list(
    itertools.product(
        [mz.Full(), mz.NoSuffix(), mz.DPad(window=16)],
        [mz.NoCache(), mz.PrefixCache(), mz.DualCache(), mz.DelayedCache()],
    )
)


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize(("suffix", "cache"), OTHERS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("attention", SPARSE, ids=lambda a: f"{type(a).__name__}-{getattr(a, 'rebuild', '')}")
def test_sparse_attention_composes(tiny, family, suffix, cache, attention):
    model = tiny[family]
    recipe = recipe_for(attention, suffix=suffix, cache=cache, commit=mz.Threshold(0.5))
    canvas = mz.Canvas.blank(list(PROMPT), 32, model.config.mask_id, model.device)
    steps = list(mz.denoise(model, canvas, recipe))
    assert canvas.decided.all()
    assert torch.equal(canvas.tokens[:, :53], PROMPT)
    assert torch.equal(canvas.tokens, mz.denoise_all(model, PROMPT, recipe).tokens)
    assert steps


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize("rebuild", ["never", "block", 3])
def test_everything_selected_is_dense(tiny, family, rebuild):
    """select=1 keeps every tile, on a canvas that is no multiple of the tile, whatever is cached or dropped."""
    for rest in ({}, {"cache": mz.DualCache()}, {"suffix": mz.DPad(window=16), "cache": mz.PrefixCache()}, {"cfg_scale": 1.0} if family == "llada" else {}):
        plain = mz.denoise_all(tiny[family], PROMPT, recipe_for(mz.Dense(), **rest))
        sparse = mz.denoise_all(tiny[family], PROMPT, recipe_for(mz.SparseD(select=1.0, block_size=16, impl="reference", rebuild=rebuild), **rest))
        assert torch.equal(plain.tokens, sparse.tokens)
        assert plain.forwards == sparse.forwards


def test_a_small_budget_changes_the_attention(tiny):
    few = mz.SparseD(skip=0.0, select=0.1, block_size=8, impl="reference")
    assert recall_of(tiny["llada"], few) < recall_of(tiny["llada"], dataclasses.replace(few, select=0.6)) < 1
    assert recall_of(tiny["llada"], dataclasses.replace(few, select="mass:0.9")) >= 0.9


def test_the_pattern_is_made_anew_when_it_holds_less(tiny):
    """At `recall:1` any loss counts, at a very small number none does; a rebuilt pattern starts from what it holds itself."""
    made = {}
    for rebuild in ("recall:1", "recall:0.01", "never"):
        attention = mz.SparseD(skip=0.0, select=0.2, block_size=8, impl="reference", rebuild=rebuild)
        run = SparseRun(attention, PROMPT.shape[1])
        steps = []
        object.__setattr__(attention, "begin", lambda canvas, run=run, steps=steps: lambda moment: steps.append(run.made) or run(moment))
        canvas = mz.denoise_all(tiny["llada"], PROMPT, recipe_for(attention)).tokens
        made[rebuild] = len(set(steps)), canvas
    assert made["recall:1"][0] > 3
    assert made["recall:0.01"][0] == made["never"][0] == 1
    assert torch.equal(made["recall:0.01"][1], made["never"][1])


@pytest.mark.parametrize("cache", [mz.PrefixCache(refresh=2), mz.DualCache(refresh=2)], ids=lambda c: type(c).__name__)
def test_a_pattern_is_watched_where_a_cache_is_refreshed(tiny, cache):
    """Forwards between compute other positions than the one that made the pattern; it is compared whenever those come back."""
    attention = mz.SparseD(skip=0.0, select=0.2, block_size=8, impl="reference", rebuild="recall:1")
    run = SparseRun(attention, PROMPT.shape[1])
    made = []
    object.__setattr__(attention, "begin", lambda canvas: lambda moment: made.append(run.made) or run(moment))
    mz.denoise_all(tiny["llada"], PROMPT, recipe_for(attention, cache=cache))
    assert len(set(made)) > 3


def test_a_pattern_that_could_never_be_made_is_refused():
    for cache in (mz.PromptCache(), mz.DelayedCache(prompt=True)):
        with pytest.raises(ValueError, match="choose skip=0"):
            recipe_for(mz.SparseD(), cache=cache)
        assert recipe_for(mz.SparseD(skip=0.0), cache=cache)
    assert recipe_for(mz.SparseD(), cache=mz.PromptCache(refresh=4))


@pytest.mark.parametrize("impl", ["reference", "native"])
def test_a_window_in_a_pruned_model_whose_layers_have_other_heads(impl):
    if reason := available(impl, "cpu"):
        pytest.skip(reason)
    attend = windowed(mz.SlidingWindow(16, 8, impl=impl), 0)(Moment(0, mz.Block(0, 20, 32), 0))
    scope = Scope(torch.arange(32), torch.arange(32))
    generator = torch.Generator().manual_seed(0)
    for layer, heads in enumerate((4, 2, 3)):
        q, k, v = torch.randn(3, 1, heads, 32, 8, generator=generator)
        seen = (torch.arange(32)[:, None] // 8 - torch.arange(32) // 8).abs() <= 1
        expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        torch.testing.assert_close(attend(layer, q, k, v, scope), expected)


def test_lists_that_do_not_divide_among_the_heads_are_refused():
    q, k = torch.randn(1, 2, 8, 8), torch.randn(1, 2, 8, 8)
    tiled = Tiled.of(torch.arange(8), Grid(0, 8), q.device)
    with pytest.raises(ValueError, match="4 lists of tiles"):
        block_sparse(q, k, k, tiled, tiled, Choice.of(torch.ones(1, 4, 1, 1, dtype=torch.bool)), 8)


def test_a_window_is_a_window_on_short_canvases_too(tiny):
    narrow, wide = (mz.SlidingWindow(window, 8) for window in (0, 256))
    plain = mz.denoise_all(tiny["llada"], PROMPT, recipe_for(mz.Dense())).tokens
    assert torch.equal(mz.denoise_all(tiny["llada"], PROMPT, recipe_for(wide)).tokens, plain)
    assert not torch.equal(mz.denoise_all(tiny["llada"], PROMPT, recipe_for(narrow)).tokens, plain)


def test_one_pattern_for_all_heads(tiny):
    every, one = (mz.SparseD(skip=0.0, select=0.2, block_size=8, impl="reference", share=share) for share in ("head", "all"))
    assert recall_of(tiny["llada"], one) < recall_of(tiny["llada"], every)


def recall_of(model, attention) -> float:
    return mz.denoise_all(model, PROMPT, recipe_for(attention)).recall


@pytest.mark.parametrize("attention", SPARSE, ids=lambda a: f"{type(a).__name__}-{getattr(a, 'rebuild', '')}")
def test_rows_of_different_lengths_equal_one_by_one(tiny, attention):
    """Under a schedule. Tiles are cut on the canvas, so the shorter prompt's tiles differ: only with everything selected is the result the same."""
    attention = dataclasses.replace(attention, **({"select": 1.0} if isinstance(attention, mz.SparseD) else {"window": 256}))
    prompts = [PROMPT[0], PROMPT[0, 20:]]
    together = mz.denoise_all(tiny["llada"], prompts, recipe_for(attention))
    for row, prompt in enumerate(prompts):
        assert torch.equal(together.tokens[row, -32:], mz.denoise_all(tiny["llada"], prompt[None], recipe_for(attention)).tokens[0, -32:])


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_a_run_is_the_same_with_every_kernel(tiny, impl):
    attention = mz.SparseD(block_size=16, skip=0.1)
    wanted = mz.denoise_all(tiny["llada"], PROMPT, recipe_for(dataclasses.replace(attention, impl="reference"), gen_length=16))
    assert torch.equal(mz.denoise_all(tiny["llada"], PROMPT, recipe_for(dataclasses.replace(attention, impl=impl), gen_length=16)).tokens, wanted.tokens)


def test_the_dense_phase_ends_when_skip_is_committed():
    run = SparseRun(mz.SparseD(skip=0.25, block_size=8), 0)
    everything = torch.arange(8)
    block = mz.Block(0, 0, 8)
    assert not run.due(Moment(3, block, 3, 0, 16, 0.2), Scope(everything, everything))
    assert run.due(Moment(4, block, 4, 0, 16, 0.25), Scope(everything, everything))
    assert not run.due(Moment(4, block, 4, 0, 16, 0.25), Scope(everything[4:], everything))


def test_short_canvases_stay_dense(tiny):
    """impl="auto" is never slower than dense where sparse attention cannot pay."""
    plain = mz.denoise_all(tiny["llada"], PROMPT, recipe_for(mz.Dense()))
    auto = list(mz.denoise(tiny["llada"], PROMPT, recipe_for(mz.SparseD())))
    assert torch.equal(plain.tokens, auto[-1].tokens)
    assert auto[-1].recall is None


def test_infilling_and_prompts_shorter_than_a_tile(tiny):
    model = tiny["llada"]
    canvas = mz.Canvas.gaps([list(range(40, 45)), 6, list(range(50, 90)), 5, [7]], model.config.mask_id, model.device)
    mz.denoise_all(model, canvas, mz.Recipe(gen_length=53, block_length=None, attention=SPARSE[0], early_stop="off"))
    assert canvas.decided.all()
    assert canvas.tokens[0, 11:51].tolist() == list(range(50, 90))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"select": 0.0}, "select=0.0"),
        ({"select": 1.2}, "select=1.2"),
        ({"select": "mass:2"}, "select=mass:2"),
        ({"select": "most"}, "select='most'"),
        ({"skip": 1.0}, "skip=1.0"),
        ({"skip": -0.1}, "skip=-0.1"),
        ({"block_size": 48}, "block_size=48"),
        ({"block_size": 4096}, "block_size=4096"),
        ({"rebuild": 0}, "rebuild=0"),
        ({"rebuild": "often"}, "rebuild='often'"),
        ({"rebuild": "recall:2"}, "rebuild='recall:2'"),
        ({"rebuild": "recall:high"}, "rebuild='recall:high'"),
        ({"share": "layer"}, "share='layer'"),
        ({"impl": "cuda"}, "impl='cuda'"),
        ({"compat": "gpt"}, "compat='gpt'"),
        ({"compat": "llada", "select": 1.0}, "compat='llada'"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(options, named):
    with pytest.raises(ValueError, match="sparsed") as error:
        mz.SparseD(**options)
    assert named in str(error.value)


def test_a_gap_at_the_very_start_has_no_prefix_to_choose_from(tiny):
    model = tiny["llada"]
    canvas = mz.Canvas.gaps([6, list(range(40, 60)), 5, [7]], model.config.mask_id, model.device)
    sparse = mz.SparseD(skip=0.0, block_size=8, impl="reference", rebuild="block")
    mz.denoise_all(model, canvas, mz.Recipe(gen_length=32, block_length=8, attention=sparse, early_stop="off"))
    assert canvas.decided.all()


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_kept_and_dropped_tiles_together_are_dense_attention(impl):
    """For all rows, and for some of them; a row that sees nothing of either stays zero."""
    q, k, v, rows, keys, chosen, _ = pieces(*LAYOUTS["whole"], 16)
    valid = torch.ones(2, 150, dtype=torch.bool)
    valid[1, :33] = False
    parts = []
    for some in (chosen, ~chosen):
        lse = torch.empty(q.shape[:3])
        parts.append((block_sparse(q, k, v, rows, keys, Choice.of(some), 16, valid=valid, impl=impl, lse=lse), lse))
    (kept, kept_lse), (dropped, dropped_lse) = parts
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=valid[:, None, None], enable_gqa=True)
    at = torch.arange(150)
    residual = sparsed.Residual(at, dropped, dropped_lse)
    assert_close(residual.merge(at, kept, kept_lse), wanted, atol=5e-6, rtol=1e-5)
    some = torch.tensor([3, 70, 149])
    assert_close(residual.merge(some, kept[:, :, some], kept_lse[:, :, some]), wanted[:, :, some], atol=5e-6, rtol=1e-5)
    nothing = torch.full((2, 4, 150), -torch.inf)
    assert not sparsed.Residual(at, torch.zeros_like(kept), nothing).merge(at, torch.zeros_like(kept), nothing).any()


def test_a_residual_brings_predictions_nearer_to_dense_attention(tiny):
    """After some tokens have been written: the same pattern, with and without what the dropped tiles gave before."""
    model, block = tiny["llada"], mz.Block(0, 53, 85)
    tokens = torch.cat((PROMPT, torch.full((1, 32), model.config.mask_id)), 1)
    written = tokens.clone()
    written[0, 53:59] = torch.arange(90, 96)
    wanted = model(written)
    missed = {}
    for residual in (False, True):
        run = SparseRun(mz.SparseD(skip=0.0, select=0.2, block_size=8, impl="reference", residual=residual), 53)
        model(tokens, attend=run(Moment(0, block, 0, 0, 32, 0.0)))
        missed[residual] = (model(written, attend=run(Moment(1, block, 1, 0, 32, 0.2))) - wanted).abs().mean()
        some = torch.arange(53, 85)
        assert len(run.residuals) == (model.config.layers if residual else 0)
        memory = model.memory(1, 85)
        model(written, attend=run(Moment(2, block, 2, 0, 32, 0.2)), memory=memory)
        part = model(written[:, some], some, over=torch.arange(85), attend=run(Moment(3, block, 3, 0, 32, 0.2)), memory=memory)
        assert_close(part, model(written, attend=run(Moment(4, block, 4, 0, 32, 0.2)))[:, some], atol=1e-4, rtol=1e-4)
    assert missed[True] < 0.75 * missed[False]
