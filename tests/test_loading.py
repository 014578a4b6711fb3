"""Checkpoints: what is read, what is refused and how that is said."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import mezzotint as mz
from mezzotint.describing import describe
from mezzotint.models.families import family_of, llada
from mezzotint.models.rope import frequencies, from_checkpoint

TINY = Path(__file__).parent / "golden" / "dpad" / "ckpt_llada_tiny"


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def edit(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def shard(folder: Path, parts: int) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    table = {}
    for part in range(parts):
        file = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        names = sorted(tensors)[part::parts]
        save_file({n: tensors[n] for n in names}, folder / file)
        table |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))


def test_shards_equal_one_file(folder):
    whole = mz.load_model(folder)
    shard(folder, 3)
    split = mz.load_model(folder)
    tokens = torch.arange(20)[None]
    assert torch.equal(whole(tokens), split(tokens))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", torch.float64])
def test_any_dtype(folder, dtype):
    model = mz.load_model(folder, dtype=dtype)
    assert model.dtype == (dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype))
    assert model(torch.arange(8)[None]).dtype == model.dtype


def test_llada_config_round_trip(folder):
    config = mz.load_model(folder).config
    assert llada.configure(llada.official(config)) == config
    assert family_of(llada.official(config)) is llada


def break_missing_shard(folder):
    shard(folder, 3)
    (folder / "model-00002-of-00003.safetensors").unlink()


def break_truncated(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def break_tensor(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.transformer.blocks.1.k_proj.weight"]
    save_file(tensors, folder / "model.safetensors")


def break_shape(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.transformer.ln_f.weight"] = torch.ones(63)
    save_file(tensors, folder / "model.safetensors")


def add(folder, name, value=1.0):
    save_file(load_file(folder / "model.safetensors") | {name: torch.full((64,), value)}, folder / "model.safetensors")


def break_precision(folder):
    tensors = load_file(folder / "model.safetensors")
    name = "model.transformer.blocks.1.k_proj.weight"
    save_file(tensors | {name: tensors[name].to(torch.float8_e4m3fn)}, folder / "model.safetensors")


def break_pickle(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"never read")


def break_index_outside(folder):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (break_missing_shard, ["model-00002-of-00003.safetensors"]),
        (break_truncated, ["model.safetensors", "truncated"]),
        (break_tensor, ["blocks.1.k_proj.weight"]),
        (break_shape, ["ln_f.weight", "(63,)", "(64,)"]),
        (break_precision, ["blocks.1.k_proj.weight", "float8_e4m3fn", "bfloat16"]),
        (lambda f: edit(f, quantization_config={"quant_method": "fp8"}), ["quantization_config", "fp8"]),
        (break_pickle, ["pytorch_model.bin", "pickle", "safetensors"]),
        (break_index_outside, ["../../etc/passwd"]),
        (lambda f: edit(f, architectures=["GPT2LMHeadModel"]), ["GPT2LMHeadModel", "LLaDAModelLM", "DreamModel"]),
        (lambda f: edit(f, architectures=["LLaDAMoEModelLM"]), ["which a LLaDA-MoE checkpoint needs"]),
        (lambda f: edit(f, n_heads=None), ["n_heads"]),
        (lambda f: edit(f, n_layers="three"), ["n_layers='three'"]),
        (lambda f: edit(f, alibi=True), ["alibi=True"]),
        (lambda f: edit(f, n_heads=0), ["n_heads=0"]),
        (lambda f: edit(f, mask_token_id=99999), ["99999", "vocabulary"]),
        (lambda f: edit(f, n_heads=7, n_kv_heads=7), ["64", "7 heads"]),
        (lambda f: edit(f, n_kv_heads=3), ["n_kv_heads=3", "4 heads"]),
        (lambda f: edit(f, mlp_hidden_size=None, mlp_ratio=[4]), ["mlp_ratio=[4]"]),
        (lambda f: edit(f, bias_for_layer_norm=True), ["bias_for_layer_norm=True"]),
        (lambda f: edit(f, clip_qkv=8.0), ["clip_qkv=8.0"]),
        (lambda f: edit(f, eos_token_id=[1, 99999]), ["eos_token_id 99999", "vocabulary"]),
        (lambda f: edit(f, pad_token_id=99999), ["pad_token_id 99999", "vocabulary"]),
        (lambda f: add(f, "model.transformer.blocks.1.attn_norm.bias"), ["blocks.1.attn_norm.bias", "no part of this network reads"]),
        (lambda f: add(f, "model.transformer.blocks.9.attn_norm.weight"), ["blocks.9.attn_norm.weight", "reads"]),
        (lambda f: add(f, "model.transformer.wpe.weight"), ["wpe.weight", "reads"]),
        (lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": [1]}'), ["index", "weight_map"]),
        (lambda f: (f / "config.json").write_text("{"), ["config.json", "JSON"]),
        (lambda f: (f / "config.json").unlink(), ["config.json"]),
    ],
    ids=lambda part: getattr(part, "__name__", "") if callable(part) else "-".join(part),
)
def test_damage_is_named(folder, damage, words):
    damage(folder)
    with pytest.raises(mz.CheckpointError) as error:
        mz.load_model(folder)
    assert all(word in str(error.value) for word in words), error.value


def test_what_changes_nothing_may_stand_in_a_checkpoint(folder):
    plain = mz.load_model(folder)
    edit(folder, bias_for_layer_norm=None, mlp_ratio=[4])
    for name, value in (("blocks.0.rotary_emb.inv_freq", 1.0), ("ln_f.bias", 0.0)):
        add(folder, f"model.transformer.{name}", value)
    add(folder, "optimizer.state")
    assert torch.equal(mz.load_model(folder)(torch.arange(8)[None]), plain(torch.arange(8)[None]))


@pytest.mark.parametrize(
    ("file", "content"),
    [("tokenizer_config.json", "[]"), ("tokenizer_config.json", '{"tokenizer_class": 5}'), ("tokenizer.json", "[]"), ("tokenizer.json", "{")],
)
def test_a_damaged_tokenizer_is_one_line(folder, file, content):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(mz.models.loading.BUNDLED / name, folder)
    (folder / file).write_text(content)
    with pytest.raises(mz.CheckpointError, match="tokenizer files are missing or damaged: ") as error:
        mz.load(folder)
    assert "\n" not in str(error.value)


def test_remote_code_is_never_run(folder):
    """A checkpoint may carry Python files and name them in auto_map; nothing of it is imported."""
    (folder / "modeling_llada.py").write_text("raise SystemExit('remote code ran')")
    edit(folder, auto_map={"AutoModel": "modeling_llada.LLaDAModelLM"})
    mz.load_model(folder)
    assert "modeling_llada" not in sys.modules


def test_neither_folder_nor_hub_id(tmp_path):
    for wrong in (str(tmp_path / "nothing"), "just-a-name", "a/b/c"):
        with pytest.raises(mz.CheckpointError, match="neither a folder nor a hub id"):
            mz.load_model(wrong)
    with pytest.raises(mz.CheckpointError, match="is a file"):
        mz.load_model(TINY / "config.json")


def test_tied_head_needs_no_tensor(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.transformer.ff_out.weight"]
    save_file(tensors, folder / "model.safetensors")
    edit(folder, weight_tying=True)
    model = mz.load_model(folder)
    assert model.head.weight is model.embedding.weight


def test_info_counts_every_parameter(folder):
    model = mz.load_model(folder)
    found = describe(folder, length=100)
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    assert found["weights_bytes"] == 4 * found["parameters"]
    memory = model.memory(1, 100)
    assert found["memory_bytes"] == 2 * memory.keys.numel() * 4


def test_activations_are_those_of_the_default_recipe(folder):
    """Dream's decodes one block of 256; the sampler holds two numbers for each logit, in float64 for LLaDA."""
    found = describe(folder, length=512)
    assert found["activations_bytes"] >= 32 * found["vocab_size"] * (4 + 2 * 8)
    found = describe(TINY.parent / "ckpt_dream_tiny", length=512)
    assert found["activations_bytes"] >= 256 * found["vocab_size"] * (4 + 3 * 4)


