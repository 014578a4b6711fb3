"""Pruning: what is removed, what it costs, that the bound on quality holds, and that checkpoints come back as they went."""

import copy
import dataclasses
import json
import math
import signal

import pytest
import torch
from conftest import HERE
from safetensors.torch import load_file

import mezzotint as mz
from mezzotint.analysis import SinkRule, compute_sink_instability, dynamics, record_generation, record_noise
from mezzotint.cli import main
from mezzotint.describing import describe
from mezzotint.evaluation import comparison
from mezzotint.evaluation.comparison import MEASURES, Quality, drop, judge, judge_beside, log_probabilities, masked_rows
from mezzotint.evaluation.likelihood import bound
from mezzotint.kernels.column_mass import column_mass
from mezzotint.models.bitmask import pack, unpack
from mezzotint.models.quantised import check_groups, stored_bytes
from mezzotint.models.transformer import Transformer
from mezzotint.prune import masks, speed
from mezzotint.prune.allocation import Choices, Curve, Plan, Price, cheapest, even
from mezzotint.prune.calibration import Calibration, Sample, from_suite, from_text
from mezzotint.prune.capacity import nest
from mezzotint.prune.checkpoint import save
from mezzotint.prune.importance import Ranking, removal_order
from mezzotint.prune.journal import Journal
from mezzotint.prune.matrices import layers_of, matrices, replace, sparsity_of, twin
from mezzotint.prune.pruner import QuantisedError, SinkAwarePruner, ThresholdError
from mezzotint.prune.refit import Moments, refit
from mezzotint.prune.search import Search
from mezzotint.prune.settings import PRESETS, Goal, Preset, Structured
from mezzotint.prune.sparsegpt import solve
from mezzotint.prune.sparsity import METHODS, Sparsity
from mezzotint.prune.structure import channels, cut, flops, head_units, keep, settle, shape_of, size_of
from mezzotint.prune.unstructured import importances, sparsify

FLOPS = Structured(cost="flops", length=64, predicted=16)
SOURCES = {"llada": HERE / "dpad" / "ckpt_llada_tiny", "dream": HERE / "dpad" / "ckpt_dream_tiny"}


@pytest.fixture(scope="module")
def ids(tiny):
    return torch.randint(5, 100, (8, 32), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=("llada", "dream"))
def family(request, tiny):
    return request.param, tiny[request.param]


def test_column_mass_is_the_sum_of_the_softmax_without_padding():
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 4, 7, 8, generator=generator), torch.randn(2, 2, 9, 8, generator=generator)
    rows, keys = torch.ones(2, 7, dtype=torch.bool), torch.ones(2, 9, dtype=torch.bool)
    rows[1, :2] = keys[1, :3] = False
    scores = q @ k.repeat_interleave(2, 1).transpose(-1, -2) / 8**0.5
    shares = scores.masked_fill(~keys[:, None, None], -torch.inf).softmax(-1) * rows[:, None, :, None]
    torch.testing.assert_close(column_mass(q, k, rows=rows, keys=keys), shares.sum(-2))


def test_a_sink_that_moves_is_unstable_and_one_that_stays_is_not():
    still = torch.full((10, 16), 0.01)
    still[:, 3] = 0.85
    moving = torch.full((10, 16), 0.01)
    moving[torch.arange(10), (torch.arange(10) * 7) % 16] = 0.85
    a, b = dynamics(still), dynamics(moving)
    assert float(a.instability) == pytest.approx(0)
    assert float(a.persistence) == 1
    assert float(a.run_length) == 1
    assert float(b.instability) > 0.5
    assert float(b.movement) > 0.8
    assert compute_sink_instability(moving[:, None].expand(-1, 16, -1)) == pytest.approx(float(b.instability))


def test_recordings_of_noise_and_of_a_generation_hold_shares(tiny):
    model = tiny["llada"]
    prompt = torch.randint(5, 100, (1, 12), generator=torch.Generator().manual_seed(1))
    noise = record_noise(model, prompt)
    recipe = mz.Recipe(gen_length=16, block_length=8, steps=8)
    real = record_generation(model, prompt, recipe, every=2)
    assert noise.share.shape == (1, model.config.layers, model.config.heads, 10, 12)
    assert real.share.shape == (1, model.config.layers, model.config.heads, 4, 28)
    for recording in (noise, real):
        torch.testing.assert_close(recording.share.sum(-1), torch.ones(recording.share.shape[:-1]))
    assert noise.levels.tolist() == sorted(noise.levels.tolist(), reverse=True)
    with pytest.raises(ValueError, match="without cache"):
        record_generation(model, prompt, recipe.with_(cache=mz.DualCache()))


def test_watching_changes_nothing(tiny):
    from mezzotint.attention.observed import Observed

    prompt = torch.randint(5, 100, (1, 12), generator=torch.Generator().manual_seed(1))
    recipe = mz.Recipe(gen_length=16, block_length=8)
    plain = mz.denoise_all(tiny["llada"], prompt, recipe).tokens
    seen = []
    watched = recipe.with_(attention=Observed(lambda moment: lambda *call: seen.append(call[0])))
    assert torch.equal(mz.denoise_all(tiny["llada"], prompt, watched).tokens, plain)
    assert len(seen) == 16 * tiny["llada"].config.layers


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pattern", ["none", "2:4"])
def test_every_method_prunes_what_is_asked_and_leaves_the_dense_model_alone(tiny, ids, method, pattern):
    model = tiny["llada"]
    before = [p.clone() for p in model.parameters()]
    found = sparsify(model, Calibration(Calibration.of(ids[:3]).samples, views=3), Sparsity(method, 0.5, pattern))
    assert found.report["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert sparsity_of(found.model) == found.report["sparsity"]
    for a, b in zip(before, model.parameters(), strict=True):
        assert torch.equal(a, b)
    if pattern == "2:4":
        for layer in layers_of(found.model):
            for linear in matrices(layer).values():
                assert ((linear.weight == 0).unflatten(1, (-1, 4)).sum(-1) >= 2).all()


def test_sink_weighting_and_its_variants_change_the_mask(tiny, ids):
    def bits(**options):
        model = sparsify(tiny["llada"], ids[:3], Sparsity("sink", **options)).model
        return torch.cat([(linear.weight == 0).flatten() for layer in layers_of(model) for linear in matrices(layer).values()])

    plain = bits()
    for options in (
        {"rule": SinkRule(std=1e6)},
        {"average": "mean"},
        {"noise": "uniform"},
        {"sequential": True},
        {"early": 0.1},
        {"rule": SinkRule(std=0.5), "instability": True},
    ):
        assert not torch.equal(plain, bits(**options)), options


def test_sparsegpt_makes_up_for_what_it_prunes():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 12, generator=generator) @ torch.randn(12, 64, generator=generator) + 0.3 * torch.randn(400, 64, generator=generator)
    w = torch.randn(48, 64, generator=generator)
    updated, pruned = solve(w, 2 * x.T @ x / 400, 0.5, None)
    zeroed = w.masked_fill(masks.per_row(w.abs() * x.norm(dim=0), 0.5), 0)
    assert (updated == 0)[pruned].all()
    assert ((updated - w) @ x.T).norm() < 0.7 * ((zeroed - w) @ x.T).norm()


