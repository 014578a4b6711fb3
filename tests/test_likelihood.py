"""The likelihood bound and its relatives against sums that can be written down."""

import math
from pathlib import Path

import pytest
import torch

import mezzotint as mz
from mezzotint.evaluation.comparison import Masked, judge
from mezzotint.evaluation.likelihood import Draws, bound, costs, greedy, masked_cost, suffix_cost, windows

HERE = Path(__file__).parent / "golden"
IDS = torch.tensor([5, 9, 3, 17, 40, 11, 2, 8])


def log_p(model, ids, position, masked):
    tokens = ids.clone()
    tokens[masked] = model.config.mask_id
    logits = model(tokens[None], predict=torch.tensor([position]))
    return float(logits[0, 0].log_softmax(-1)[ids[position]])


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_a_single_token_is_exact(tiny, family):
    model = tiny[family]
    assert bound(model, IDS, 7) == pytest.approx(-log_p(model, IDS, 7, [7]), rel=1e-5)


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_two_tokens_are_the_mean_over_both_orders(tiny, family):
    """The bound of two tokens, over all masks there are, is the mean cost of uncovering them in either order."""
    model = tiny[family]
    every = Draws(torch.tensor([[True, False], [False, True], [True, True], [True, True]]), torch.tensor([1, 1, 2, 2]))
    weighted = costs(model, IDS, 6, every).sum(1) * 2 / every.counts
    orders = [log_p(model, IDS, a, [6, 7]) + log_p(model, IDS, b, [b]) for a, b in ((6, 7), (7, 6))]
    assert float(weighted.mean()) == pytest.approx(-sum(orders) / 2, rel=1e-5)


def test_draws_spread_the_counts_evenly_and_are_the_same_everywhere():
    draws = Draws.make(64, 8, seed=3)
    assert torch.equal(draws.counts.bincount(minlength=9)[1:], torch.full((8,), 8))
    assert torch.equal(draws.masked.sum(1), draws.counts)
    assert torch.equal(Draws.make(64, 8, seed=3).masked, draws.masked)
    assert not torch.equal(Draws.make(64, 8, seed=4).masked, draws.masked)
    with pytest.raises(ValueError, match="samples=0"):
        Draws.make(0, 8, seed=0)


def test_the_masked_cost_is_the_bound_per_token(tiny):
    model = tiny["llada"]
    draws = Draws.make(32, 5, seed=1)
    cost = costs(model, IDS, 3, draws)
    assert (cost[~draws.masked] == 0).all()
    assert bound(model, IDS, 3, seed=1) == pytest.approx(float((cost.sum(1) * 5 / draws.counts).mean()))
    assert masked_cost(model, IDS, 3, seed=1) == pytest.approx(float((cost.sum(1) / draws.counts).mean()))
    assert masked_cost(model, IDS, 3, seed=1) == pytest.approx(bound(model, IDS, 3, seed=1) / 5)


def test_masked_perplexity_is_the_mean_over_draws_of_each_draws_mean(tiny):
    """Draws of one and of three masks count alike."""
    model, masked = tiny["llada"], torch.zeros(2, 8, dtype=torch.bool)
    masked[0, 4] = masked[1, 5:] = True
    batch = Masked(IDS.masked_fill(masked, model.config.mask_id), IDS.expand(2, -1), masked, torch.zeros(2, dtype=torch.long))
    means = [-sum(log_p(model, IDS, i, at) for i in at) / len(at) for at in ([4], [5, 6, 7])]
    assert judge(model, [batch]).masked_ppl == pytest.approx(math.exp(sum(means) / 2), rel=1e-5)


def test_guidance_changes_the_bound_and_scale_zero_does_not(tiny):
    model = tiny["llada"]
    assert bound(model, IDS, 4, cfg_scale=1.5) != pytest.approx(bound(model, IDS, 4), rel=1e-4)


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_suffix_cost_without_masks_behind_is_the_bound(tiny, family):
    model = tiny[family]
    alone = bound(model, IDS, 4, samples=8, seed=2)
    assert suffix_cost(model, IDS, 4, mz.NoSuffix(), ahead=16, samples=8, seed=2) == pytest.approx(alone, rel=1e-4)
    assert suffix_cost(model, IDS, 4, mz.Full(), ahead=0, samples=8, seed=2) == pytest.approx(alone, rel=1e-4)