def test_info_of_a_folder_without_a_dtype(folder):
    edit(folder, torch_dtype=None)
    assert describe(folder)["stored_as"] == "bfloat16"
    with pytest.raises(ValueError, match="weights='int9' is unknown"):
        describe(folder, weights="int9")


def test_info_of_the_bundled_model_is_what_is_loaded():
    model, _ = mz.load()
    found = describe()
    assert found["weights_bytes"] == sum(p.numel() * p.element_size() for p in model.parameters())
    assert found["stop_ids"] == list(model.config.stop_ids)
    assert describe(dtype="bfloat16")["weights_bytes"] == found["weights_bytes"] / 2


@pytest.mark.parametrize(
    ("scaling", "rope"),
    [
        (mz.RopeScaling("linear", 2.0), {"rope_type": "linear", "factor": 2.0}),
        (mz.RopeScaling("yarn", 4.0, original_length=1024), {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}),
        (
            mz.RopeScaling("longrope", 4.0, factors=tuple(1 + i / 4 for i in range(32)), original_length=1024),
            {"rope_type": "longrope", "factor": 4.0, "long_factor": [1 + i / 4 for i in range(32)], "short_factor": [1.0] * 32},
        ),
        (
            mz.RopeScaling("yarn", 4.0, original_length=1024, attention_factor=1.5),
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024, "attention_factor": 1.5},
        ),
    ],
    ids=["linear", "yarn", "longrope", "yarn with a factor of its own"],
)
def test_scaled_frequencies_are_those_of_transformers(scaling, rope):
    from transformers import Qwen2Config
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = Qwen2Config(hidden_size=64, num_attention_heads=1, max_position_embeddings=4096, rope_parameters={"rope_theta": 1e4, **rope})
    config.original_max_position_embeddings = 1024
    inverse, factor = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, torch.device("cpu"), seq_len=4096)
    found, ours = frequencies(64, 1e4, scaling)
    torch.testing.assert_close(found, inverse)
    assert ours == pytest.approx(factor)
    if rope["rope_type"] != "linear":
        assert from_checkpoint(rope, 4096, 1024) == scaling