def test_a_hessian_that_cannot_be_factored_falls_back_and_says_so(tiny):
    model = twin(tiny["llada"])
    replace(layers_of(model)[0].attention_norm, "weight", torch.full_like(layers_of(model)[0].attention_norm.weight, torch.inf))
    with pytest.raises(ValueError, match="has no effect"):
        Sparsity("wanda", damping=0.1)
    replace(layers_of(model)[0].attention_norm, "weight", torch.full_like(layers_of(model)[0].attention_norm.weight, 1e30))
    found = sparsify(model, torch.randint(5, 100, (4, 16)), Sparsity("sparsegpt"))
    assert "layers.0.attention.q" in found.report["fell_back"]


def test_a_resumed_run_still_says_what_fell_back(tiny, tmp_path):
    model, ids = twin(tiny["llada"]), torch.randint(5, 100, (4, 16))
    replace(layers_of(model)[0].attention_norm, "weight", torch.full_like(layers_of(model)[0].attention_norm.weight, 1e30))
    whole = sparsify(model, ids, Sparsity("sparsegpt"), journal=Journal(tmp_path / "j")).report
    resumed = sparsify(model, ids, Sparsity("sparsegpt"), journal=Journal(tmp_path / "j")).report
    assert resumed["fell_back"] == whole["fell_back"] != []


def test_removing_heads_and_neurons_equals_silencing_them(family, ids):
    _, model = family
    shape = shape_of(layers_of(model)[0])
    unit = head_units(shape, torch.arange(shape.heads).float(), "balanced")[0]
    kept = keep(shape, unit, range(5, 29))
    smaller, silenced = twin(model), twin(model)
    cut(smaller, 0, kept)
    settle(smaller)
    layer = layers_of(silenced)[0]
    for linear, columns in ((layer.attention.out, channels(unit, model.config.head_dim)), (layer.mlp.down, torch.arange(5, 29))):
        weight = linear.weight.clone()
        weight[:, columns] = 0
        replace(linear, "weight", weight)
    with torch.no_grad():
        torch.testing.assert_close(smaller(ids), silenced(ids), atol=1e-5, rtol=1e-5)
    assert size_of(smaller)["parameters"] == smaller.config.parameters() < model.config.parameters()


def test_grouped_heads_stay_balanced_or_go_as_groups():
    from mezzotint.models.shape import Shape

    shape = Shape(8, 2, 16)
    score = torch.tensor([1.0, 4, 2, 3, 8, 5, 6, 7])
    assert head_units(shape, score, "balanced")[0] == (1, 4)
    assert head_units(shape, score, "group")[0] == (4, 5, 6, 7)
    kept = keep(shape, (4, 5, 6, 7), ())
    assert (kept.heads, kept.kv_heads) == ((0, 1, 2, 3), (0,))


def test_a_layer_of_another_size_works_with_caches_and_every_recipe(family, ids):
    _, model = family
    pruned = SinkAwarePruner(model, ids, settings=FLOPS).prune(1.2, 0.9)
    sizes = {(shape.heads, shape.kv_heads) for shape in pruned.config.shapes}
    assert pruned.report["speedup"] >= 1.19, sizes
    prompt = ids[:2, :12]
    plain = mz.denoise_all(pruned, prompt, mz.Recipe(gen_length=16, block_length=8)).tokens
    for cache in (mz.PrefixCache(), mz.DualCache(), mz.FeatureCache(prompt=1, response=1)):
        cached = mz.denoise_all(pruned, prompt, mz.Recipe(gen_length=16, block_length=8, max_tokens=32, cache=cache))
        assert cached.tokens.shape == (2, 44)
    assert not (plain[:, 12:] == model.config.mask_id).any()


def test_the_bound_on_quality_wins_over_the_speed(tiny, ids):
    model = tiny["llada"]
    pruner = SinkAwarePruner(model, ids, settings=FLOPS)
    loose = pruner.prune(1.3, 5.0)
    assert loose.report["reached"]
    assert loose.report["speedup"] == pytest.approx(1.3, abs=0.05)
    assert size_of(loose)["parameters"] < size_of(model)["parameters"]
    measured = pruner.validation.drop(loose, "nll").value
    assert loose.report["quality_drop"] == pytest.approx(measured)
    tight = pruner.prune(4.0, 1e-6)
    assert tight.report["quality_drop"] <= 1e-6
    assert not tight.report["reached"]
    with pytest.raises(ThresholdError, match=r"target_speedup=4\.0 was not reached"):
        pruner.prune(4.0, 1e-6, strict=True)


def test_a_small_target_is_not_reached_by_doing_nothing(tiny, ids):
    pruner = SinkAwarePruner(tiny["llada"], ids, settings=Structured(most=0.01, cost="flops"))
    with pytest.raises(ThresholdError, match=r"target_speedup=1\.05 was not reached"):
        pruner.prune(1.05, 0.01, strict=True)
    assert not pruner.prune(1.01, 0.01).report["reached"]


@pytest.mark.parametrize("target", [1.05, 1.11, 1.25])
def test_what_is_planned_by_arithmetic_is_reached_in_full(family, ids, target):
    _, model = family
    pruned = SinkAwarePruner(model, ids, settings=FLOPS).prune(target, 9.0)
    assert pruned.report["reached"]
    assert pruned.report["speedup"] >= target


def test_the_refit_comes_nearer_to_the_target_than_a_bias_or_nothing():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 900, 24, generator=generator) @ torch.randn(24, 24, generator=generator) + 2
    weight = torch.randn(10, 24, generator=generator)
    damaged = x + 0.3 * torch.randn(x.shape, generator=generator)
    moments = Moments()
    moments.add(damaged[:, :600], None, x[:, :600] @ weight.T)
    kept = torch.arange(16)
    errors = {}
    for repair in ("none", "bias", "refit"):
        found = refit(weight, None, moments, kept, repair)
        errors[repair] = float((damaged[:, 600:, :16] @ found.weight.T + found.bias - x[:, 600:] @ weight.T).norm())
    assert errors["refit"] < 0.8 * errors["bias"]
    assert errors["bias"] < errors["none"]


