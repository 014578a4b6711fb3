"""Runs the golden cases of Sink-Aware Pruning and its baselines (`sink/manifest.json`); `test_golden.py` collects them."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import mezzotint as mz
from mezzotint.analysis import SinkRule, dynamics
from mezzotint.analysis.recording import HeadMass
from mezzotint.attention.observed import Watched
from mezzotint.evaluation.comparison import Masked, judge
from mezzotint.evaluation.likelihood import Draws, costs
from mezzotint.models.families import family_of
from mezzotint.models.families.names import translate
from mezzotint.models.loading import read_config
from mezzotint.prune.calibration import Calibration
from mezzotint.prune.matrices import NAMES, layers_of, matrices
from mezzotint.prune.sparsity import Sparsity
from mezzotint.prune.unstructured import sparsify

METHODS = {"magnitude": "magnitude", "wanda": "wanda", "sparsegpt": "sparsegpt", "sink": "sink", "sink_sgpt": "sink-sparsegpt"}


@cache
def dense(folder: Path):
    return mz.load_model(folder / "checkpoint")


def theirs(folder: Path) -> dict[str, str]:
    """Our matrix name -> the name in the golden files."""
    names = translate(family_of(read_config(folder / "checkpoint")), dense(folder).config)
    return {ours.removesuffix(".weight"): name.removesuffix(".weight") for ours, name in names.items() if ours.removesuffix(".weight").endswith(NAMES)}


def settings_of(case: dict) -> Sparsity:
    """A run's parameters; one that is not understood fails."""
    known = {k: v for k, v in case.items() if k not in ("files", "pruned_per_weight", "global_sparsity", "calibration", "sampled_steps")}
    n, m = known.pop("nm")
    rest = {"method": METHODS[known.pop("method")], "ratio": known.pop("sparsity_ratio"), "pattern": f"{n}:{m}" if m else "none"}
    if known.pop("use_variant", False):
        rest["adaptive"] = True
    if "percdamp" in known:
        rest["damping"] = known.pop("percdamp")
        assert known.pop("blocksize") == 128
    if "sink_std" in known:
        rest["rule"] = SinkRule(std=known.pop("sink_std"), alpha=known.pop("sink_alpha"))
        assert (known.pop("diffusion_steps"), known.pop("sample_interval"), known.pop("noise_eps")) == (50, 5, 0.001)
        rest["batch"] = known.pop("batch_size", 1)
    assert not known, f"parameters not understood: {known}"
    return Sparsity(**rest)


def noised_ids(folder: Path, tag: str) -> torch.Tensor | None:
    """The views a run was made with; runs that did not save theirs used those of the run they are a variation of."""
    for name in (tag, tag.replace("4of8", "u50").replace("2of4", "u50"), *(p.name for p in sorted(folder.glob("runs/sink*")) if "bs3" not in p.name)):
        file = folder / "runs" / name / "extra.safetensors"
        if file.exists():
            extra = load_file(file)
            if "noisy_ids" in extra:
                return extra["noisy_ids"].long()
    return None


def run(folder: Path, tag: str, case: dict) -> None:
    settings = settings_of(case)
    extra = load_file(folder / "runs" / tag / "extra.safetensors")
    shared = load_file(folder / "calibration.safetensors")
    views = noised_ids(folder, tag) if settings.method.startswith("sink") else None
    data = Calibration(Calibration.of(shared["calib_clean_ids"]).samples, drawn=views)
    wrong_on_purpose = tag == "sink_2of4_request"
    if wrong_on_purpose:
        settings = Sparsity("sink", 0.5)
    pruned = sparsify(dense(folder), data, settings).model
    official = np.load(folder / "runs" / tag / "masks.npz")
    weights = folder / "runs" / tag / "weights.safetensors"
    updated = load_file(weights) if weights.exists() else {}
    for index, layer in enumerate(layers_of(pruned)):
        for name, linear in matrices(layer).items():
            key = theirs(folder)[f"layers.{index}.{name}"]
            differing = int(((linear.weight == 0) != torch.from_numpy(official[key])).sum())
            assert differing == 0, f"{key}: {differing} bits differ"
            for stored in (key, f"{key}.weight"):
                if stored in updated:
                    torch.testing.assert_close(linear.weight, updated[stored], atol=1e-4, rtol=0)
    with torch.no_grad():
        logits = pruned(shared["eval_ids_in"])
        torch.testing.assert_close(logits, extra["logits_eval"], atol=1e-3, rtol=0)
        torch.testing.assert_close(dense(folder)(shared["eval_ids_in"]), shared["dense_logits_eval"], atol=1e-3, rtol=0)
    if wrong_on_purpose:
        ours = sparsify(dense(folder), data, Sparsity("sink", 0.5, "2:4")).model
        for layer in layers_of(ours):
            for linear in matrices(layer).values():
                assert ((linear.weight == 0).unflatten(1, (-1, 4)).sum(-1) == 2).all()
    masses(folder, extra)


