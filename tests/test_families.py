"""What every further family promises: strategies compose, block-causal caches are exact, rows are independent, the mask is never produced."""

import dataclasses
import json
import shutil
import warnings

import pytest
import torch
from conftest import HERE
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import mezzotint as mz
from mezzotint.cli import main
from mezzotint.denoising import Tally
from mezzotint.describing import describe
from mezzotint.generation import default_recipe, until
from mezzotint.models.config import Mixture, ModelConfig
from mezzotint.models.experts import Experts
from mezzotint.models.int8 import Int8Linear
from mezzotint.models.loading import config_of_checkpoint
from mezzotint.models.shape import Shape
from mezzotint.models.transformer import Transformer

FOLDERS = {
    "llada-moe": "llada_moe/lladamoe_tiny_variant",
    "sdar": "sdar/sdar_tiny",
    "sdar-moe": "sdar_moe/sdarmoe_tiny",
    "llada2": "llada2/llada2_tiny_g8",
    "a2d": "a2d/a2d_qwen3_tiny",
    "a2d-blocks": "a2d/a2d_qwen3_tiny",
    "modernbert": "modernbert/modernbert_tiny",
    "fast-dllm-v2": "fast_dllm_v2/fast_dllm_v2_tiny",
    "illada": "illada/illada_tiny",
    "bd3lm": "bd3lm_owt/bd3lm_tiny",
}
BLOCKS = {"sdar": 4, "sdar-moe": 4, "llada2": 8, "a2d-blocks": 8, "fast-dllm-v2": 8, "bd3lm": 4}


@pytest.fixture(scope="module")
def models():
    """Every family's tiny model, the block-causal ones in blocks of 4 or 8."""
    found = {}
    for name, folder in FOLDERS.items():
        found[name] = mz.load_model(HERE / "families" / folder, mask_id=49 if name == "bd3lm" else 296, block_causal=BLOCKS.get(name))
    return found


def recipe_for(name, **rest) -> mz.Recipe:
    """Two blocks, two steps each."""
    block = BLOCKS.get(name, 8)
    return mz.Recipe(**{"gen_length": 2 * block, "block_length": block, "steps": 4, "early_stop": "off"} | rest)


@pytest.mark.parametrize("name", ["sdar", "llada2", "a2d-blocks", "fast-dllm-v2"])
def test_the_prefix_cache_is_exact_and_rows_are_independent(models, name):
    """Also under guidance, where the memory holds two streams."""
    model = models[name]
    prompts = [torch.arange(20, 20 + n) for n in (3, 13, 8)]
    recipe = recipe_for(name, commit=mz.AtLeast(0.6))
    layout = {"grid": model.config.block_length, "to_end": model.config.aligned_to_end}
    together = {}
    for cache in (mz.NoCache(), mz.PrefixCache()):
        canvas = mz.Canvas.blank(prompts, recipe.gen_length, model.config.mask_id, model.device, **layout)
        steps = list(mz.denoise(model, canvas, recipe.with_(cache=cache)))
        together[type(cache)] = canvas.tokens, sum(len(step.computed) for step in steps)
    assert torch.equal(together[mz.NoCache][0], together[mz.PrefixCache][0])
    assert together[mz.PrefixCache][1] < together[mz.NoCache][1]
    for row, prompt in enumerate(prompts):
        alone = mz.Canvas.blank([prompt], recipe.gen_length, model.config.mask_id, model.device, **layout)
        list(mz.denoise(model, alone, recipe))
        begin, other = alone.begins[0], canvas.begins[row]
        length = min(alone.length - begin, canvas.length - other)
        assert torch.equal(alone.tokens[0, begin : begin + length], canvas.tokens[row, other : other + length])
    guided = [mz.denoise_all(model, prompts[1][None], recipe.with_(cfg_scale=0.7, cache=cache)).tokens for cache in (mz.NoCache(), mz.PrefixCache())]
    assert torch.equal(*guided)


@pytest.mark.parametrize("name", ["sdar", "fast-dllm-v2"])
def test_a_growing_canvas_equals_a_fixed_one(models, name):
    """Nothing behind the active block is seen, so how far the canvas reaches makes no difference."""
    model, prompt = models[name], torch.arange(30, 41)[None]
    fixed = mz.denoise_all(model, prompt, recipe_for(name, cache=mz.PrefixCache()))
    growing = mz.denoise_all(model, prompt, recipe_for(name, gen_length=BLOCKS[name], steps=2, max_tokens=2 * BLOCKS[name], cache=mz.PrefixCache()))
    assert torch.equal(fixed.tokens, growing.tokens)
    assert fixed.forwards == growing.forwards