def test_of_two_neurons_that_say_the_same_only_one_goes():
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 500, 6, generator=generator), torch.randn(8, 6, generator=generator)
    weight /= weight.norm(dim=0)
    x[..., 4] = x[..., 3]  # either can stand in for the other, both are strong
    x[..., 5] *= 0.5
    moments = Moments()
    moments.add(x, None)
    alone = [torch.tensor([i]) for i in range(6)]
    order = removal_order(weight, moments, alone, 6, "reconstruction", Ranking("importance", 1.0))
    assert sorted(order) == list(range(6))
    assert order[0] in (3, 4)
    assert order[1] == 5
    by_energy = removal_order(weight, moments, alone, 2, "energy", Ranking("importance", 1.0))
    assert by_energy[0] == 5
    restless = torch.tensor([9.0, 0, 0, 0, 0, 0])
    assert removal_order(weight, moments, alone, 1, "reconstruction", Ranking("instability", 1.0, restless)) == [0]
    assert removal_order(weight, moments, alone, 1, "reconstruction", Ranking("combined", 1.0, restless)) == [0]


def test_the_cheapest_plan_takes_from_where_it_costs_least_for_the_time():
    choices = Choices.of((4, 4), (32, 32), 0.75, 8, ())
    assert choices.neurons == ((0, 8, 16, 24),) * 2
    assert choices.units == ((0, 1, 2, 3),) * 2
    price = Price((0.2, 0.2), (0.2, 0.2), 1.0)
    curves = [
        Curve(0, "heads", (0, 1, 2, 3), (0.0, 9.0, 9.0, 9.0)),
        Curve(1, "heads", (0, 1, 2, 3), (0.0, 0.2, 0.4, 0.6)),
        Curve(0, "neurons", (0, 8, 16, 24), (0.0, 0.1, 0.2, 5.0)),
        Curve(1, "neurons", (0, 8, 16, 24), (0.0, 1.0, 2.0, 3.0)),
    ]
    plan = cheapest(curves, choices, price, 1.2)
    assert plan == Plan((0, 2), (16, 0))
    assert price.speedup(plan, choices) >= 1.2
    assert price.speedup(cheapest(curves, choices, price, 9.0), choices) == pytest.approx(1 / (1 - 0.6))
    assert curves[2].hull() == [(0, 0.0), (16, 0.2), (24, 5.0)]
    assert len({*even(choices, price, 1.2).units, *even(choices, price, 1.2).neurons}) == 2
    assert Choices.of((4,), (32,), 0.75, 8, (0,)).units == ((0,),)


def test_allocations_reach_the_speed_and_report_what_is_left(tiny, ids):
    for allocation in ("measured", "uniform"):
        pruned = SinkAwarePruner(tiny["llada"], ids, settings=dataclasses.replace(FLOPS, allocation=allocation)).prune(1.2, 9.0)
        assert pruned.report["speedup"] >= 1.2
        assert pruned.report["kept_neurons"] == [shape.mlp_size for shape in pruned.config.shapes]


def test_evaluate_reports_the_pruned_model_beside_the_dense_one(tiny, ids):
    pruner = SinkAwarePruner(tiny["dream"], ids, settings=FLOPS)
    pruned = pruner.prune(1.15, 5.0)
    found = pruner.evaluate(pruned, ids[:4] + 1, repeats=3)
    assert found["tokens_per_second"] > 0 < found["dense_tokens_per_second"]
    whole, left = ([sum(w.weight.numel() for w in matrices(layer).values()) for layer in layers_of(m)] for m in (tiny["dream"], pruned))
    assert found["sparsity"] == [1 - mine / theirs for mine, theirs in zip(left, whole, strict=True)]
    assert max(found["sparsity"]) > 0
    assert found["parameter_ratio"] == size_of(pruned)["parameters"] / size_of(tiny["dream"])["parameters"] < 1
    assert 0 <= found["agreement"] <= 1
    assert found["kl"] > 0
    assert found["speedup"] > 0
    assert found["quality_drop_threshold"] == 5.0
    same = pruner.evaluate(tiny["dream"], ids[:4], repeats=1)
    assert (same["quality_drop"], same["agreement"], set(same["sparsity"])) == (0, 1, {0})


def test_a_drop_is_counted_by_its_measure():
    samples = torch.tensor([0, 0, 1, 2, 2, 2])
    dense = Quality(torch.tensor([0.1, 0.2, 0.3]).double(), torch.tensor([5, 6, 7, 8, 9, 5]), torch.tensor([1, 1, 1, 0, 1, 0]).bool(), samples)
    changed = Quality(torch.tensor([0.2, 0.2, 0.5]).double(), torch.tensor([5, 6, 8, 7, 9, 6]), torch.tensor([1, 1, 0, 1, 1, 0]).bool(), samples)
    assert drop(changed, dense).value == pytest.approx(0.1 / 0.2)
    assert drop(changed, dense, "ppl").value == pytest.approx(math.exp(0.3) / math.exp(0.2) - 1)
    assert drop(changed, dense, "accuracy").value == 0
    assert drop(changed, dense, "agreement").value == pytest.approx(3 / 6)
    by_sample = [-1.0, 0.5, 0.5]  # how many more than half of its positions each sample changed
    assert drop(changed, dense, "agreement").error == pytest.approx(math.sqrt(3 / 2 * sum(x * x for x in by_sample)) / 6)
    assert {m: drop(dense, dense, m).value for m in MEASURES} == dict.fromkeys(MEASURES, 0)


@pytest.mark.parametrize("measure", MEASURES)
def test_the_bound_is_on_what_measure_says(tiny, ids, measure):
    pruner = SinkAwarePruner(tiny["llada"], ids, settings=FLOPS)
    pruned = pruner.prune(1.5, 0.04, measure=measure)
    assert pruned.report["quality_drop"] == pruner.validation.drop(pruned, measure).value <= 0.04
    assert len(pruned.report["drop_after_layer"]) == tiny["llada"].config.layers
    assert pruned.report["drop_after_layer"][-1] == pytest.approx(pruner.validation.brief.drop(pruned, measure).value)
    assert pruner.evaluate(pruned, ids[:4], repeats=1, answers=0)["measure"] == measure
    assert len(torch.cat([b.samples for b in pruner.validation.brief.rows]).unique()) == len(pruner.validation.dense.nll)


