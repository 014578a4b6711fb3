"""Ports of the further families, on tiny checkpoints of each (`families/` of the golden folder): forwards and decodings.

Every case of every manifest is run; a family, kind or parameter that is not understood fails.
"""

import copy
import dataclasses
import json
from functools import cache

import pytest
import torch
from conftest import GOLDEN, RAN
from safetensors.torch import load_file

import mezzotint as mz

ATOL = 2e-3
FOLDER = GOLDEN / "families"
MANIFESTS = {path.parent.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*/manifest.json"))}
CASES = [(family, name) for family, manifest in MANIFESTS.items() for name in manifest["cases"]]
NOT_SETTINGS = ("kind", "checkpoint", "margins", "tensors", "note", "source", "mini_fp64_maxerr", "edits")


def test_there_are_manifests():
    assert MANIFESTS, f"{FOLDER} holds no folder with a manifest.json"


@cache
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


GENERATE = {"llada_moe": run_llada, "illada": run_llada}


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