def test_suffix_cost_sees_what_the_strategy_keeps(tiny):
    model = tiny["llada"]
    full, none = (suffix_cost(model, IDS, 4, suffix, ahead=16, seed=2) for suffix in (mz.Full(), mz.NoSuffix()))
    assert full != pytest.approx(none, rel=1e-5)
    assert suffix_cost(model, IDS, 4, mz.DPad(window=16, k=0.0, a=3.0), ahead=16, seed=2) == pytest.approx(full, rel=1e-5)
    assert suffix_cost(model, IDS, 4, mz.DPad(window=16, a=0.0), ahead=16, seed=2) == pytest.approx(none, rel=1e-5)
    dropped = suffix_cost(model, IDS, 4, mz.DPad(window=16, k=1.0, a=1.2), ahead=16, seed=2, batch=3)
    assert all(abs(dropped - other) > 1e-3 for other in (full, none))
    assert dropped == pytest.approx(suffix_cost(model, IDS, 4, mz.DPad(window=16, k=1.0, a=1.2), ahead=16, seed=2, batch=16), rel=1e-5)


@pytest.mark.parametrize("seed", [0, 2, 2**32 - 1])
def test_a_suffix_draws_numbers_of_its_own(tiny, seed):
    """Not those that say which tokens are masked."""
    numbers = []

    class Drawing:
        def begin(self, canvas, generator):
            numbers.append(torch.rand(1 + 8 * 4, generator=generator))
            return mz.Full().begin(canvas, generator)

    model = tiny["llada"]
    found = suffix_cost(model, IDS, 4, Drawing(), ahead=16, samples=8, seed=seed)
    assert found == suffix_cost(model, IDS, 4, mz.Full(), ahead=16, samples=8, seed=seed)
    of_masks = torch.rand(1 + 8 * 4, generator=torch.Generator().manual_seed(seed))
    assert not torch.isin(numbers[0], of_masks).any()


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_greedy_says_what_decoding_gives(tiny, family):
    model = tiny[family]
    recipe = mz.Recipe(gen_length=4, block_length=None, early_stop="off")
    decoded = mz.denoise_all(model, IDS[None, :4], recipe).tokens[0]
    assert greedy(model, decoded, 4)
    decoded[6] = (decoded[6] + 1) % 50
    assert not greedy(model, decoded, 4)


@pytest.mark.parametrize("count", [0, 3, 5])
@pytest.mark.parametrize(("name", "block"), [("sdar/sdar_tiny", 4), ("fast_dllm_v2/fast_dllm_v2_tiny", 8)])
def test_greedy_decodes_whole_blocks_of_models_trained_in_blocks(name, block, count):
    """Whatever the number of ids asked for, which is 7 here, and wherever the prompt ends."""
    model = mz.load_model(HERE / "families" / name, mask_id=296, block_causal=block)
    given = torch.arange(20, 20 + count)
    start = given[None] if count else mz.Canvas.gaps([8], model.config.mask_id, model.device)
    decoded = mz.denoise_all(model, start, mz.Recipe(gen_length=8, block_length=block, early_stop="off")).tokens[0, : count + 7]
    assert greedy(model, decoded, count)
    decoded[-1] = (decoded[-1] + 1) % 50
    assert not greedy(model, decoded, count)


def test_greedy_decoding_is_guided_as_the_bound_is(tiny):
    model = tiny["llada"]
    recipe = mz.Recipe(gen_length=8, block_length=None, early_stop="off", cfg_scale=4.0)
    decoded = mz.denoise_all(model, IDS[None, :4], recipe).tokens[0]
    assert greedy(model, decoded, 4, cfg_scale=4.0)
    assert not greedy(model, decoded, 4)


def test_windows_follow_one_another():
    cut = windows(range(10), 4, context=3)
    assert [w for _, w in cut] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [c for c, _ in cut] == [[], [1, 2, 3], [5, 6, 7]]
    with pytest.raises(ValueError, match="window of 0"):
        windows(range(3), 0)


def test_real_text_is_likelier_than_the_same_words_shuffled(bundled):
    model, tokenizer = bundled
    text = "The code of amber is 471. The code of amber is 471."
    ids = torch.tensor([tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]])
    mixed = torch.cat((ids[:1], ids[1:][torch.randperm(len(ids) - 1, generator=torch.Generator().manual_seed(0))]))
    assert bound(model, ids, 1) < bound(model, mixed, 1) - 10
    assert math.isfinite(bound(model, ids, 1))