def test_layers_go_only_on_request(tiny, ids, tmp_path):
    torch.manual_seed(0)
    model = Transformer(dataclasses.replace(tiny["llada"].config, layers=8)).eval()
    assert SinkAwarePruner(model, ids, settings=FLOPS).prune(1.2, 10.0).report["layers_dropped"] == []
    pruned = SinkAwarePruner(model, ids, settings=dataclasses.replace(FLOPS, drop_layers=True, protect=(0,))).prune(1.2, 10.0)
    gone = pruned.report["layers_dropped"]
    assert 1 <= len(gone) <= 2
    assert 0 not in gone
    assert len(pruned.layers) == pruned.config.layers == 8 - len(gone)
    loaded = mz.load_model(save(pruned, tmp_path / "new", source=SOURCES["llada"]))
    assert loaded.config.layers == 8 - len(gone)
    with torch.no_grad():
        assert torch.equal(loaded(ids), pruned(ids))


def test_levels_share_their_matrices(family, ids):
    _, model = family
    nested = nest(SinkAwarePruner(model, ids, settings=FLOPS), (1.0, 0.75, 0.5))
    with torch.no_grad():
        torch.testing.assert_close(nested(ids), model(ids), atol=1e-4, rtol=1e-4)
        before = nested(ids)
        nested.set_capacity(0.5)
        assert nested.config.shapes[0].mlp_size == model.config.mlp_size // 2
        assert nested(ids).shape == before.shape
        assert nested.layers[0].mlp.gate.weight.data_ptr() == nested.at(1.0).layers[0].mlp.gate.weight.data_ptr()
        assert nested.layers[0].mlp.down.weight.data_ptr() == nested.at(1.0).layers[0].mlp.down.weight.data_ptr()
        nested.set_capacity(1.0)
        assert torch.equal(nested(ids), before)
    tokens = mz.denoise_all(nested, ids[:1, :8], mz.Recipe(gen_length=8, block_length=8)).tokens
    assert tokens.shape == (1, 16)
    with pytest.raises(ValueError, match=r"level=0\.6 is not one"):
        nested.set_capacity(0.6)
    with pytest.raises(ValueError, match="before `nest`"):
        nested.double()


def test_checkpoints_come_back_as_they_went(family, ids, tmp_path):
    name, model = family
    pruned = SinkAwarePruner(model, ids, settings=FLOPS).prune(1.2, 5.0)
    sparse = sparsify(model, ids, Sparsity("magnitude")).model
    for label, smaller, options in (("heads", pruned, {}), ("bits", sparse, {"compact": True}), ("plain", sparse, {})):
        folder = save(smaller, tmp_path / label, source=SOURCES[name], report={"x": 1}, **options)
        with torch.no_grad():
            assert torch.equal(mz.load_model(folder)(ids), smaller(ids))
        told = json.loads((folder / "pruning.json").read_text())
        assert told.pop("x") == 1
        assert [kept["heads"] for kept in told.get("kept", {}).values()] == [list(kept.heads) for kept in getattr(smaller, "kept", {}).values()]
    size = {p.name: (p / "model.safetensors").stat().st_size for p in tmp_path.iterdir()}
    assert size["bits"] < 0.75 * size["plain"]
    assert size["heads"] < size["plain"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bits", "heads", "plain"]


def test_an_export_keeps_the_mask_id_and_refuses_what_it_cannot_say(tmp_path):
    source = SOURCES["llada"]
    folder = save(mz.load_model(source, mask_id=150), tmp_path / "masked", source=source)
    assert mz.load_model(folder).config.mask_id == 150
    with pytest.raises(ValueError, match=r"rope_scaling=RopeScaling.* would be lost"):
        save(mz.load_model(source, rope_scaling="ntk:2"), tmp_path / "scaled", source=source)
    blocks = HERE / "families" / "a2d" / "a2d_qwen3_tiny"
    with pytest.raises(ValueError, match="block_causal=8 would be lost"):
        save(mz.load_model(blocks, mask_id=296, block_causal=8), tmp_path / "blocks", source=blocks)
    assert [p.name for p in tmp_path.iterdir()] == ["masked"]


def test_what_info_says_of_pruned_and_quantised_folders(tiny, ids, tmp_path, capsys):
    pytest.importorskip("torchao", reason="needs the extra `quant`")
    pruned = SinkAwarePruner(tiny["llada"], ids, settings=FLOPS).prune(1.2, 5.0)
    folder = save(pruned, tmp_path / "new", source=SOURCES["llada"], quantise="int8-weight")
    found, dense = describe(folder), describe(SOURCES["llada"])
    assert (found["quantised"], dense["quantised"], dense["pruned"]) == ("int8-weight", None, None)
    assert found["pruned"]["neurons"] == [shape.mlp_size for shape in pruned.config.shapes]
    linear = sum(m.weight.numel() for layer in layers_of(pruned) for m in matrices(layer).values())
    assert pruned.config.mlp_weights() + pruned.config.attention_weights() == linear
    assert found["weights_bytes"] == 4 * (found["parameters"] - linear) + linear
    assert describe(folder, weights="int8")["weights_bytes"] == found["weights_bytes"]
    assert main(["info", str(folder)]) == 0
    table = capsys.readouterr().out
    assert "int8-weight" in table
    assert "neurons" in table


def test_an_interrupted_export_leaves_nothing(tiny, tmp_path, monkeypatch):
    def broken(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("mezzotint.prune.checkpoint.save_file", broken)
    with pytest.raises(KeyboardInterrupt):
        save(tiny["llada"], tmp_path / "new", source=SOURCES["llada"])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(ValueError, match="is there already"):
        save(tiny["llada"], tmp_path / "full", source=SOURCES["llada"])


def test_damage_to_a_pruned_checkpoint_is_named(tiny, ids, tmp_path):
    pruned = SinkAwarePruner(tiny["llada"], ids, settings=FLOPS).prune(1.2, 5.0)
    folder = save(pruned, tmp_path / "new", source=SOURCES["llada"])
    raw = json.loads((folder / "config.json").read_text())
    for field, value, message in (
        ("n_heads_per_layer", [0] * len(pruned.config.shapes), "n_heads_per_layer must list"),
        ("compensated", "yes", "compensated='yes'"),
        ("intermediate_per_layer", [1], "intermediate_per_layer must list"),
    ):
        changed = raw | {"mezzotint_pruned": raw["mezzotint_pruned"] | {field: value}}
        (folder / "config.json").write_text(json.dumps(changed))
        with pytest.raises(mz.CheckpointError, match=message):
            mz.load_model(folder)


def test_bitmasks_are_exact_and_checked():
    weight = torch.randn(5, 13, generator=torch.Generator().manual_seed(0))
    weight[weight.abs() < 0.7] = 0
    parts = pack(weight)
    assert torch.equal(unpack("w", parts[".bitmask"], parts[".values"], (5, 13)), weight)
    with pytest.raises(ValueError, match="w: "):
        unpack("w", parts[".bitmask"], parts[".values"][1:], (5, 13))
    with pytest.raises(ValueError, match="w: a bitmask"):
        unpack("w", parts[".bitmask"], parts[".values"], (5, 40))


@pytest.mark.parametrize("method", ["sink", "wanda", "sink-sparsegpt"])
def test_an_interrupted_run_goes_on_where_it_was(tiny, ids, tmp_path, method):
    model, settings = tiny["llada"], Sparsity(method)
    whole = sparsify(model, ids[:4], settings).model

    def interrupt(stage, done, total):
        if stage == ("calibration" if method == "sink" else "layers") and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sparsify(model, ids[:4], settings, journal=Journal(tmp_path / "j", {"m": method}), report=interrupt)
    stages = []
    journal = Journal(tmp_path / "j", {"m": method})
    resumed = sparsify(model, ids[:4], settings, journal=journal, report=lambda stage, done, total: stages.append((stage, done))).model
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)
    assert ("calibration", 1) not in stages or method != "sink"
    with pytest.raises(ValueError, match=f"holds an interrupted run with m='{method}'"):
        Journal(tmp_path / "j", {"m": "another"})
    journal.finish()
    assert not (tmp_path / "j").exists()


def test_a_refused_run_is_repeated_with_a_looser_bound(tmp_path, capsys, monkeypatch):
    common = ["prune", "--method", "wanda", "--sparsity", "0.3", "--samples", "8", "--sample-length", "48", "--device", "cpu", "--out", str(tmp_path / "o")]
    assert main([*common, "--quality-drop-threshold", "1e-9"]) == 2
    assert "o.journal keeps what was computed" in capsys.readouterr().err
    computed = []
    monkeypatch.setattr("mezzotint.prune.unstructured.masks.per_row", lambda *rest: computed.append(rest))
    assert main([*common, "--quality-drop-threshold", "10", "--compact"]) == 0
    assert computed == []
    assert [p.name for p in tmp_path.iterdir()] == ["o"]


def test_an_interrupted_structured_run_goes_on_where_it_was(tiny, ids, tmp_path):
    def prune(journal, report=None):
        return SinkAwarePruner(tiny["llada"], ids, settings=FLOPS).prune(1.2, 5.0, journal=journal, report=report)

    def interrupt(stage, done, total):
        if stage.startswith("pass-0") and done == 2:
            raise KeyboardInterrupt

    whole = prune(Journal(None))
    with pytest.raises(KeyboardInterrupt):
        prune(Journal(tmp_path / "j"), interrupt)
    resumed = prune(Journal(tmp_path / "j"))
    assert resumed.config == whole.config
    with torch.no_grad():
        torch.testing.assert_close(resumed(ids), whole(ids), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scheme", ["int8-weight", "int8-dynamic", "int4-weight"])
def test_quantised_on_load(tiny, ids, tmp_path, scheme):
    pytest.importorskip("torchao", reason="needs the extra `quant`")
    if scheme == "int4-weight":
        with pytest.raises(ValueError, match="bfloat16"):
            mz.load_model(save(tiny["llada"], tmp_path / "new", source=SOURCES["llada"], quantise=scheme))
        return
    pruned = SinkAwarePruner(tiny["llada"], ids, settings=FLOPS).prune(1.2, 5.0)
    loaded = mz.load_model(save(pruned, tmp_path / "new", source=SOURCES["llada"], quantise=scheme))
    with torch.no_grad():
        error = (loaded(ids) - pruned(ids)).abs().mean() / pruned(ids).std()
    assert 0 < error < 0.2
    with pytest.raises(ValueError, match="prune first"):
        sparsify(loaded, ids, Sparsity("magnitude"))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--quantise", "int4-weight"], ["quantise='int4-weight'", "bfloat16"]),
        (["--compact"], ["--compact", "preset='balanced'", "heads and neurons"]),
        (["--preset", "edge", "--compact"], ["--compact", "preset='edge'"]),
        (["--method", "magnitude", "--ranking", "combined"], ["--ranking", "--method", "weights"]),
    ],
    ids=lambda part: " ".join(part)[:40],
)
def test_what_cannot_be_had_is_said_before_pruning_begins(words, named, tmp_path, capsys, monkeypatch):
    if "--quantise" in words:
        pytest.importorskip("torchao", reason="needs the extra `quant`")
    for kind in ("_structured", "_sparse"):
        monkeypatch.setattr(SinkAwarePruner, kind, lambda *rest: pytest.fail("pruning has begun"))
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["prune", "--device", "cpu", "--dtype", "float32", "--out", str(tmp_path / "o"), *words]) == 2
    finally:
        signal.signal(signal.SIGTERM, handler)
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert all(word in said for word in named), said
    assert not any(tmp_path.iterdir())