def test_longrope_takes_its_factor_from_the_lengths():
    field = {"rope_type": "longrope", "long_factor": [1.0, 2.0]}
    assert from_checkpoint(field | {"original_max_position_embeddings": 1024}, 4096) == from_checkpoint(field, 4096, 1024)
    assert from_checkpoint(field, 4096, 1024) == mz.RopeScaling("longrope", 4.0, 1024, (1.0, 2.0))
    with pytest.raises(ValueError, match="neither factor nor an original_max_position_embeddings"):
        from_checkpoint(field, 4096)


WRONG_SCALINGS = """
import json, sys
from mezzotint.models.rope import RopeScaling, from_checkpoint
for text in ("linear:inf", "linear:nan", "yarn:4@-5", "yarn:4@1", "ntk:4@8", "linear:2@1024"):
    try:
        print(RopeScaling.parse(text))
    except ValueError as error:
        print(error)
for fields in ({"original_length": "4096"}, {"original_length": None}, {"factor": "2"}, {"factors": 3}, {"factors": [1, "x"]}, {"beta_fast": 0},
               {"factors": [1.0]}, {"kind": "ntk", "beta_fast": 8}, {"kind": "linear", "attention_factor": 2}, {"kind": "ntk", "original_length": 8}):
    with open(sys.argv[1], "w") as file:
        json.dump({"kind": "yarn", "factor": 2} | fields, file)
    try:
        print(RopeScaling.parse(sys.argv[1]))
    except ValueError as error:
        print(error)
LONG = {"rope_type": "longrope", "factor": 2, "long_factor": 1}
for field in ({"factor": [2]}, LONG, {"attention_factor": 0}, {"mscale": 0.7}, {"original_max_position_embeddings": "many"}):
    try:
        print(from_checkpoint({"rope_type": "yarn"} | field, 4096))
    except ValueError as error:
        print(error)
"""


def test_scalings_that_are_nonsense_are_refused_by_name(tmp_path):
    """In a process of its own, where no shape checker stands before them."""
    done = subprocess.run([sys.executable, "-c", WRONG_SCALINGS, str(tmp_path / "scaling.json")], capture_output=True, text=True, check=True)
    wanted = (
        "factor=inf",
        "factor=nan",
        "original_length=-5",
        "original_length=1",
        "original_length=8",
        "original_length=1024",
        "original_length='4096'",
        "original_length=None",
        "factor='2'",
    )
    wanted += ("factors has 3", "factors has 'x'", "beta_fast=0")
    wanted += (
        "factors=(1.0,) has no effect",
        "beta_fast=8 has no effect",
        "attention_factor=2 has no effect",
        "original_length=8 has no effect",
        "factor=[2]",
        "factors has 1",
        "attention_factor=0",
        "mscale=0.7",
        "original_length='many'",
    )
    for line, word in zip(done.stdout.splitlines(), wanted, strict=True):
        assert word in line
        assert not line.startswith("RopeScaling")