def test_given_stop_ids_end_nothing(models):
    """A chat prompt ends with the end of a turn inside the block where the answer begins."""
    model = models["sdar"]
    stop = model.config.stop_ids[0]
    canvas = mz.Canvas.blank([torch.tensor([1, 2, 3, 4, 5, stop])], 10, model.config.mask_id, model.device, grid=4)
    last = list(mz.denoise(model, canvas, recipe_for("sdar", early_stop="step")))[-1]
    ends = (canvas.tokens[0, 6:] == stop).nonzero()
    assert last.finished == ("stop" if len(ends) and canvas.fills else "length",)
    assert canvas.decided[0, 6:8].all()
    assert canvas.begins == [6]


def test_blocks_that_do_not_fit_are_refused(models):
    with pytest.raises(ValueError, match="block_length=8 does not fit this model, which sees blocks of 4"):
        mz.denoise_all(models["sdar"], torch.ones(1, 5, dtype=torch.long), mz.Recipe(gen_length=16, block_length=8))
    unaligned = mz.Canvas.blank([torch.ones(3, dtype=torch.long), torch.ones(5, dtype=torch.long)], 8, 296, models["sdar"].device)
    with pytest.raises(ValueError, match=r"stand on multiples of 4; use Canvas.blank\(grid"):
        list(mz.denoise(models["sdar"], unaligned, recipe_for("sdar")))


def test_small_blocks_inside_trained_ones_see_the_whole_trained_block(models):
    model = models["llada2"]
    recipe = mz.Recipe(gen_length=8, block_length=2, steps=4, early_stop="off")
    prompt = torch.arange(50, 58)[None]
    for step in mz.denoise(model, prompt, recipe):
        assert step.visible[-1] + 1 == step.block.start // 8 * 8 + 8
    exact = [mz.denoise_all(model, prompt, recipe.with_(cache=cache)).tokens for cache in (mz.NoCache(), mz.PrefixCache())]
    assert torch.equal(*exact)


def test_editing_settles_and_the_text_streams_only_what_stays(models):
    """The verification forward saw the final tokens, so the next block computes nothing again."""
    model = models["llada2"]
    recipe = mz.Recipe(gen_length=16, block_length=8, commit=mz.Edit(0.5, 0.3, most=6), cache=mz.PrefixCache(), early_stop="off")
    prompt = torch.arange(60, 68)[None]
    steps = list(mz.denoise(model, prompt, recipe))
    for block in (1, 2):
        mine = [step for step in steps if step.block.index == block - 1]
        assert all(step.tentative for step in mine[:-1])
        assert not mine[-1].tentative
    later = next(step for step in steps if step.block.index == 1)
    first = [step for step in steps if step.block.index == 0]
    assert len(later.computed) == (8 if not first[-1].accepted.any() else 16)
    tally = Tally(1, recipe)
    for step in steps:
        tally.count(step)
    assert tally.row_forwards == [sum(len(step.computed) > 0 for step in steps)] == [tally.forwards]
    plain = mz.denoise_all(model, prompt, recipe.with_(commit=mz.Edit(0.5, 2.0)))
    assert torch.equal(plain.tokens, mz.denoise_all(model, prompt, recipe.with_(commit=mz.AtLeast(0.5))).tokens)


def test_the_mask_is_never_produced(tiny):
    """Even by a model that prefers it everywhere."""
    for model in tiny.values():
        twin = dataclasses.replace(model.config)
        weight = model.head.weight
        model.head.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
        model.head.weight[twin.mask_id] = weight.sum(0) * 100
        try:
            for seed in range(2):
                recipe = mz.Recipe(gen_length=8, block_length=8, steps=4, temperature=float(seed), early_stop="off")
                assert not (mz.denoise_all(model, torch.arange(1, 6)[None], recipe, seed=seed).tokens == twin.mask_id).any()
        finally:
            model.head.weight = weight


# --- experts


