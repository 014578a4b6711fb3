"""Ports against the official implementations' outputs on tiny checkpoints (`MEZZOTINT_GOLDEN`, default tests/golden).

Every case of every manifest is run; a kind, group or parameter that is not understood fails.
"""

import dataclasses
import json
from collections import Counter
from functools import cache

import golden_sink
import pytest
import torch
from conftest import GOLDEN, RAN
from safetensors.torch import load_file

import mezzotint as mz
from mezzotint.attention import budget
from mezzotint.commit import Prediction, Quota, Sampler, Timed
from mezzotint.commit.rules import Shuffling
from mezzotint.kernels.block_mass import block_mass
from mezzotint.kernels.block_sparse import block_sparse
from mezzotint.kernels.tiles import Choice, Grid, Tiled
from mezzotint.suffix.dpad import keep_probability, sliding_window

ATOL = 2e-3


KNOWN = ("sparsed", "dpad", "families", "sink")
MANIFESTS = {path.parent.name: json.loads(path.read_text()) for path in sorted(GOLDEN.glob("*/manifest.json"))}


def test_there_are_manifests():
    assert MANIFESTS, f"{GOLDEN} holds no folder with a manifest.json"


@pytest.mark.parametrize("folder", [name for name in MANIFESTS if name not in KNOWN])
def test_every_folder_is_understood(folder):
    """A manifest of a method that is not there yet fails rather than passing unread."""
    pytest.fail(f"golden folder {folder!r} is not understood; known: {', '.join(KNOWN)}")


UNDERSTOOD = {
    "sparsed": {"description", "models", "cases", "seeds", "sources", "environment", "tokens"},
    "dpad": {"format", "conventions", "invariants", "groups"},
    "sink": {"description", "producer", "files", "llada_tiny", "dream_tiny"},
}
"""What a manifest may hold: what is run, and what only describes it."""


@pytest.mark.parametrize("folder", [name for name in MANIFESTS if name in UNDERSTOOD])
def test_everything_in_a_manifest_is_understood(folder):
    """Another model's cases fail rather than passing unread."""
    strange = sorted(set(MANIFESTS[folder]) - UNDERSTOOD[folder])
    assert not strange, f"golden folder {folder!r}: {strange} are not understood"


@cache
def model_of(folder: str, name: str):
    return mz.load_model(GOLDEN / folder / name)


@cache
def tensors_of(folder: str, file: str) -> dict:
    return load_file(GOLDEN / folder / file)


class Params(dict):
    """A case's parameters, taken one by one; what nobody took is not understood."""

    def done(self, case: str) -> None:
        assert not self, f"{case}: parameters not understood: {dict(self)}"


def records(model, prompt, recipe, **rest):
    """Run a recipe; the tokens, the rows of every forward, and the canvas each forward saw."""
    lengths, grids, tokens = [], [], None
    canvas = mz.Canvas.blank(list(prompt), recipe.gen_length, model.config.mask_id, model.device)
    before = canvas.tokens.clone()
    for step in mz.denoise(model, canvas, recipe, **rest):
        if len(step.computed):
            lengths.append(len(step.computed))
            grids.append(before)
        before = tokens = step.tokens.clone()
    return tokens, lengths, grids


# --- SparseD's folder: forwards, vanilla decoding, units


def run_forward(case, data):
    model = model_of("sparsed", case["model"])
    padding = valid = None
    if "attention_mask_2d" in data:
        valid = data["attention_mask_2d"].bool()
        padding = (~valid).sum(1)
    logits = model(data["input_ids"], padding=padding)
    if valid is None:
        torch.testing.assert_close(logits, data["logits"], atol=ATOL, rtol=0)
    else:
        torch.testing.assert_close(logits[valid], data["logits"][valid], atol=ATOL, rtol=0)
    if "logits_bf16" in data:
        half = mz.load_model(GOLDEN / "sparsed" / case["model"], dtype="bfloat16")
        ours = half(data["input_ids"], padding=padding).float()
        theirs = data["logits_bf16"].float()
        picked = slice(None) if valid is None else valid
        assert (ours - theirs)[picked].abs().mean() < 0.05 * theirs[picked].std()


