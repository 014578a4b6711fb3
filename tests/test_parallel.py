"""A model divided over two processes (gloo): the tokens of one process, logits close to its own, and a share of the weights."""

import asyncio
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import HERE

import mezzotint as mz
from mezzotint.engine import EngineSettings, Request, made
from mezzotint.engine.together import Apart, Leader
from mezzotint.generation import encode
from mezzotint.models import parallel


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    out = tmp_path_factory.mktemp("ranks") / "found.pt"
    done = subprocess.run([sys.executable, Path(__file__).parent / "ranks.py", out], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return torch.load(out)


@pytest.mark.parametrize("name", ["llada", "dream", "fast_dllm", "illada", "sdar", "modernbert"])
def test_two_ranks_equal_one(ranks, name):
    divided, alone = ranks["divided"][name], ranks["alone"][name]
    torch.testing.assert_close(divided["logits"], alone["logits"], rtol=1e-4, atol=1e-4)
    assert torch.equal(divided["tokens"], alone["tokens"])
    assert 2 * divided["heads"] == alone["heads"]
    assert 2 * divided["weights"][1] == alone["weights"][1] > 0
    assert divided["weights"][0] < alone["weights"][0]


def test_biases_are_added_once(ranks):
    torch.testing.assert_close(ranks["divided"]["biases"], ranks["alone"]["biases"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("folder", "words"), [
    ("families/llada_moe/lladamoe_tiny_variant", "experts, which llada-moe has"),
    ("families/llada2/llada2_tiny_g8", "experts, which llada2 has"),
    ("families/sdar_moe/sdarmoe_tiny", "experts, which sdar"),
])  # fmt: skip
def test_experts_are_refused_by_family(folder, words):
    with pytest.raises(ValueError, match=words):
        made(EngineSettings(str(HERE / folder), mask_id=7, tensor_parallel=2))


def test_what_does_not_divide_is_refused_with_what_does(tiny):
    with pytest.raises(ValueError, match=r"tensor_parallel=3 does not divide the \d+ heads of this llada; accepted: 1, 2"):
        parallel.check(tiny["llada"].config, 3)
    with pytest.raises(ValueError, match="key and value heads of this dream; accepted: 1, 2"):
        parallel.check(tiny["dream"].config, 4)
    with pytest.raises(ValueError, match="int8"):
        made(EngineSettings(weights="int8", tensor_parallel=2))
    with pytest.raises(ValueError, match="tensor_parallel=0"):
        EngineSettings(tensor_parallel=0)
    with pytest.raises(ValueError, match="one rank on each GPU"):
        made(EngineSettings(device="cuda:1", tensor_parallel=2))


RECIPES = (
    mz.Recipe(gen_length=32, block_length=16, commit=mz.Threshold(0.8), cache=mz.DualCache(), suffix=mz.DPad(window=16)),
    mz.Recipe(gen_length=32, block_length=8, temperature=1.0, early_stop="off"),
    mz.Recipe(gen_length=16, block_length=8, cfg_scale=1.0, commit=mz.Threshold(0.8)),
    mz.Recipe(gen_length=16, block_length=8, cache=mz.DelayedCache(4), attention=mz.SparseD(block_size=8, impl="reference"), early_stop="off"),
)


def test_an_engine_over_two_processes(bundled):
    """Mixed recipes beside each other, one given up on its way, one refused; then the plain loop; then the other process dies."""
    model, tokenizer = bundled
    leader = Leader(EngineSettings(tensor_parallel=2))
    prompts = [tuple(encode(tokenizer, f"Copy these words: amber coral {i}")) for i in range(len(RECIPES))]

    async def tokens(number: int) -> list[int]:
        ticket = leader.submit(Request((prompts[number],), RECIPES[number], seed=number))
        return [token for update in [u async for u in ticket] for token in update.decided]

    async def leaves() -> None:
        ticket = leader.submit(Request((prompts[0],), mz.Recipe(gen_length=256, early_stop="off")))
        async for _ in ticket:
            ticket.cancel()
            break

    async def main():
        work = asyncio.create_task(leader.run())
        found = await asyncio.wait_for(asyncio.gather(*map(tokens, range(len(RECIPES))), leaves()), 120)
        with pytest.raises(Exception, match="cache=feature"):
            leader.submit(Request((prompts[0],), RECIPES[0].with_(cache=mz.FeatureCache())))
        work.cancel()
        return found

    try:
        found = asyncio.run(main())
        for number, recipe in enumerate(RECIPES):
            alone = mz.denoise_all(model, [torch.tensor(prompts[number])], recipe, seed=number).tokens[0, len(prompts[number]) :].tolist()
            assert found[number] == alone[: len(found[number])]
            assert len(found[number]) == recipe.gen_length or alone[len(found[number]) - 1] in model.config.stop_ids
        recipe = RECIPES[0]
        leader.alongside([prompts[0]], recipe, 3)
        assert mz.denoise_all(leader.model, [torch.tensor(prompts[0])], recipe, seed=3).tokens.equal(
            mz.denoise_all(model, [torch.tensor(prompts[0])], recipe, seed=3).tokens
        )
        children = multiprocessing.active_children()
        assert len(children) == 1
        children[0].kill()
        children[0].join()

        async def after():
            work = asyncio.create_task(leader.run())
            ticket = leader.submit(Request((prompts[0],), recipe))
            with pytest.raises(Exception, match="the engine has stopped"):
                async for _ in ticket:
                    pass
            with pytest.raises(Apart, match="another rank of this model has ended"):
                await work

        asyncio.run(after())
    finally:
        leader.close()
