"""End tokens taken last or never: LLaDA's two switches, against its published sampling loop written out here."""

import dataclasses

import pytest
import torch

import mezzotint as mz

PROMPT = torch.arange(20, 33)[None]
LENGTH = 24


def official(model, never, last):
    """One block, one token per forward, the surest first, at temperature 0; ids as given."""
    mask = model.config.mask_id
    tokens = torch.cat([PROMPT, torch.full((1, LENGTH), mask)], 1)
    for _ in range(LENGTH):
        with torch.no_grad():
            logits = model(tokens).double()
        logits[..., [*never, mask]] = -torch.inf
        candidates = logits.argmax(-1)
        logits[..., list(last)] = -torch.inf
        sure = logits.softmax(-1).gather(-1, candidates[..., None])[..., 0].masked_fill(tokens != mask, -torch.inf)
        place = sure[0].argmax()
        tokens[0, place] = candidates[0, place]
    return tokens


@pytest.fixture(scope="module")
def eager(tiny):
    """A tiny model whose favourite tokens are those that end, the first above all."""
    model = mz.load_model("tests/golden/dpad/ckpt_llada_tiny")
    free = mz.denoise_all(model, PROMPT, mz.Recipe(gen_length=LENGTH, block_length=None, early_stop="off")).tokens[0, 13:]
    ids, counts = free.unique(return_counts=True)
    model.config = dataclasses.replace(model.config, stop_ids=tuple(ids[counts.argsort(descending=True)].tolist()))
    return model


@pytest.mark.parametrize("end_tokens", ["free", "last", "never"])
def test_it_is_what_llada_publishes(eager, end_tokens):
    ends = eager.config.stop_ids
    recipe = mz.Recipe(gen_length=LENGTH, block_length=None, early_stop="off", end_tokens=end_tokens)
    found = mz.denoise_all(eager, PROMPT, recipe).tokens
    assert torch.equal(found, official(eager, ends[:1] if end_tokens == "never" else (), ends if end_tokens == "last" else ()))
    assert (ends[0] in found[0, 13:]) == (end_tokens == "free") or end_tokens == "last"


def test_last_means_after_everything_else(eager):
    kinds = []
    for step in mz.denoise(eager, PROMPT, mz.Recipe(gen_length=LENGTH, block_length=None, early_stop="off", end_tokens="last")):
        kinds += torch.isin(step.ids[step.accepted], torch.tensor(eager.config.stop_ids)).tolist()
    assert kinds == sorted(kinds)
    assert True in kinds


@pytest.mark.parametrize("sampling", ["gumbel", "categorical"])
def test_with_temperature_never_is_never_and_last_is_unsure(sampling):
    logits, open = torch.zeros(1, 64, 5), torch.ones(1, 64, dtype=torch.bool)
    draws = [torch.Generator().manual_seed(0)]
    recipe = mz.Recipe(sampling=sampling, temperature=1.0)
    assert 3 not in recipe.with_(end_tokens="never").sampler((3, 4))(logits, open, draws).tokens
    late = recipe.with_(end_tokens="last").sampler((3, 4))(logits, open, draws)
    ends = torch.isin(late.tokens, torch.tensor([3, 4]))
    assert ends.any()
    assert (late.confidence[ends] == 0).all()
    assert torch.allclose(late.confidence[~ends].double(), torch.tensor(1 / 3).double())