def test_the_bound_agrees_with_the_one_of_the_evaluation(bundled):
    model, tokenizer = bundled
    sample = max((s for s in from_suite(tokenizer, count=12, length=48) if s.end == 48), key=lambda s: s.end - s.start)
    rows = masked_rows([(sample.ids, sample.start, sample.end)], model.config.mask_id, draws=64)
    ours = judge(model, rows).mean * (sample.end - sample.start)
    theirs = bound(model, sample.ids[: sample.end], sample.start, samples=64)
    assert ours == pytest.approx(theirs, rel=0.5)
    same, apart = judge_beside(model, log_probabilities(model, rows), rows)
    assert drop(same, judge(model, rows), "agreement").value == 0
    assert apart == pytest.approx(0, abs=1e-6)


def test_masks_are_the_same_for_every_model_and_count():
    samples = [(torch.arange(20), 5, 20), (torch.arange(20), 0, 4), (torch.arange(30), 10, 30)]
    one, many = masked_rows(samples, 99, draws=8, batch=1), masked_rows(samples, 99, draws=8, batch=16)
    assert torch.equal(torch.cat([b.masked for b in one if b.tokens.shape[1] == 20]), many[0].masked)
    counts = many[0].masked[:8].sum(1).sort().values
    assert counts[0] <= 2
    assert counts[-1] >= 14
    assert not many[0].masked[:8, :5].any()


def test_a_given_calibration_keeps_its_views(tiny, ids):
    drawn = ids[:, None].repeat(1, 3, 1)
    pruner = SinkAwarePruner(tiny["llada"], Calibration(Calibration.of(ids).samples, seed=5, views=1, drawn=drawn), settings=FLOPS)
    assert (pruner.data.seed, pruner.data.views, len(pruner.data.samples)) == (5, 1, 6)
    assert torch.equal(pruner.data.drawn, drawn[:6])
    assert all(torch.equal(e.tokens, ids[:6]) for e in pruner.exposures(pruner.settings))


def test_every_seed_the_commands_take_is_taken(tiny, ids):
    for seed in (-(2**63), 2**63 - 1):
        masked_rows([(ids[0], 0, 32)], 99, seed=seed)
        Calibration.of(ids, seed).noised(7, 99, "steps")
        record_noise(tiny["llada"], ids[:1, :8], levels=(0.2, 0.8), seed=seed)


