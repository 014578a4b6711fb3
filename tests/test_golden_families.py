"""Ports of the further families, on tiny checkpoints of each (`families/` of the golden folder): forwards and decodings.

Every case of every manifest is run; a family, kind or parameter that is not understood fails.
"""

import copy
import dataclasses
import functools
import json

import pytest
import torch
from conftest import GOLDEN, RAN
from safetensors.torch import load_file

import mezzotint as mz
from mezzotint.commit.rules import expected

ATOL = 2e-3
FOLDER = GOLDEN / "families"
MANIFESTS = {path.parent.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*/manifest.json"))}
CASES = [(family, name) for family, manifest in MANIFESTS.items() for name in manifest["cases"]]
NOT_SETTINGS = ("kind", "checkpoint", "margins", "tensors", "note", "source", "mini_fp64_maxerr", "edits")


@pytest.mark.skipif(not FOLDER.exists(), reason="no families folder among the golden data")
def test_there_are_manifests():
    assert MANIFESTS, f"{FOLDER} holds no folder with a manifest.json"


@functools.cache
def loaded(family: str, checkpoint: str):
    return mz.load_model(FOLDER / family / checkpoint, mask_id=MANIFESTS[family]["mask_id"])


def model_of(family: str, checkpoint: str, **changes):
    """The checkpoint's model with some fields of its config changed."""
    twin = copy.copy(loaded(family, checkpoint))
    twin.config = dataclasses.replace(twin.config, **changes)
    return twin


class Params(dict):
    """A case's parameters, taken one by one; what nobody took is not understood."""

    def done(self, case: str) -> None:
        assert not self, f"{case}: parameters not understood: {dict(self)}"


@dataclasses.dataclass
class Run:
    """What a decoding did: the canvas, the rows of every forward, what each forward saw, and what each step decided."""

    canvas: mz.Canvas
    computed: list
    seen: list
    steps: list


def run(model, canvas, recipe) -> Run:
    out = Run(canvas, [], [], [])
    before = canvas.tokens.clone()
    for step in mz.denoise(model, canvas, recipe):
        if len(step.computed):
            out.computed.append(step.computed)
            out.seen.append(before)
        out.steps.append(step)
        before = step.tokens.clone()
    return out


def run_forward(family, case, known, data):
    """Logits of a whole canvas, with padding or with a block-causal mask."""
    block = known.pop("block_length", None)
    known.pop("timesteps", None)
    if "block_mask" in data and block is None:
        seen = data["block_mask"][0]
        block = int(seen.sum())
    model = model_of(family, case["checkpoint"], **({} if block is None else {"block_length": block}))
    padding = valid = None
    if "attention_mask" in data:
        valid = data["attention_mask"].bool()
        padding = (~valid).sum(1)
    if valid is not None and not valid[:, -1].all():  # padded on the right: a row alone is the same
        for row, real in enumerate(valid):
            torch.testing.assert_close(model(data["input_ids"][row : row + 1, real])[0], data["logits"][row, real], atol=ATOL, rtol=0)
        return
    logits = model(data["input_ids"], padding=padding)
    everything = slice(None) if valid is None else valid
    torch.testing.assert_close(logits[everything], data["logits"][everything], atol=ATOL, rtol=0)
    if "logits_bf16" in data:
        half = mz.load_model(FOLDER / family / case["checkpoint"], dtype="bfloat16", mask_id=MANIFESTS[family]["mask_id"])
        theirs = data["logits_bf16"].float()
        # routing flips in bf16, so only most rows can agree
        off = (half(data["input_ids"]).float() - theirs).abs().mean(-1)
        assert off.median() < 0.05 * theirs.std()


def run_llada(family, case, known, data):
    """LLaDA's generate and Fast-dLLM's threshold loop on a model with full attention."""
    gen_length, block, steps = known.pop("gen_length"), known.pop("block_length"), known.pop("steps")
    rule = mz.Threshold(known.pop("threshold")) if known.get("threshold") is not None else mz.Quota()
    forwards = known.pop("nfe")
    recipe = mz.Recipe(gen_length=gen_length, block_length=block, steps=steps, commit=rule, early_stop="off", reuse=False)
    model = model_of(family, case["checkpoint"])
    canvas = mz.Canvas.blank(list(data["prompt_ids"]), gen_length, model.config.mask_id, model.device)
    done = run(model, canvas, recipe)
    assert torch.equal(canvas.tokens, data["output_ids"])
    assert len(done.seen) == forwards == len(data["step_inputs"])
    for ours, theirs in zip(done.seen, data["step_inputs"], strict=True):
        assert torch.equal(ours[0], theirs.long())


def run_blocks(family, case, known, data):
    """SDAR's block_diffusion_generate, greedy: whole blocks from position 0 on, an exact cache, a clean forward per block."""
    block, steps, gen_length = known.pop("block_length"), known.pop("denoising_steps"), known.pop("gen_length")
    strategy, tau = known.pop("strategy"), known.pop("threshold", 1.0)
    overwrites = "BUG CASE" in case.get("note", "")
    rules = {"low_confidence_dynamic": mz.AtLeast(tau), "low_confidence_static": mz.AtLeast(1.0), "sequential": mz.Sequential()}
    rule = mz.AtLeast(1.0, compat="sdar") if overwrites else rules[strategy]
    stop = known.pop("stop_ids", None)
    forwards, total = known.pop("nfe_denoise"), known.pop("nfe_total")
    changes = {"block_length": block} | ({} if stop is None else {"stop_ids": tuple(stop)})
    model = model_of(family, case["checkpoint"], **changes)
    recipes = {
        name: mz.Recipe(gen_length=block, block_length=block, steps=steps, commit=rule, early_stop="off" if stop is None else "block", reuse=False, cache=cache)
        for name, cache in (("exact", mz.PrefixCache()), ("none", mz.NoCache()))
    }
    for name, recipe in recipes.items():
        canvas = mz.Canvas.blank(list(data["prompt_ids"]), gen_length, model.config.mask_id, model.device, grid=block)
        done = run(model, canvas, recipe)
        reached = done.steps[-1].block.end
        assert torch.equal(canvas.tokens[:, :reached], data["output_ids"][:, :reached])
        assert stop is not None or reached == data["output_ids"].shape[1]
        assert len(done.computed) == forwards
        if name == "exact":  # a block costs its own steps: its clean rows are computed with the next block's first
            first, blocks = canvas.origin, (reached - canvas.origin) // block
            assert total == forwards + blocks + (first > 0)
            assert sum(map(len, done.computed)) == first + block * (forwards + blocks - 1)
    if "step_inputs" in data and stop is None:
        inputs = [row[row >= 0].long() for row in data["step_inputs"]]
        masked = [row for row in inputs if (row == model.config.mask_id).any()]
        assert len(masked) == len(done.seen)
        for step, before, theirs in zip(done.steps, done.seen, masked, strict=True):
            assert torch.equal(before[0, step.block.start : step.block.end], theirs)


def end_of(row, start, stop) -> int:
    """Behind the first stop id from `start` on, or the row's end."""
    found = (row[start:] == stop).nonzero()
    return start + int(found[0]) + 1 if len(found) else len(row)


def run_llada2(family, case, known, data):
    """LLaDA2.0's and 2.1's generate, without and with an exact cache."""
    block, gen_length, loop = known.pop("block_length"), known.pop("gen_length"), known.pop("loop")
    forwards, exact = known.pop("nfe"), known.pop("nfe_with_exact_prefix_cache", None)
    eos, early = known.pop("eos_id", None), known.pop("eos_early_stop", None)
    tau = known.pop("threshold")
    steps = known.pop("steps", block)
    editing = ("editing_threshold", "max_post_steps", "num_to_transfer")
    rule = mz.AtLeast(tau) if loop == "llada2.0" else mz.Edit(tau, *(known.pop(name) for name in editing))
    stop = MANIFESTS[family]["eos_id"] if eos is None else eos
    model = model_of(family, case["checkpoint"], block_length=block, stop_ids=(stop,), pad_id=stop)
    early_stop = "off" if eos is None else "step" if early else "block"
    start = data["prompt_ids"].shape[1]
    for cache in (mz.NoCache(), mz.PrefixCache()):
        recipe = mz.Recipe(gen_length=block, block_length=block, steps=steps, commit=rule, early_stop=early_stop, reuse=False, cache=cache)
        canvas = mz.Canvas.blank(list(data["prompt_ids"]), gen_length, model.config.mask_id, model.device, grid=block)
        done = run(model, canvas, recipe)
        answer = canvas.tokens[0, start : start + gen_length]
        ends = (answer == stop).nonzero()
        answer = answer[: int(ends[0]) + 1] if len(ends) else answer
        assert torch.equal(answer, data["output_ids"][0])
        assert len(done.computed) == forwards
        for before, theirs in zip(done.seen, data.get("step_inputs", ()), strict="step_inputs" in data):
            theirs = theirs[theirs >= 0].long()
            assert torch.equal(before[0, : len(theirs)], theirs)
        if isinstance(cache, mz.PrefixCache):
            assert exact is None or exact >= len(done.computed)
            assert sum(map(len, done.computed)) <= canvas.length + block * forwards


def run_dllm(family, case, known, data):
    """dllm's MDLM and BD3LM samplers."""
    gen_length, block, steps = known.pop("gen_length"), known.pop("block_size"), known.pop("steps")
    sampler, guidance, shift = known.pop("sampler"), known.pop("cfg_scale"), int(known.pop("right_shift_logits", False))
    total, forwards = known.pop("nfe"), known.pop("nfe_denoise", None)
    blocks = -(-gen_length // block)
    in_blocks = {"MDLM": None, "BD3LM": block}[sampler]
    model = model_of(family, case["checkpoint"], shift=shift, block_length=in_blocks)
    prompts = [row[row >= 0] for row in data["prompt_ids"]]
    for cache in (mz.NoCache(), mz.PrefixCache()) if in_blocks else (mz.NoCache(),):
        recipe = mz.Recipe(
            gen_length=block * blocks,
            block_length=block,
            steps=-(-steps // blocks) * blocks,
            commit=mz.Linear(),
            cfg_scale=guidance,
            early_stop="block" if in_blocks else "off",
            reuse=False,
            cache=cache,
        )
        canvas = mz.Canvas.blank(prompts, gen_length, model.config.mask_id, model.device, grid=in_blocks, to_end=True)
        done = run(model, canvas, recipe)
        assert len(done.computed) == (total if forwards is None else forwards)
        for row, prompt in enumerate(prompts):
            ours = canvas.tokens[row, canvas.begins[row] - len(prompt) :]
            theirs = data["output_ids"][row]
            theirs = theirs[-len(ours) :] if in_blocks else theirs[: len(ours)]
            end = end_of(theirs, len(prompt), model.config.stop_ids[0]) if in_blocks else len(theirs)
            assert torch.equal(ours[:end], theirs[:end]), row
        if "histories" in data and not in_blocks and len(prompts) == 1:
            for before, theirs in zip(done.seen, data["histories"][:-1], strict=True):
                assert torch.equal(before[0], theirs.long())


def run_fast_dllm(family, case, known, data):
    """Fast-dLLM v2's batch_sample for one row: small blocks inside trained ones, the carry token, the sub-block cache."""
    length, block, small = known.pop("max_new_tokens"), known.pop("block_size"), known.pop("small_block_size")
    tau, sub_block, stop = known.pop("threshold"), known.pop("use_block_cache"), known.pop("stop_id", None)
    forwards = known.pop("nfe_denoise", None)
    known.pop("nfe_total")  # counts the prefill, which here rides with the first block's first step
    whole, part = known.pop("nfe_block_forwards", None), known.pop("nfe_subblock_forwards", None)
    changes = {"block_length": block} | ({} if stop is None else {"stop_ids": (stop,)})
    model = model_of(family, case["checkpoint"], **changes)
    prompt = data["prompt_ids"][0]
    end = (length // block + len(prompt) // block) * block
    for cache in (mz.SubBlockCache(),) if sub_block else (mz.NoCache(), mz.PrefixCache()):
        recipe = mz.Recipe(
            gen_length=small, block_length=small, commit=mz.AtLeast(tau), cache=cache, early_stop="off" if stop is None else "block", reuse=False
        )
        canvas = mz.Canvas.blank([prompt], end - len(prompt), model.config.mask_id, model.device, grid=block)
        done = run(model, canvas, recipe)
        theirs = data["output_ids"][0]
        size = min(len(theirs), end) if stop is None else end_of(theirs, len(prompt), stop)
        assert torch.equal(canvas.tokens[0, :size], theirs[:size])
        carries = sum(step.block.start % block == 0 and len(step.computed) > 0 and int(step.visible[-1]) < step.block.start for step in done.steps)
        if forwards is not None:
            assert len(done.computed) == forwards + carries
        elif whole is not None:
            assert len(done.computed) - carries == whole + part
            assert sum(len(rows) == small for rows in done.computed) == part or small == block


@pytest.mark.parametrize(("family", "name"), [(f, n) for f, m in MANIFESTS.items() for n in m.get("unit_schedule", {})], ids=lambda part: part)
def test_dllm_schedule(family, name):
    masks, steps = map(int, name.split("_"))
    assert expected(masks, steps) == MANIFESTS[family]["unit_schedule"][name]


GENERATE = {
    "llada_moe": run_llada,
    "illada": run_llada,
    "sdar": run_blocks,
    "sdar_moe": run_blocks,
    "llada2": run_llada2,
    "a2d": run_dllm,
    "modernbert": run_dllm,
    "fast_dllm_v2": run_fast_dllm,
}


@pytest.mark.parametrize(("family", "name"), CASES, ids=lambda part: part)
def test_family(family, name):
    case = MANIFESTS[family]["cases"][name]
    data = load_file(FOLDER / family / "cases" / f"{name}.safetensors")
    known = Params({key: value for key, value in case.items() if key not in NOT_SETTINGS and value is not None})
    runner = run_forward if case["kind"] == "forward" else GENERATE.get(family) if case["kind"] == "generate" else None
    assert runner, f"golden family {family!r}, kind {case['kind']!r} is not understood"
    runner(family, case, known, data)
    known.done(name)
    RAN[f"{family} {case['kind']}"] += 1