CONFIDENCE = {"maskgit_plus": "probability", "topk_margin": "margin", "entropy": "entropy", "origin": "probability"}


def run_generate_vanilla(case, data):
    model = model_of("sparsed", case["model"])
    known = Params(
        {k: v for k, v in case.items() if k not in ("name", "kind", "file", "model", "margins", "tier", "tensors", "note", "prompt_length", "upstream")}
    )
    shared = {"gen_length": known.pop("gen_length"), "steps": known.pop("steps"), "early_stop": "off", "reuse": False}
    seed = known.pop("seed", 0)
    if "alg" in known:
        alg = known.pop("alg")
        eps = known.pop("eps")
        rule = mz.Origin(eps) if alg == "origin" else Timed(eps)
        top_p, top_k = known.pop("top_p") or 1.0, known.pop("top_k") or 0
        recipe = mz.Recipe(**shared, block_length=None, commit=rule, sampling="categorical", confidence=CONFIDENCE[alg], top_p=top_p, top_k=top_k)
    else:
        recipe = mz.Recipe(**shared, block_length=known.pop("block_length"), cfg_scale=known.pop("cfg_scale"))
    known.done(case["name"])
    prompts = data["prompt_ids"]
    if "attention_mask" in data:
        prompts = [row[keep.bool()] for row, keep in zip(prompts, data["attention_mask"], strict=True)]
    tokens, lengths, grids = records(model, prompts, recipe, seed=seed)
    real = torch.ones_like(tokens, dtype=torch.bool)
    if "attention_mask" in data:
        real[:, : data["attention_mask"].shape[1]] = data["attention_mask"].bool()
    assert torch.equal(tokens[real], data["output_ids"][real])
    assert len(lengths) == len(data["step_inputs"])
    for ours, theirs in zip(grids, data["step_inputs"], strict=True):
        assert torch.equal(ours[real], theirs.long()[real])


def run_unit(case, data):
    if case["name"] == "unit_llada_num_transfer_tokens":
        for name, counts in data.items():
            masks, steps = (int(part[1:]) for part in name.split("_"))
            assert schedule(Quota(), masks, steps) == counts[0].tolist(), name
    elif case["name"] == "unit_dream_schedule":
        for name, counts in data.items():
            masks, steps, eps = name.split("_")
            assert schedule(Timed(float(eps[3:])), int(masks[1:]), int(steps[1:])) == counts.tolist(), name
    elif case["name"] == "unit_dream_sample_tokens":
        logits = data["logits"][None]
        everything = torch.ones(logits.shape[:2], dtype=torch.bool)
        for combo in case["combos"]:
            alg, top_p, top_k = combo.split("__")
            p, k = top_p.removeprefix("top_p_"), top_k.removeprefix("top_k_")
            sampler = Sampler("categorical", 0.0, 1.0 if p == "None" else float(p), 0 if k == "None" else int(k), CONFIDENCE[alg])
            found = sampler(logits, everything, [torch.Generator()])
            assert torch.equal(found.tokens[0], data[f"{combo}__x0"]), combo
            torch.testing.assert_close(found.confidence[0], data[f"{combo}__confidence"], atol=1e-5, rtol=1e-5)
    else:
        pytest.fail(f"unit case {case['name']} is not understood")


def schedule(rule, masks: int, steps: int) -> list[int]:
    """How many of `masks` positions a rule commits at each of `steps` steps."""
    open = torch.ones(1, masks, dtype=torch.bool)
    accept = rule.begin(steps, open)
    counts = []
    for _ in range(steps):
        confidence = torch.arange(masks, dtype=torch.float)[None].masked_fill(~open, -torch.inf)
        accepted = accept(Prediction(torch.zeros(1, masks, dtype=torch.long), confidence, open, [torch.Generator()]))
        counts.append(int(accepted.sum()))
        open = open & ~accepted
    return counts