def test_calibration_data_is_disjoint_and_checked(bundled):
    _, tokenizer = bundled
    train, held = from_suite(tokenizer, count=10, length=96), from_suite(tokenizer, count=10, length=96, held_out=True)
    assert not {tuple(s.ids.tolist()) for s in train} & {tuple(s.ids.tolist()) for s in held}
    assert all(0 <= s.start < s.end <= 96 == len(s.ids) for s in train)
    windows = from_text(tokenizer, "one two three four five " * 50, count=4, length=32)
    assert all(len(s.ids) == 32 for s in windows)
    with pytest.raises(ValueError, match="fewer than length"):
        from_text(tokenizer, "short", count=4, length=32)
    view = Calibration((Sample(torch.arange(32), 10, 20),)).noised(0, 99, "steps")
    assert not (view[:, :10] == 99).any()
    assert (view[-1, 10:20] == 99).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sparsity("sinks"), "method='sinks' is unknown"),
        (lambda: Sparsity("sink", 1.0), "ratio=1.0"),
        (lambda: Sparsity("sink", 0.3, "2:4"), "does not fit pattern=2:4"),
        (lambda: Sparsity("sink", pattern="4:2"), "pattern='4:2'"),
        (lambda: Sparsity("magnitude", noise="steps"), "noise='steps' has no effect"),
        (lambda: Sparsity("wanda", early=0.6), "early=0.6"),
        (lambda: SinkRule("hard"), "kind='hard'"),
        (lambda: Structured(repair="glue"), "repair='glue'"),
        (lambda: Structured(most=1.0), "most=1.0"),
        (lambda: Structured(ranking="combined", weight=float("nan")), "weight=nan"),
        (lambda: Structured(weight=7), "weight=7 has no effect with ranking='importance'"),
        (lambda: Structured(allocation="even"), "allocation='even'"),
        (lambda: Calibration(()), "empty"),
        (lambda: Calibration.of(["text"]), "from_text"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_prune_refuses_goals_presets_and_models_it_does_not_know(tiny, ids):
    pruner = SinkAwarePruner(tiny["llada"], ids, settings=FLOPS)
    for options, message in (
        ({"target_speedup": 0.9}, "target_speedup=0.9"),
        ({"preset": "papers"}, "preset='papers'"),
        ({"preset": "paper", "target_speedup": 1.3}, "target_speedup=1.3 has no effect"),
        ({"preset": "paper", "quality_drop_threshold": -1}, "quality_drop_threshold=-1"),
        ({"quality_drop_threshold": -1}, "quality_drop"),
        ({"measure": "mse"}, "measure='mse' is unknown; accepted: nll, ppl, accuracy, agreement"),
    ):
        with pytest.raises(ValueError, match=message):
            pruner.prune(**options)
    with pytest.raises(ValueError, match="protect=9"):
        SinkAwarePruner(tiny["llada"], ids, settings=Structured(protect=(9,)))
    with pytest.raises(ValueError, match="at least 4"):
        SinkAwarePruner(tiny["llada"], ids[:2])
    assert all((preset.structured is None) != (preset.sparsity is None) for preset in PRESETS.values())


def test_presets_of_single_weights_and_how_they_are_stored(tiny, ids, tmp_path):
    pruner = SinkAwarePruner(tiny["llada"], ids, settings=FLOPS)
    pruned = pruner.prune(preset="paper")
    assert pruned.report["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert pruned.report["dense_nll"] == pruner.validation.dense.mean
    by_size = Preset("", sparsity=Sparsity("magnitude", 0.5), compact=True)
    mz.save(pruner.prune(preset=by_size), tmp_path / "compact", source=SOURCES["llada"])
    names = list(load_file(tmp_path / "compact" / "model.safetensors"))
    assert any("bitmask" in name for name in names)
    with pytest.raises(ThresholdError, match="quality_drop_threshold=1e-09 would be passed: magnitude costs"):
        pruner.prune(quality_drop_threshold=1e-9, preset=Preset("", sparsity=Sparsity("magnitude", 0.9)))


def test_flops_follow_the_formula(tiny):
    c = tiny["dream"].config
    shapes = [shape_of(layer) for layer in layers_of(tiny["dream"])]
    d, hd, s = c.hidden_size, c.head_dim, 100
    layer = 2 * s * d * c.heads * hd + 4 * s * d * c.kv_heads * hd + 2 * s * c.heads * hd * d + 4 * s * s * c.heads * hd + 6 * s * d * c.mlp_size
    assert flops(c, shapes, s, s) == c.layers * layer + 2 * s * d * c.vocab_size


def test_the_bytes_of_quantised_weights_are_counted_with_their_scales(tiny):
    pytest.importorskip("torchao", reason="needs the extra `quant`")
    model = tiny["llada"]
    assert stored_bytes(model) == size_of(model)["bytes"]
    small = mz.quantise(model, "int8-weight")
    weights = sum(linear.weight.numel() for layer in layers_of(model) for linear in matrices(layer).values())
    rows = sum(linear.out_features for layer in layers_of(model) for linear in matrices(layer).values())
    saved = stored_bytes(model) - stored_bytes(small)
    assert 3 * weights - 16 * rows <= saved < 3 * weights  # scales, and zero points where the scheme has them


def test_a_journal_survives_damage_and_serves_one_run(tmp_path):
    journal = Journal(tmp_path / "j", {})
    journal.put("plan", {}, {"units": [1]})
    assert journal.info("plan") == {"units": [1]}
    (tmp_path / "j" / "plan.safetensors").write_bytes(b"")
    assert journal.info("plan") == {}
    with journal.held(), pytest.raises(ValueError, match="in use by another run"), Journal(tmp_path / "j", {}).held():
        pass
    with Journal(tmp_path / "j", {}).held():
        pass


@pytest.mark.parametrize("method", ["fisher", "movement"])
def test_gradients_do_not_depend_on_which_samples_run_together(tiny, ids, method):
    found = [sparsify(tiny["llada"], ids[:6], Sparsity(method, batch=batch)).model for batch in (1, 3)]
    for one, other in zip(*(model.parameters() for model in found), strict=True):
        assert torch.equal(one, other)


def test_what_would_be_ignored_is_refused(tiny, ids):
    with pytest.raises(ValueError, match="noise='banana' is unknown; accepted: auto, steps, uniform"):
        SinkAwarePruner(tiny["llada"], ids, noise="banana")
    with pytest.raises(ValueError, match="rule has no effect with importance='reconstruction'"):
        SinkAwarePruner(tiny["llada"], ids, rule=SinkRule(), settings=FLOPS).prune(1.1)
    with pytest.raises(ValueError, match="grouping='group' has no effect on this model"):
        SinkAwarePruner(tiny["llada"], ids, settings=dataclasses.replace(FLOPS, grouping="group"))
    weighed = SinkAwarePruner(tiny["llada"], ids, settings=dataclasses.replace(FLOPS, importance="energy"), rule=SinkRule("epsilon"))
    with pytest.raises(ValueError, match="rule has no effect with importance='reconstruction'"):
        weighed.prune(preset="conservative")
    with pytest.raises(ValueError, match="length=100000 does not fit"):
        SinkAwarePruner(tiny["llada"], ids, settings=Structured(length=100000))
    with pytest.raises(ValueError, match="noise='uniform' has no effect with method='magnitude'"):
        SinkAwarePruner(tiny["llada"], ids, noise="uniform").prune(preset=Preset("", sparsity=Sparsity("magnitude")))


def test_noise_and_rule_hold_for_single_weights_too(tiny, ids, monkeypatch):
    seen = []
    monkeypatch.setattr("mezzotint.prune.pruner.sparsify", lambda model, data, settings, **rest: seen.append(settings))
    pruner = SinkAwarePruner(tiny["llada"], ids, settings=FLOPS, noise="uniform", rule=SinkRule("epsilon"))
    with pytest.raises(AttributeError):
        pruner.prune(preset="paper")
    assert (seen[0].noise, seen[0].rule) == ("uniform", SinkRule("epsilon"))


@pytest.mark.parametrize(("options", "message"), [({"draws": 0}, "draws=0"), ({"batch": 0}, "batch=0")])
def test_counts_below_one_are_named(tiny, ids, options, message):
    with pytest.raises(ValueError, match=message):
        SinkAwarePruner(tiny["llada"], ids, **options)


def test_samples_to_analyse_and_ids_are_checked(tiny, ids):
    for samples in (0, -1):
        with pytest.raises(ValueError, match=f"samples={samples} must be at least 1"):
            SinkAwarePruner(tiny["llada"], ids).analyze_attention_dynamics(samples)
    strange = ids.clone()
    strange[1, 3] = tiny["llada"].config.vocab_size
    with pytest.raises(ValueError, match="sample 1 holds the token id"):
        SinkAwarePruner(tiny["llada"], strange)


def test_each_model_of_a_pair_is_timed_first_as_often(tiny, monkeypatch):
    dense, changed, order = tiny["llada"], tiny["dream"], []
    monkeypatch.setattr("mezzotint.prune.speed.seconds", lambda model, *rest: order.append(model) or (2.0 if model is dense else 1.0))
    assert speed.compare(dense, changed, length=8, predicted=4, repeats=4)["speedup"] == 2
    assert order[::2] == [dense, changed] * 3


def test_no_layer_goes_once_the_speed_is_reached(tiny, ids):
    torch.manual_seed(0)
    model = Transformer(dataclasses.replace(tiny["llada"].config, layers=8)).eval()
    pruned = SinkAwarePruner(model, ids, settings=dataclasses.replace(FLOPS, drop_layers=True)).prune(1.05, 10.0)
    assert len(pruned.report["layers_dropped"]) == 1


def test_a_quantised_model_is_judged_without_shapes(tiny, ids):
    pytest.importorskip("torchao", reason="needs the extra `quant`")
    model = tiny["llada"]
    small = mz.quantise(model, "int8-weight")
    found = SinkAwarePruner(model, ids, settings=FLOPS).evaluate(small, ids[:4], repeats=1)
    assert found["memory_ratio"] == stored_bytes(small) / stored_bytes(model) < 1
    assert "layers" not in found
    assert "flops_ratio" not in found


def test_int4_names_a_matrix_that_would_be_skipped():
    with pytest.raises(ValueError, match=r"layers\.down has 48 inputs, which are not a multiple of 32"):
        check_groups(torch.nn.ModuleDict({"up": torch.nn.Linear(64, 48), "down": torch.nn.Linear(48, 64)}))


def test_an_output_without_a_name_is_refused(capsys):
    assert main(["prune", "--out", "."]) == 2
    assert "out='.' must name a new folder" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["magnitude", "fisher", "sink"])
def test_one_calibration_serves_several_ratios(tiny, ids, method):
    once = importances(tiny["llada"], ids, Sparsity(method))
    for settings in (Sparsity(method, 0.3), Sparsity(method, 0.5, "2:4")):
        ours, theirs = (sparsify(tiny["llada"], ids, settings, scores=scores).model for scores in (once, None))
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(mine, other)
    with pytest.raises(ValueError, match="scores have no effect with method='wanda'"):
        sparsify(tiny["llada"], ids, Sparsity("wanda"), scores=once)
    with pytest.raises(ValueError, match="method='sparsegpt' prunes layer by layer"):
        importances(tiny["llada"], ids, Sparsity("sparsegpt"))


def test_the_writers_of_an_outlier_channel_stay(tiny, ids):
    """Of a channel far above the others, as LLaDA-8B has one."""
    model = copy.deepcopy(tiny["llada"])
    layer, width = layers_of(model)[1], model.config.head_dim
    with torch.no_grad():
        layer.attention.out.weight[5, width : 2 * width] *= 300
        layer.mlp.down.weight[5, 7] *= 300
    model.requires_grad_(False)
    for ranking in ("importance", "combined"):
        settings = dataclasses.replace(FLOPS, ranking=ranking, allocation="uniform")
        kept = SinkAwarePruner(model, ids, settings=settings).prune(1.6, 9.0).kept[1]
        assert len(kept.heads) < model.config.heads
        assert 1 in kept.heads
        assert 7 in kept.neurons


def test_a_brief_look_sees_few_masks_and_many(tiny, ids):
    """One version of each sample, spread over the levels as all of them together are."""
    pruner = SinkAwarePruner(tiny["llada"], ids, validation_data=ids.repeat(3, 1), settings=FLOPS)
    shares = [torch.cat([b.masked.double().mean(1) for b in v.rows]) for v in (pruner.validation, pruner.validation.brief)]
    assert len(shares[0]) == 4 * len(shares[1])
    assert float(shares[1].mean()) == pytest.approx(float(shares[0].mean()), abs=0.05)


def test_logits_are_asked_in_pieces(tiny, ids, monkeypatch):
    for model in tiny.values():
        rows = masked_rows([(row, 0, 32) for row in ids], model.config.mask_id)
        whole = judge(model, rows)
        monkeypatch.setattr(comparison, "PIECE", 7)
        pieces = judge(model, rows)
        assert torch.equal(whole.guesses, pieces.guesses)
        torch.testing.assert_close(whole.nll, pieces.nll)
        monkeypatch.undo()


def test_a_protected_layer_is_not_touched(tiny, ids):
    pruned = SinkAwarePruner(tiny["llada"], ids, settings=dataclasses.replace(FLOPS, protect=(1,))).prune(1.2, 9.0)
    assert any(len(kept.neurons) < tiny["llada"].config.mlp_size for kept in pruned.kept.values())
    before, after = (dict(layers_of(m)[1].named_parameters()) for m in (tiny["llada"], pruned))
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert not any(after[name].any() for name in set(after) - set(before))  # biases that the other layers have


def test_a_journal_of_other_settings_is_refused(tiny, ids, tmp_path):
    journal = Journal(tmp_path / "j")
    sparsify(tiny["llada"], ids, Sparsity("magnitude", 0.3), journal=journal)
    with pytest.raises(ValueError, match="holds an interrupted run with sparsity="):
        sparsify(tiny["llada"], ids, Sparsity("magnitude", 0.7), journal=journal)
    pruner = SinkAwarePruner(tiny["llada"], ids, settings=FLOPS)
    pruner.prune(1.1, 9.0, journal=Journal(tmp_path / "k"))
    with pytest.raises(ValueError, match="holds an interrupted run with goal="):
        pruner.prune(1.4, 9.0, journal=Journal(tmp_path / "k"))
    restless = SinkAwarePruner(tiny["llada"], ids, settings=dataclasses.replace(FLOPS, importance="energy"), rule=SinkRule("epsilon"))
    with pytest.raises(ValueError, match="holds an interrupted run with rule="):
        restless.prune(1.1, 9.0, journal=Journal(tmp_path / "k"))
    sparsify(tiny["llada"], Calibration.of(ids, 1), Sparsity("wanda", 0.3), journal=Journal(tmp_path / "l"))
    with pytest.raises(ValueError, match="holds an interrupted run with calibration_seed=1"):
        sparsify(tiny["llada"], Calibration.of(ids, 2), Sparsity("wanda", 0.3), journal=Journal(tmp_path / "l"))


def test_a_layer_may_lose_what_layers_that_are_gone_have_lost(tiny, ids):
    """A careful walk would otherwise put everything back that comes after them."""
    torch.manual_seed(0)
    model = Transformer(dataclasses.replace(tiny["llada"].config, layers=8)).eval()
    pruner, settings = SinkAwarePruner(model, ids, settings=FLOPS), dataclasses.replace(FLOPS, drop_layers=True)
    search = Search(pruner, settings, Goal(1.2, 10.0), Journal(None), lambda stage, done, total: None)
    assert search.dropped
    plan = search.ground.plan_for(1.5)
    allowed = search.allowances(plan)
    spent = search.glance(search.dense)
    assert allowed == sorted(allowed)
    assert allowed[-1] == pytest.approx(10.0)
    assert all(part >= min(spent, 10.0) for part in allowed)


def test_more_predicted_positions_than_the_canvas_has_are_as_many_as_it_has(tiny, ids):
    pruner = SinkAwarePruner(tiny["llada"], ids, settings=dataclasses.replace(FLOPS, length=None, predicted=600))
    pruned = pruner.prune(1.1, 9.0)
    assert pruned.report["length"] < 600
    assert pruner.evaluate(pruned, ids, repeats=1, answers=0)["length"] == pruned.report["length"]


def test_a_finished_journal_is_not_calibrated_again(tiny, ids, tmp_path, monkeypatch):
    settings = Sparsity("sink-sparsegpt", 0.5)
    first = sparsify(tiny["llada"], ids, settings, journal=Journal(tmp_path / "j")).model
    monkeypatch.setattr("mezzotint.prune.unstructured.exposures", lambda *given, **more: pytest.fail("calibrated again"))
    again = sparsify(tiny["llada"], ids, settings, journal=Journal(tmp_path / "j")).model
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_a_pattern_that_the_blocks_do_not_take_is_refused_before_calibration(tiny, ids, monkeypatch):
    monkeypatch.setattr("mezzotint.prune.unstructured.exposures", lambda *given, **more: pytest.fail("calibrated"))
    with pytest.raises(ValueError, match="pattern=3:6: method='sparsegpt' goes by 128 columns"):
        sparsify(wide(tiny), ids, Sparsity("sparsegpt", 0.5, "3:6"))


def wide(tiny):
    """Matrices of 96 and 48 columns."""
    config = tiny["llada"].config
    return Transformer(dataclasses.replace(config, hidden_size=96, heads=6, kv_heads=6, head_dim=16, mlp_size=96)).eval()


def test_kept_neurons_stay_a_multiple_when_some_are_put_back(tiny, ids):
    model = Transformer(dataclasses.replace(tiny["llada"].config, mlp_size=172)).eval()
    settings = dataclasses.replace(FLOPS, multiple=8)
    search = Search(SinkAwarePruner(model, ids, settings=settings), settings, Goal(1.2, 10.0), Journal(None), lambda stage, done, total: None)
    assert [172 - search.walker.part(0, gone) for gone in (20.0, 10.0, 5.0, 3.0)] == [152, 168, 168, 172]


def test_what_fails_at_once_leaves_no_journal(tiny, ids, tmp_path):
    journal = Journal(tmp_path / "j")
    with pytest.raises(ValueError, match="not a multiple"), journal.held():
        sparsify(tiny["llada"], ids, Sparsity("magnitude", 3 / 7, "3:7"), journal=journal)
    assert not (tmp_path / "j").exists()


def test_samples_beyond_the_models_reach_are_refused(tiny):
    reach = tiny["llada"].config.reach
    with pytest.raises(ValueError, match=f"sample 0 has {reach + 1} tokens"):
        SinkAwarePruner(tiny["llada"], torch.full((8, reach + 1), 5), settings=FLOPS)


def test_pruning_leaves_room_for_what_quantisation_costs(tiny, ids):
    pytest.importorskip("torchao", reason="needs the extra `quant`")
    pruner = SinkAwarePruner(tiny["llada"], ids, settings=FLOPS)
    alone = pruner.validation.drop(mz.quantise(tiny["llada"], "int8-weight"), "agreement").value
    preset = Preset("", FLOPS, Goal(1.3, alone + 0.05, "agreement"), quantise="int8-weight")
    pruned = pruner.prune(preset=preset)
    assert pruned.report["quality_drop"] <= 0.05 + 1e-9
    assert pruned.report["quality_drop_threshold"] == alone + 0.05
    assert pruned.report["speedup_quantised"] > 0
    with pytest.raises(QuantisedError, match="quantise=int8-weight alone costs"):
        pruner.prune(preset=Preset("", FLOPS, Goal(1.3, 1e-9, "nll"), quantise="int8-weight"))