def mixture_config(**mixture) -> ModelConfig:
    return ModelConfig("test", 32, 16, 1, 2, 2, 8, 24, 1e-6, 1e4, 64, 31, (0,), 0, mixture=Mixture(**{"experts": 8, "active": 3, "size": 8} | mixture))


@pytest.mark.parametrize(
    "mixture",
    [{}, {"score": "sigmoid", "bias": "selection", "groups": 4, "kept_groups": 2, "renormalise": True, "scale": 2.5, "shared_size": 8}, {"bias": "weights"}],
)
def test_grouped_experts_equal_a_loop_over_tokens(mixture):
    torch.manual_seed(0)
    config = mixture_config(**mixture)
    layer = Experts(config, config.mixture)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 5, 16)
    weights, chosen = layer.router(x.flatten(0, 1))
    expected = torch.stack(
        [sum(w * layer.experts[e](row) for w, e in zip(ws, es, strict=True)) for row, ws, es in zip(x.flatten(0, 1), weights, chosen.tolist(), strict=True)]
    ).view_as(x)
    if layer.shared is not None:
        expected = expected + layer.shared(x)
        assert len({e // 2 for e in chosen[0].tolist()}) <= 2
        assert_close(weights.sum(-1), torch.full((10,), 2.5))
    assert_close(layer(x), expected, atol=1e-4, rtol=1e-4)


def test_stacked_experts_equal_single_ones():
    torch.manual_seed(1)
    config = mixture_config()
    layer = Experts(config, config.mixture).bfloat16()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(1, 7, 16).bfloat16()
    before = layer(x)
    layer.stack()
    assert layer.experts[2].up.weight.data_ptr() == layer.stacked["up"][2].data_ptr()
    assert_close(layer(x), before, atol=0.05, rtol=0.05)


def test_quantising_reaches_stacked_experts():
    """The given model keeps its stack, and its products in bf16; the quantised one has none that would be used in place of its integers."""
    pytest.importorskip("torchao", reason="needs the extra `quant`")
    model = mz.load_model(HERE / "families" / FOLDERS["llada-moe"], mask_id=296, dtype="bfloat16")
    layers = [module for module in model.modules() if isinstance(module, Experts)]
    for layer in layers:
        layer.stack()
    smaller = mz.quantise(model, "int8-weight")
    assert all(layer.stacked for layer in layers)
    for layer in (module for module in smaller.modules() if isinstance(module, Experts)):
        assert not layer.stacked
        assert {type(expert.up.weight.data).__name__ for expert in layer.experts} == {"Int8Tensor"}
    x = torch.randn(1, 40, model.config.hidden_size).bfloat16()
    exact, near = (next(m for m in one.modules() if isinstance(m, Experts)).one_by_one for one in (model, smaller))
    counts = torch.tensor([40 // len(layers[0].experts)] * len(layers[0].experts))
    rows = x[0, : int(counts.sum())]
    assert 0 < (near(rows, counts) - exact(rows, counts)).float().std() < 0.05 * exact(rows, counts).float().std()


def test_int8_weights_are_half_the_memory_and_close(models, tmp_path):
    folder = HERE / "families" / FOLDERS["llada-moe"]
    small = mz.load_model(folder, mask_id=296, weights="int8")
    assert sum(isinstance(module, Int8Linear) for module in small.modules()) == 3 * (8 + 1 + 1)
    tokens = torch.arange(1, 40)[None]
    exact, near = models["llada-moe"](tokens), small(tokens)
    assert (near - exact).std() < 0.05 * exact.std()
    told = describe(folder, mask_id=296, dtype="bfloat16")["weights_bytes"] - describe(folder, mask_id=296, dtype="bfloat16", weights="int8")["weights_bytes"]
    assert told == sum(module.weight.numel() for module in small.modules() if isinstance(module, Int8Linear))
    with pytest.raises(ValueError, match="weights='int4' is unknown; accepted: int8"):
        mz.load_model(folder, mask_id=296, weights="int4")


def test_parameters_are_counted_from_the_shape(models):
    for name, model in models.items():
        assert model.config.parameters() == sum(parameter.numel() for parameter in model.parameters()), name
        assert (model.config.parameters(active=True) < model.config.parameters()) == (model.config.mixture is not None)


# --- what the user gives and what the files say


def test_the_mask_is_found_in_the_tokenizers_files(tmp_path):
    folder = tmp_path / "a2d"
    shutil.copytree(HERE / "families" / FOLDERS["a2d"], folder)
    with pytest.raises(mz.CheckpointError, match="give its id with mask_id"):
        mz.load_model(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {"296": {"content": "<|mask|>"}}}))
    assert mz.load_model(folder).config.mask_id == 296
    assert mz.load_model(folder, mask_id=295).config.mask_id == 295
    with pytest.raises(mz.CheckpointError, match="id 304 lies outside the vocabulary of 304"):
        mz.load_model(folder, mask_id=304)
    assert mz.load_model(folder, block_causal=32).config.recipe == "a2d-blocks"
    with pytest.raises(mz.CheckpointError, match=r"block_causal=8 is for models trained in blocks"):
        mz.load_model(HERE / "families" / FOLDERS["illada"], block_causal=8)


def test_a_head_stored_beside_a_tied_embedding_is_used(tmp_path):
    folder = tmp_path / "a2d"
    shutil.copytree(HERE / "families" / FOLDERS["a2d"], folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    assert mz.load_model(folder, mask_id=296).config.tied_head
    tensors["lm_head.weight"] = -tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.warns(UserWarning, match=r"stores a different lm_head.weight, which is used"):
        model = mz.load_model(folder, mask_id=296)
    assert torch.equal(model.head.weight, -model.embedding.weight)


DAMAGE = {
    "architectures": [(["GPT2LMHeadModel"], "supported: LLaDAModelLM, .*SDARForCausalLM"), ("SDAR", "must be a list"), (7, "must be a list")],
    "hidden_act": [("relu", "hidden_act='relu' is not supported for .*; supported: 'silu'")],
    "num_hidden_layers": [("three", "num_hidden_layers='three' must be a whole number"), (0, "num_hidden_layers=0 must be at least 1")],
    "hidden_size": [(-64, "hidden_size=-64"), (None, "config.json has no 'hidden_size', which a .* checkpoint needs")],
    "rope_parameters": [("far", "rope_parameters='far' must be an object")],
    "partial_rotary_factor": [(1.5, "partial_rotary_factor=1.5 must lie in")],
    "rope_theta": [("x", "rope_theta='x' must be a number above 0")],
    "tie_word_embeddings": [("no", "tie_word_embeddings='no' must be true or false")],
    "eos_token_id": [("</s>", "eos_token_id='</s>' must be a token id")],
    "num_experts": [(3.5, "num_experts=3.5 must be a whole number")],
    "num_experts_per_tok": [(64, "64 active experts of")],
    "moe_layer_freq": [("every", "moe_layer_freq='every' must be 0 or 1"), ([1], "for the 2 layers")],
    "mlp_only_layers": [(1, "mlp_only_layers=1 must be a list of layers")],
    "n_group": [(7, "do not fall into 7 groups")],
    "score_function": [("softmax", "score_function='softmax' is not supported for LLaDA2; supported: 'sigmoid'")],
    "block_size": [(0, "block_size=0 must be at least 1")],
    "bd_size": [("b", "bd_size='b' must be a whole number")],
    "hidden_activation": [("silu", "hidden_activation='silu' is not supported for ModernBERT; supported: 'gelu'")],
    "hidden_dim": [(None, "config.json has no 'hidden_dim', which a MDLM checkpoint needs")],
    "n_heads": [(7, "not a multiple of the 7 heads")],
    "time_conditioning": [(True, "time_conditioning=True is not supported for MDLM; supported: False")],
    "mask_token_id": [(10**6, "1000000 lies outside the vocabulary")],
}


@pytest.mark.parametrize("name", [name for name in FOLDERS if name != "a2d-blocks"])
def test_a_damaged_field_is_named_with_what_is_supported(tmp_path, name):
    """Each field that the family's config.json has, damaged alone."""
    raw = json.loads((HERE / "families" / FOLDERS[name] / "config.json").read_text())
    raw.setdefault("mask_token_id", 49 if name == "bd3lm" else 296)
    tried = 0
    by_fields = {"architectures"} if name in ("llada-moe", "bd3lm") else set()  # these are recognised by their fields as well
    for field in (raw.keys() & DAMAGE.keys()) - by_fields:
        for value, words in DAMAGE[field]:
            (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in (raw | {field: value}).items() if (k, v) != (field, None)}))
            with pytest.raises(mz.CheckpointError, match=words):
                describe(tmp_path)
            tried += 1
    assert tried >= (5 if name == "bd3lm" else 8)


@pytest.mark.parametrize("share", [-1, -1.0, 0, None, 1])
def test_all_features_are_rotated_where_no_share_is_given(tmp_path, share):
    """LLaDA-MoE's own default is -1."""
    raw = json.loads((HERE / "families" / FOLDERS["llada-moe"] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {"partial_rotary_factor": share, "mask_token_id": 296}))
    assert config_of_checkpoint(tmp_path).rotary_dim is None


def test_a_missing_shard_or_tensor_of_any_family_is_named(tmp_path):
    for name in ("sdar-moe", "llada2", "bd3lm"):
        folder = tmp_path / name
        shutil.copytree(HERE / "families" / FOLDERS[name], folder)
        mask = 49 if name == "bd3lm" else 296
        tensors = load_file(folder / "model.safetensors")
        lost = sorted(tensors)[len(tensors) // 2]
        save_file({stored: tensor for stored, tensor in tensors.items() if stored != lost}, folder / "model.safetensors")
        with pytest.raises(mz.CheckpointError, match=f"has no tensor '{lost}'"):
            mz.load_model(folder, mask_id=mask)
        table = dict.fromkeys(tensors, "model.safetensors") | {lost: "model-00002-of-00002.safetensors"}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
        with pytest.raises(mz.CheckpointError, match=r"lacks the shard model-00002-of-00002.safetensors"):
            mz.load_model(folder, mask_id=mask)


@pytest.mark.parametrize("name", ["illada", "a2d"])
def test_a_pruned_checkpoint_of_a_family_is_read_back(models, name, tmp_path):
    """With the biases that stand for what was removed, under names that the family does not have itself."""
    whole = models[name].config
    model = Transformer(dataclasses.replace(whole, shapes=(Shape(heads=2, kv_heads=1, mlp_size=24),) * whole.layers)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1).requires_grad_(False)
    again = mz.load_model(mz.save(model, tmp_path / name, source=HERE / "families" / FOLDERS[name]), mask_id=296)
    tokens = torch.arange(1, 20)[None]
    assert torch.equal(again(tokens), model(tokens))


def test_a_fused_tensor_of_the_wrong_height_is_named(tmp_path):
    folder = tmp_path / "llada2"
    shutil.copytree(HERE / "families" / FOLDERS["llada2"], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_key_value_heads": 2}))
    with pytest.raises(mz.CheckpointError, match=r"query_key_value.weight has 192 rows, config.json asks for 128"):
        mz.load_model(folder, mask_id=296)


def test_the_default_recipe_has_the_models_blocks(models):
    assert default_recipe(models["sdar"]).block_length == 4
    assert default_recipe(models["llada2"]).block_length == 8
    assert default_recipe(models["fast-dllm-v2"]).block_length == 8
    assert isinstance(default_recipe(models["a2d"]).commit, mz.Linear)
    assert default_recipe(models["bd3lm"]).block_length == 4
    assert default_recipe(models["illada"]) == mz.named("plain")


def test_information_names_what_a_family_is():
    found = describe(HERE / "families" / FOLDERS["llada2"], mask_id=296)
    assert found["attention"] == "blocks of 32, each sees itself and those before"
    assert (found["recipe"], found["mask_id"], found["family"]) == ("llada2", 296, "llada2")
    assert found["active_parameters"] < found["parameters"]
    assert describe(HERE / "families" / FOLDERS["modernbert"], mask_id=296)["attention"] == "full in every 3. layer, else 8 positions to each side"
    assert "--block-causal 32" in describe(HERE / "families" / FOLDERS["a2d"], mask_id=296)["note"]
    assert "--recipe llada2.1-quality" in found["note"]


@pytest.mark.parametrize("name", FOLDERS)
def test_information_tells_the_recipe_that_is_used(models, name, capsys):
    folder, mask = HERE / "families" / FOLDERS[name], 49 if name == "bd3lm" else 296
    blocks = ["--block-causal", str(BLOCKS[name])] if name in BLOCKS else []
    assert main(["info", str(folder), "--mask-id", str(mask), "--length", "100", *blocks, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    model = models[name]
    assert found["recipe"] == model.config.recipe
    assert found["recipe_fields"] == str(default_recipe(model))
    assert found["decoder"] == mz.RECIPES[model.config.recipe].source
    assert (found["trained_length"], found["family"]) == (model.config.max_length, model.config.family)
    memory = model.memory(1, 100)
    assert found["memory_bytes"] == 2 * memory.keys.numel() * memory.keys.element_size()


def test_a_text_ends_at_its_mark():
    assert until("yes\n[/Answer] more", "[/Answer]") == ("yes\n", True)
    assert until("yes", "[/Answer]") == ("yes", False)
    assert until("yes", "") == ("yes", False)


@pytest.fixture
def chatty(tmp_path):
    """A folder of SDAR's family with a tokenizer of words w0 w1 ... and a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path / "sdar"
    shutil.copytree(HERE / "families" / FOLDERS["sdar"], folder)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(304)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "{% for m in messages %}w7 {{ m['content'] }} w8{% endfor %}"
    PreTrainedTokenizerFast(tokenizer_object=words, chat_template=template).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("commit", ["at_least:tau=0.5", "edit:tau=0.5,edit=0.3,most=4"])
def test_text_in_text_out(chatty, commit):
    """The answer begins inside a block; what is streamed is what is generated, also where tokens are rewritten."""
    model, tokenizer = mz.load(chatty, mask_id=296)
    recipe = default_recipe(model).with_(gen_length=12, commit=commit, early_stop="off")
    whole = mz.generate(model, tokenizer, "w20 w21 w22 w23", recipe)
    assert len(whole.tokens) <= 12
    assert "".join(mz.stream(model, tokenizer, "w20 w21 w22 w23", recipe)) == whole.text
    several = mz.generate(model, tokenizer, ["w20 w21 w22 w23", "w5"], recipe)
    assert several[0].text == whole.text
    assert [len(one.tokens) for one in several] == [len(whole.tokens), len(mz.generate(model, tokenizer, "w5", recipe).tokens)]


def test_a_gap_is_filled_in_the_models_blocks(chatty):
    model, tokenizer = mz.load(chatty, mask_id=296)
    recipe = default_recipe(model).with_(gen_length=8)
    with pytest.warns(UserWarning, match="sdar sees blocks of 4 tokens and nothing behind them: 1 of the tokens given behind a gap"):
        result = mz.infill(model, tokenizer, "w1 w2 w3 w4 w5 [[5]] w6", recipe)
    assert len(result.fills[0].split()) == 5
    assert result.text.endswith(" w6")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mz.infill(model, tokenizer, "w1 w2 w3 w4 w5 [[2]] w6", recipe)


def test_the_command_line_says_that_text_behind_a_gap_is_not_seen(chatty, capsys):
    assert main(["infill", "w1 w2 w3 w4 [[3]] w5 w6 w7", "--model", str(chatty), "--mask-id", "296"]) == 0
    out, said = capsys.readouterr()
    assert len(out.split()) >= 7
    assert said.startswith("mezzotint: warning: sdar sees blocks of 4 tokens")


def test_the_command_line_answers_with_the_familys_own_recipe(chatty, capsys):
    """Without a word about blocks, and under a named recipe made for other blocks."""
    for asked, commit in (([], "at_least"), (["--recipe", "threshold"], "threshold")):
        assert main(["generate", "w20 w21 w22", "--model", str(chatty), "--mask-id", "296", "--gen-length", "8", "--json", *asked]) == 0
        recipe = json.loads(capsys.readouterr().out)["recipe"]
        assert (recipe["block_length"], recipe["commit"]) == (4, commit)


def test_families_that_keep_their_template_in_code(tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    for name, template in (("modernbert", None), ("a2d", "{{ enable_thinking }}")):
        folder = tmp_path / name
        shutil.copytree(HERE / "families" / FOLDERS[name], folder)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")), chat_template=template)
        tokenizer.save_pretrained(folder)
        _, tokenizer = mz.load(folder, mask_id=296)
        text = tokenizer.apply_chat_template([{"role": "user", "content": "Why?"}], tokenize=False, add_generation_prompt=True)
        assert text == ("False" if template else "\n[Question]\nWhy?\n[/Question]\n\n[Answer]\n")