def tiles_between(canvas_length, start, block_size):
    """The official grid: one for prompt and generation, the boundary rounded up to a tile."""
    grid = Grid(0, block_size)
    positions = torch.arange(canvas_length)
    first = min(-(-start // block_size), -(-canvas_length // block_size) - 1)
    return Tiled.of(positions, grid, torch.device("cpu")), first


def run_pattern(case, data):
    """Block importance, the choice of blocks, and attention restricted to them."""
    size, q, k, v = case["block_size"], data["q"], data["k"], data["v"]
    tiled, first = tiles_between(case["seq_len"], case["seq_len"] - case["new_generation"], size)
    assert first == case["last"]
    mass = block_mass(q, k, tiled, tiled, size, first, scale=1 / case["score_scale"])
    # the official means count a ragged tile's missing rows and columns as zeros
    rows = (tiled.index >= 0).view(-1, size).sum(1)[:, None]
    torch.testing.assert_close(mass.total * rows / size**2, data["importance_all"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mass.within * rows / size**2, data["importance_gen"], atol=1e-5, rtol=1e-4)
    chosen = budget.official(mass, case["select"])
    assert torch.equal(chosen, data["fine_mask"])
    out = block_sparse(q, k, v, tiled, tiled, Choice.of(chosen), size)
    torch.testing.assert_close(out, data["attn_out"], atol=1e-5, rtol=1e-4)


def run_generate_sparsed(case, data):
    """Whole generations, with the masks of every layer and head."""
    model = model_of("sparsed", case["model"])
    ignored = "name kind file model margins tier tensors prompt_length new_generation whole_steps keep_all keep_gen num_full_steps num_sparse_steps".split()
    ignored += ["last", "density", "end_time", "tokens_differing_from_vanilla", "batch"]
    known = Params({key: value for key, value in case.items() if key not in ignored})
    dream = "alg" in known
    attention = mz.SparseD(known.pop("skip"), known.pop("select"), known.pop("block_size"), compat="dream" if dream else "llada", impl="reference")
    runs = []
    attention = Recorded(attention, runs)
    shared = {"gen_length": known.pop("gen_length"), "steps": known.pop("steps"), "early_stop": "off", "reuse": False, "attention": attention}
    if dream:
        top_p, top_k = known.pop("top_p") or 1.0, known.pop("top_k") or 0
        confidence = CONFIDENCE[known.pop("alg")]
        rule = Timed(known.pop("eps"))
        recipe = mz.Recipe(**shared, block_length=None, commit=rule, sampling="categorical", confidence=confidence, top_p=top_p, top_k=top_k)
    else:
        recipe = mz.Recipe(**shared, block_length=known.pop("block_length"))
    known.done(case["name"])
    tokens, lengths, grids = records(model, data["prompt_ids"], recipe)
    assert torch.equal(tokens, data["output_ids"])
    assert len(lengths) == len(data["step_inputs"])
    for ours, theirs in zip(grids, data["step_inputs"], strict=True):
        assert torch.equal(ours, theirs.long())
    made = [pattern.chosen for pattern in runs[0].patterns.values()]
    sparse = case["num_sparse_steps"] > 0
    assert (runs[0].made == case["end_time"]) or not sparse
    if sparse or made:
        assert torch.equal(torch.stack(made), data["fine_mask"])


@dataclasses.dataclass(frozen=True)
class Recorded:
    """An attention strategy whose runs are kept for a look afterwards."""

    attention: mz.SparseD
    runs: list

    def begin(self, canvas):
        self.runs.append(self.attention.begin(canvas))
        return self.runs[-1]


SPARSED = {
    "forward": run_forward,
    "generate_vanilla": run_generate_vanilla,
    "unit": run_unit,
    "pattern": run_pattern,
    "generate_sparsed": run_generate_sparsed,
}


@pytest.mark.parametrize("case", MANIFESTS.get("sparsed", {}).get("cases", []), ids=lambda case: case["name"])
def test_sparsed(case):
    runner = SPARSED.get(case["kind"])
    assert runner, f"golden kind {case['kind']!r} is not understood; known: {', '.join(SPARSED)}"
    runner(case, tensors_of("sparsed", case["file"]))
    RAN[case["kind"]] += 1


# --- DPad's folder: block decoding, caches, suffix dropout, single forwards, samplers


@dataclasses.dataclass(frozen=True)
class Replay:
    """A suffix strategy that keeps the positions a golden run kept."""

    kept: tuple

    def begin(self, canvas, generator):
        return lambda block: torch.cat((torch.arange(block.end), self.kept[block.index].long()))


def run_blocks(group, case, data):
    """Fast-dLLM's and DPad's loop on LLaDA: schedule, threshold or factor; no, prefix or dual cache; kept suffix replayed."""
    known = Params(case["params"])
    model = model_of("dpad", group["checkpoint"])
    eos = known.pop("eos_id", model.config.stop_ids[0])
    stop = "block" if known.pop("early_termination", False) else "off"
    assert known.pop("mask_id") == model.config.mask_id
    gen_length, steps = known.pop("gen_length"), known.pop("steps")
    rule = mz.Quota()
    if "threshold" in known:
        rule = mz.Threshold(known.pop("threshold"))
    elif "factor" in known:
        rule = mz.Factor(known.pop("factor"))
    suffix = mz.Full()
    if known.pop("dropout", None):
        for name in ("window", "sigma", "scale", "preserved_tokens"):
            known.pop(name, None)
        suffix = Replay(tuple(data[f"kept_suffix_block{b}"] for b in range(case["blocks_run"])))
    name = case["case"]
    cache = mz.PrefixCache() if "_prefix_" in name else mz.DualCache() if "_dual_" in name else mz.NoCache()
    assert isinstance(cache, mz.NoCache) == ("_none_" in name), f"{name}: cache not understood"
    recipe = mz.Recipe(gen_length=gen_length, block_length=known.pop("block_length", 32), steps=steps, commit=rule, suffix=suffix, cache=cache, early_stop=stop)
    known.done(name)
    tokens, lengths = with_stop(model, eos, data, recipe)
    assert torch.equal(tokens[0], data["tokens"].long())
    if group["group"] == "fastdllm_20250627_llada":
        # the older loop notices a finished block only after one more forward: one too many where the first forward finishes it
        assert len(lengths) + blocks_of_one_forward(model, data, recipe) == case["forwards"]
    else:
        assert lengths == data["forward_lengths"].tolist()


def with_stop(model, eos, data, recipe):
    """Tokens and forward lengths with another stop id."""
    usual = model.config
    model.config = dataclasses.replace(usual, stop_ids=(eos,), pad_id=eos)
    try:
        return records(model, data["prompt_ids"].long().reshape(1, -1), recipe)[:2]
    finally:
        model.config = usual


def blocks_of_one_forward(model, data, recipe) -> int:
    counts = Counter(step.block.index for step in mz.denoise(model, data["prompt_ids"].long().reshape(1, -1), recipe) if len(step.computed))
    return sum(count == 1 for count in counts.values())


def run_dream(group, case, data):
    """Dream: the whole canvas (Fast-dLLM) or blocks (DPad's repository), schedule or threshold, no, prefix or dual cache."""
    known = Params(case["params"])
    name, model = case["case"], model_of("dpad", group["checkpoint"])
    for fixed in ("return_dict_in_generate", "output_history"):
        known.pop(fixed, None)
    dual = known.pop("dual_cache", False)
    cache = (mz.DualCache if dual else mz.PrefixCache)(first_alone=True) if known.pop("use_cache", False) else mz.NoCache()
    assert (known.pop("temperature"), known.pop("top_p"), known.pop("top_k"), known.pop("alg_temp")) == (0.0, None, None, 0.0)
    eos = known.pop("eos", model.config.stop_ids[0])
    stop = "block" if known.pop("early_termination", False) else "off"
    length, steps, alg = known.pop("max_new_tokens"), known.pop("steps"), known.pop("alg")
    block = known.pop("block_length", None)
    shared = {"gen_length": length, "block_length": block, "steps": steps, "sampling": "categorical", "early_stop": stop, "reuse": False, "cache": cache}
    suffix = mz.Full()
    if known.pop("dropout", None):
        for parameter in ("window", "sigma", "scale", "preserved_tokens"):
            known.pop(parameter, None)
        suffix = Replay(tuple(data[f"kept_suffix_block{b}"] for b in range(case["blocks_run"])))
    if "threshold" in known:
        recipe = mz.Recipe(**shared, suffix=suffix, commit=mz.Threshold(known.pop("threshold")))
    else:
        recipe = mz.Recipe(**shared, suffix=suffix, commit=Timed(start=0 if block is None else 1), confidence=CONFIDENCE[alg])
    known.done(name)
    tokens, lengths = with_stop(model, eos, data, recipe)
    assert torch.equal(tokens[0], data["tokens"].long().reshape(-1))
    assert lengths == data["forward_lengths"].tolist()


def run_delayed(group, case, data):
    """dKV-Cache-Decode on LLaDA."""
    known = Params(case["params"])
    assert (known.pop("temperature"), known.pop("remasking")) == (0.0, "low_confidence")
    refresh = known.pop("cache_reloading_step", 1)
    cache = mz.DelayedCache(refresh) if known.pop("enable_cache") else mz.NoCache()
    recipe = mz.Recipe(gen_length=known.pop("gen_length"), block_length=known.pop("block_length"), steps=known.pop("steps"), cache=cache, early_stop="off")
    known.done(case["case"])
    tokens, lengths, _ = records(model_of("dpad", group["checkpoint"]), data["prompt_ids"].long().reshape(1, -1), recipe)
    assert torch.equal(tokens[0], data["tokens"].long().reshape(-1))
    assert lengths == data["forward_lengths"].tolist()


@dataclasses.dataclass(frozen=True)
class Recited:
    """The rule `Shuffled` with the orders of a golden run, block by block."""

    scores: list

    def begin(self, steps, open):
        shuffling = Shuffling(steps, open)
        drawn = self.scores.pop(0)[None]
        shuffling.scores = lambda generators: drawn
        return shuffling


def run_greedy(group, case, data):
    """dKV-Cache-Greedy on LLaDA."""
    known = Params(case["params"])
    assert (known.pop("temperature"), known.pop("remasking"), known.pop("enable_cache")) == (0.0, "random", True)
    cache = mz.GreedyCache(known.pop("cache_reloading_step"), known.pop("window_size"))
    gen_length, width, start = known.pop("gen_length"), known.pop("block_length"), len(data["prompt_ids"])
    recipe = mz.Recipe(gen_length, width, known.pop("steps"), commit=mz.Shuffled(), cache=cache, early_stop="off")
    known.done(case["case"])
    scores = [row[start + i * width : start + (i + 1) * width] for i, row in enumerate(data["random_scores"])]
    object.__setattr__(recipe, "commit", Recited(scores))
    tokens, lengths, _ = records(model_of("dpad", group["checkpoint"]), data["prompt_ids"].long().reshape(1, -1), recipe)
    assert torch.equal(tokens[0], data["tokens"].long().reshape(-1))
    assert lengths == data["forward_lengths"].tolist()


def run_delayed_dream(group, case, data):
    """dKV-Cache on Dream: the prompt, what is decided, or both, on a canvas without blocks."""
    known = Params(case["params"])
    assert (known.pop("temperature"), known.pop("top_p"), known.pop("top_k"), known.pop("alg_temp")) == (0.0, None, None, 0.0)
    for fixed in ("return_dict_in_generate", "output_history"):
        known.pop(fixed, None)
    kind, shift, refresh = known.pop("cache_type", "none"), known.pop("shift_type", "none"), known.pop("cache_steps", 1)
    delayed = mz.DelayedCache(refresh, prompt=kind == "pd", compat=shift)
    caches = {"none": mz.NoCache(), "prefill": mz.PromptCache(), "decoded": delayed, "pd": delayed}
    assert known.pop("use_cache", False) == (kind != "none")
    recipe = mz.Recipe(
        gen_length=known.pop("max_new_tokens"),
        block_length=None,
        steps=known.pop("steps"),
        commit=Timed(),
        sampling="categorical",
        confidence=CONFIDENCE[known.pop("alg")],
        cache=caches[kind],
        early_stop="off",
        reuse=False,
    )
    known.done(case["case"])
    tokens, lengths, _ = records(model_of("dpad", group["checkpoint"]), data["prompt_ids"].long().reshape(1, -1), recipe)
    assert torch.equal(tokens[0], data["tokens"].long().reshape(-1))
    assert lengths == data["forward_lengths"].tolist()


def run_features(group, case, data):
    """dLLM-Cache on LLaDA (one block or several) and Dream (no blocks)."""
    known = Params(case["params"])
    for fixed in ("return_dict_in_generate", "output_history"):
        known.pop(fixed, None)
    for off in ("temperature", "alg_temp", "top_p", "top_k"):
        assert not known.pop(off, None)
    settings = case.get("cache")
    cache = mz.FeatureCache(settings["prompt_interval_steps"], settings["gen_interval_steps"], settings["transfer_ratio"]) if settings else mz.NoCache()
    shared = {"steps": known.pop("steps"), "cache": cache, "early_stop": "off", "reuse": False}
    if "alg" in known:
        sampling = {"commit": Timed(), "sampling": "categorical", "confidence": CONFIDENCE[known.pop("alg")]}
        recipe = mz.Recipe(gen_length=known.pop("max_new_tokens"), block_length=None, **sampling, **shared)
    else:
        recipe = mz.Recipe(gen_length=known.pop("gen_length"), block_length=known.pop("block_length"), **shared)
    known.done(case["case"])
    tokens, lengths, _ = records(model_of("dpad", group["checkpoint"]), data["prompt_ids"].long().reshape(1, -1), recipe)
    assert torch.equal(tokens[0], data["tokens"].long().reshape(-1))
    assert len(lengths) == case["forwards"]


def run_positions(group, case, data):
    """Single forwards on non-contiguous positions: all computed, prefix from memory, block only."""
    model = model_of("dpad", case["checkpoint"])
    if "input_ids" in data:
        torch.testing.assert_close(model(data["input_ids"].long().reshape(1, -1))[0], data["logits"].reshape(-1, model.config.vocab_size), atol=ATOL, rtol=0)
        return
    at = data["position_ids"].long()
    before, after = data["input_ids_S0"].long(), data["input_ids_S1"].long()
    torch.testing.assert_close(model(before[None], at)[0], data["logits_full_S0"], atol=ATOL, rtol=0)
    torch.testing.assert_close(model(after[None], at)[0], data["logits_full_S1"], atol=ATOL, rtol=0)
    for field, rows in (
        ("logits_prefixcache_S1", at >= case["block_start"]),
        ("logits_dualcache_S1", (at >= case["block_start"]) & (at < case["block_end"])),
    ):
        memory = model.memory(1, case["total_seq_len"])
        model(before[None], at, memory=memory)
        logits = model(after[rows][None], at[rows], over=at, memory=memory)[0]
        torch.testing.assert_close(logits, data[field], atol=ATOL, rtol=0)


def run_block_diffusion(group, case, data):
    """BD3-LM: a noisy third block after two clean ones, under the block-causal mask and from memory; and the training pass over noisy and clean text."""
    model = model_of("dpad", case["checkpoint"])
    size = case["block_size"]
    assert (model.config.block_length, model.config.mask_id) == (size, case["mask_id"])
    sample = data["sample_input"].long()[None]
    torch.testing.assert_close(model(sample)[0], data["logits_sample_masked"], atol=ATOL, rtol=0)
    clean, noisy = data["x0"].long()[None], data["xt"].long()[None]
    memory = model.memory(1, clean.shape[1])
    for start in range(0, clean.shape[1], size):
        at, over = torch.arange(start, start + size), torch.arange(start + size)
        logits = model(noisy[:, at], at, over=over, memory=memory)[0]
        torch.testing.assert_close(logits, data["logits_train"][at], atol=ATOL, rtol=0)
        if start == 2 * size:
            torch.testing.assert_close(logits, data["logits_sample_kvcache_block2"], atol=ATOL, rtol=0)
        model(clean[:, at], at, over=over, memory=memory)


def run_sampler_draws(group, case, data):
    distance = torch.arange(case["suffix_len"])
    probability = keep_probability(distance, case["window"], case["k"], case["a"])
    kept = ((data.get("uniform", distance) < probability) & sliding_window(distance, case["window"])).nonzero()[:, 0]
    assert kept.tolist() == [d for d in data["kept_offsets"].tolist() if d >= 0]


def run_sampler_stats(group, case, data):
    """Many draws of our own samplers against the official keep frequencies."""
    draws, suffix = 2000, case["suffix_len"]
    strategy = mz.DPad(case["window"], case["k"], case["a"]) if "k" in case else mz.UniformDropout(case["number"], case["window"])
    canvas = mz.Canvas.blank([torch.zeros(1, dtype=torch.long)], case["gen_length"], 1, torch.device("cpu"))
    visible = strategy.begin(canvas, torch.Generator().manual_seed(0))
    block = mz.Block(0, canvas.length - suffix - 1, canvas.length - suffix)
    kept = torch.zeros(draws, suffix)
    for draw in kept:
        positions = visible(block)
        draw[positions[positions >= block.end] - block.end] = 1
    mean, spread = kept.sum(1).mean().item(), case.get("expected_std", case.get("std_kept", 0.0))
    assert abs(mean - case.get("expected_kept", case["mean_kept"])) <= 4 * spread / draws**0.5 + 1e-6
    if "keep_threshold" in data:
        p = data["keep_threshold"][:suffix].clamp(max=1)
        p = torch.nn.functional.pad(p, (0, suffix - len(p)))
        assert ((kept.mean(0) - p).abs() <= 5 * (p * (1 - p) / draws).sqrt() + 1e-6).all()


DPAD = {
    "fastdllm_llada": run_blocks,
    "dpad_llada": run_blocks,
    "fastdllm_20250627_llada": run_blocks,
    "fastdllm_dream_fullseq": run_dream,
    "dpad_dream": run_dream,
    "dkv_decode_llada": run_delayed,
    "dkv_greedy_llada": run_greedy,
    "dkv_dream": run_delayed_dream,
    "dkv_dream_pd": run_delayed_dream,
    "dllmcache_llada": run_features,
    "dllmcache_dream": run_features,
    "forward_llada": run_positions,
    "forward_dream": run_positions,
    "forward_bd3lm": run_block_diffusion,
    "sampler_draws": run_sampler_draws,
    "sampler_stats": run_sampler_stats,
}


@pytest.mark.parametrize(
    ("group", "case"), [(g, c) for g in MANIFESTS.get("dpad", {}).get("groups", []) for c in g["cases"]], ids=lambda part: part.get("case", "") or part["group"]
)
def test_dpad(group, case):
    runner = DPAD.get(group["group"])
    assert runner, f"golden group {group['group']!r} is not understood; known: {', '.join(DPAD)}"
    everything = tensors_of("dpad", group["file"])
    start = case["case"] + "."
    runner(group, case, {name.removeprefix(start): tensor for name, tensor in everything.items() if name.startswith(start)})
    RAN[group["group"]] += 1


SINK = [(kind, tag, case) for kind in ("llada_tiny", "dream_tiny") for tag, case in MANIFESTS.get("sink", {}).get(kind, {}).items()]


@pytest.mark.parametrize(("kind", "tag", "case"), SINK, ids=[f"{kind}-{tag}" for kind, tag, _ in SINK])
def test_sink(kind, tag, case):
    golden_sink.run(GOLDEN / "sink" / kind, tag, case)
    RAN["sink"] += 1


@pytest.mark.skipif(not SINK, reason="no sink folder among the golden data")
def test_sink_figures():
    folder = GOLDEN / "sink"
    for kind in ("llada_tiny", "dream_tiny"):
        if kind in MANIFESTS["sink"]:
            golden_sink.check_dynamics(folder / kind)
    golden_sink.check_example(folder / "figure_example.json")
    golden_sink.likelihood(folder / "likelihood")