@torch.no_grad()
def masses(folder: Path, extra: dict) -> None:
    """Attention masses of the first two samples' forwards (the masks depend on all of them)."""
    if "mass" not in extra:
        return
    model = dense(folder)
    for sample, views in enumerate(extra["noisy_ids"][:2].long()):
        for level, ids in enumerate(views):
            seen = HeadMass()
            model.hidden(ids[None], attend=Watched(seen))
            torch.testing.assert_close(seen.total()[0], extra["mass"][sample, level], atol=1e-4, rtol=0)
            for name, ours in (("layer_mass", torch.stack(seen.layers).sum(2)[:, 0]), ("head_mass", torch.stack(seen.layers)[:, 0])):
                if name in extra:
                    torch.testing.assert_close(ours, extra[name][sample, level], atol=1e-4, rtol=0)


def check_dynamics(folder: Path) -> None:
    """Our own definitions, computed independently in float64."""
    reference = np.load(folder / "dynamics_reference.npz")
    names = {"persistence": "persistence_jaccard"}
    extra = next(e for p in sorted(folder.glob("runs/sink_u50*/extra.safetensors")) if "bs3" not in str(p) and "mass" in (e := load_file(p)))
    whole = dynamics(extra["mass"])
    figures = ("spatial_variance", "temporal_variance", "temporal_variance_norm", "persistence", "dominance", "top1_share", "instability")
    for figure in figures:
        torch.testing.assert_close(getattr(whole, figure), torch.from_numpy(reference[f"global.{names.get(figure, figure)}"]), atol=1e-9, rtol=1e-9)
    assert torch.equal(whole.sink_set, torch.from_numpy(reference["global.sink_set"]))
    if "head_mass" not in extra:
        return
    heads = dynamics(extra["head_mass"].permute(0, 2, 3, 1, 4))
    for figure in figures:
        torch.testing.assert_close(getattr(heads, figure).mean(0), torch.from_numpy(reference[f"head.{names.get(figure, figure)}"]), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(heads.centroid, torch.from_numpy(reference["head.centroid"]), atol=1e-9, rtol=1e-9)


def check_example(path: Path) -> None:
    """The worked example of the pipeline figure: the epsilon rule, the weighted activations, their norms and Hessian."""
    example = json.loads(path.read_text())
    mass, x = torch.tensor(example["attention_mass"]).double(), torch.tensor(example["X"]).double()
    score = SinkRule("epsilon", eps=0.01).score(mass)
    assert score.tolist() == example["sink_score_hard"]
    weighted = x * (1 - score)[:, None]
    assert weighted.tolist() == example["X_tilde"]
    assert (weighted.T @ weighted).tolist() == example["hessian_XtX"]
    torch.testing.assert_close(torch.linalg.vector_norm(weighted, dim=0), torch.tensor(example["wanda_col_norms_printed"]).double(), atol=0.01, rtol=0)
    assert not SinkRule().score(mass).round().any()


def likelihood(folder: Path) -> None:
    """The official Monte-Carlo values, from the saved perturbed sequences."""
    expected = json.loads((folder / "manifest.json").read_text())
    llada, dream = (load_file(folder / f"{name}.safetensors") for name in ("llada", "dream"))
    model, mask_id = dense(folder.parent / "llada_tiny"), expected["llada"]["mask_id"]
    whole = torch.cat((llada["prompt"], llada["answer"]))
    start = len(llada["prompt"])
    for scale in (0.0, 0.5):
        tokens, share = llada[f"ll_cfg{scale}_perturbed"], llada[f"ll_cfg{scale}_pmask"]
        total = 0.0
        for batch, p in zip(tokens, share, strict=True):
            hidden = batch == mask_id
            cost = costs(model, whole, start, Draws(hidden[:, start:], hidden.sum(1)), cfg_scale=scale)
            total += float((cost / p[:, start:]).sum() / len(batch))
        assert -total / len(tokens) == pytest.approx(expected["llada"]["results"][f"log_likelihood_cfg{scale}"], rel=1e-5)
    tokens = llada["ppl_perturbed"]
    draws = Masked(tokens, whole.expand(len(tokens), -1), tokens == mask_id, torch.zeros(len(tokens), dtype=torch.long))
    assert judge(model, [draws]).masked_ppl == pytest.approx(expected["llada"]["results"]["ppl_block_mc8"], rel=1e-5)
    model = dense(folder.parent / "dream_tiny")
    whole = torch.cat((dream["prompt"], dream["answer"]))
    start = len(dream["prompt"])
    for kind, count in expected["dream"]["nonempty_draws"].items():
        tokens, share = dream[f"{kind}_perturbed_full"].clone(), dream[f"{kind}_pmask"]
        if kind == "ftb":
            tokens[:, :start] = whole[:start]
        if kind == "btf":
            tokens[:, start:] = whole[start:]
        hidden = tokens == mask_id
        cost = costs(model, whole, 0, Draws(hidden, hidden.sum(1)))
        assert float((cost / share).sum()) / count == pytest.approx(expected["dream"]["results"][f"nll_{kind}_mc8"], rel=1e-5)