def test_a_checkpoints_scaling_may_have_fields_that_its_kind_does_not_use():
    extra = {"factor": 2.0, "beta_fast": 16, "long_factor": [1.0], "attention_factor": 1.5, "low_freq_factor": 1.0}
    assert from_checkpoint({"rope_type": "linear"} | extra, 1024) == mz.RopeScaling("linear", 2.0, 1024)


def test_a_scaling_reaches_as_far_as_its_factor(folder):
    for scaling, reach in ((None, 1024), ("linear:1", 1024), ("ntk:2", 2048), ("yarn:4@512", 2048), ("yarn:1.5@512", 1024)):
        assert mz.load_model(folder, rope_scaling=scaling).config.reach == reach


def test_ntk_scaling_slows_the_slowest_frequency_by_its_factor():
    plain, scaled = frequencies(64, 1e4, None)[0], frequencies(64, 1e4, mz.RopeScaling("ntk", 4.0))[0]
    assert scaled[0] == plain[0]
    assert plain[-1] / scaled[-1] == pytest.approx(4.0, rel=1e-4)


def test_a_long_context_can_be_scaled(folder):
    tokens = torch.arange(64)[None]
    plain = mz.load_model(folder)(tokens)
    for scaling in ("linear:2", "ntk:4", "yarn:4", mz.RopeScaling("longrope", 2.0, factors=(1.0,) * 8, original_length=1024)):
        model = mz.load_model(folder, rope_scaling=scaling)
        assert not torch.equal(model(tokens), plain)
        assert model.config.rope_scaling.original_length == 1024
    assert torch.equal(mz.load_model(folder, rope_scaling="linear:1")(tokens), plain)
    for wrong, word in (("cubic:2", "cubic"), ("ntk:0.5", "0.5"), ("ntk:x", "ntk:x")):
        with pytest.raises(ValueError, match=word):
            mz.load_model(folder, rope_scaling=wrong)


PEAK = """
import resource, sys, torch
import mezzotint as mz
from mezzotint.describing import describe
from mezzotint.models.transformer import Transformer
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = mz.load_model(sys.argv[1], dtype=sys.argv[2])
for p in model.parameters():
    p.sum()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((peak - base) * 1024 / sum(p.numel() * p.element_size() for p in model.parameters()))
"""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_peak_memory_is_that_of_the_weights(folder, dtype):
    """A checkpoint of 250 MB, loaded as stored and converted: at most 1.1 times the weights."""
    edit(folder, d_model=1024, n_layers=6, n_heads=8, n_kv_heads=8, mlp_hidden_size=2048, embedding_size=4096, vocab_size=4096)
    from mezzotint.models.families.names import translate
    from mezzotint.models.transformer import Transformer

    config = llada.configure(json.loads((folder / "config.json").read_text()))
    with torch.device("meta"):
        shapes = dict(Transformer(config).named_parameters())
    save_file({theirs: torch.randn(shapes[ours].shape) for ours, theirs in translate(llada, config).items()}, folder / "model.safetensors")
    done = subprocess.run([sys.executable, "-c", PEAK, str(folder), dtype], capture_output=True, text=True, check=True)
    assert float(done.stdout) <= 1.1


def test_a_hub_id_is_found_in_the_cache_without_network(tmp_path):
    """What the hub client has cached loads by its id while offline; what it has not is one clear error."""
    snapshot = tmp_path / "hub" / "models--some--model" / "snapshots" / "abc"
    shutil.copytree(TINY, snapshot)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc")
    program = "import sys, mezzotint as mz; print(mz.load_model(sys.argv[1]).config.family)"
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    found = subprocess.run([sys.executable, "-c", program, "some/model"], env=environment, capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "llada", found.stderr
    missing = subprocess.run([sys.executable, "-m", "mezzotint", "info", "some/other"], env=environment, capture_output=True, text=True, check=False)
    assert missing.returncode == 2
    assert "some/other" in missing.stderr
    assert len(missing.stderr.strip().splitlines()) == 1
