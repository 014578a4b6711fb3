"""`mezzotint prune` and `mezzotint inspect` as a user runs them, and the page in a real browser."""

import json
import os
import shutil

import pytest
import torch
from conftest import HERE

import mezzotint as mz
from mezzotint.analysis import record_generation, record_noise
from mezzotint.analysis.causal import load_causal, prefix_share, record_causal
from mezzotint.analysis.inspection import Patterns, inspect, overlap
from mezzotint.analysis.page import colour, page, png
from mezzotint.cli import main

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def test_prune_writes_a_checkpoint_that_generates(tmp_path, capsys):
    out = tmp_path / "small"
    common = ["--samples", "8", "--sample-length", "48", "--out", str(out), "--json"]
    assert main(["prune", "--method", "magnitude", "--sparsity", "0.3", "--compact", *common]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["sparsity"] >= 0.3
    assert report["quality_drop_threshold"] is None
    assert main(["generate", "hello", "--model", str(out), "--gen-length", "8", "--block-length", "8", "--json"]) == 0
    assert "text" in json.loads(capsys.readouterr().out)
    assert [p.name for p in tmp_path.iterdir()] == ["small"]
    assert main(["prune", "--method", "magnitude", *common]) == 2
    assert "is there already" in capsys.readouterr().err


def test_prune_structured_reports_what_was_reached(tmp_path, capsys):
    out = tmp_path / "small"
    goal = ["--target-speedup", "1.05", "--quality-drop-threshold", "3", "--measure", "ppl", "--cost", "flops", "--length", "128"]
    assert main(["prune", "--out", str(out), "--json", *goal, "--samples", "8", "--sample-length", "48"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["speedup"] >= 1.05
    assert report["quality_drop"] <= 3
    assert (report["measure"], report["preset"]) == ("ppl", "balanced")
    assert report["parameter_ratio"] < 1
    assert json.loads((out / "pruning.json").read_text())["kept"]
    assert mz.load_model(out).config.parameters() < mz.load_model().config.parameters()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "tiny"], "preset='tiny' is unknown"),
        (["--preset", "paper", "--target-speedup", "1.3"], "--target-speedup has no effect"),
        (["--preset", "balanced", "--method", "sink"], "--method has no effect"),
        (["--method", "sinks"], "method='sinks' is unknown"),
        (["--quantise", "int3"], "quantise='int3' is unknown"),
        (["--target-speedup", "0.5"], "target_speedup=0.5"),
        (["--samples", "1"], "samples=1"),
        (["--method", "magnitude", "--quality-drop-threshold", "1e-9", "--samples", "8", "--sample-length", "48"], "nothing was written"),
    ],
)
def test_prune_refuses_in_one_line(tmp_path, capsys, options, message):
    assert main(["prune", "--out", str(tmp_path / "x"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_inspection_sees_shares_patterns_and_the_suffix(tiny):
    model = tiny["llada"]
    prompt = torch.randint(5, 100, (20,), generator=torch.Generator().manual_seed(0))
    seen = inspect(model, prompt, mz.Recipe(gen_length=32, block_length=8, early_stop="off"), watched=8)
    assert seen.recording.share.shape == (1, model.config.layers, model.config.heads, 8, 52)
    torch.testing.assert_close(seen.overlap[0], torch.ones(model.config.layers))
    assert (seen.overlap[1:] < 1).any()
    assert seen.suffix.shape == (model.config.layers, 24)
    assert ((seen.suffix > 0) & (seen.suffix < 1)).all()
    assert seen.blocks[0] == 20
    assert not (seen.tokens == model.config.mask_id).any()
    with pytest.raises(ValueError, match="suffix=full"):
        inspect(model, prompt, mz.Recipe(gen_length=64, block_length=8, suffix=mz.DPad(window=8)))
    with pytest.raises(ValueError, match="without cache"):
        inspect(model, prompt, mz.Recipe(gen_length=32, block_length=8, cache=mz.DualCache()))


@pytest.mark.parametrize(("name", "limit"), [("modernbert", "window="), ("sdar", "block_length=4")])
def test_models_that_do_not_see_everything_are_refused_by_name(name, limit):
    model = mz.load_model(HERE / "families" / name / f"{name}_tiny", mask_id=296)
    prompt, recipe = torch.arange(5, 17), mz.Recipe(gen_length=8, block_length=4)
    for look in (lambda: inspect(model, prompt, recipe), lambda: record_noise(model, prompt[None]), lambda: record_generation(model, prompt[None], recipe)):
        with pytest.raises(ValueError, match=f"a {name} model has .*{limit}.*accepted"):
            look()


def test_of_all_steps_patterns_three_are_kept():
    patterns, steps = Patterns(middle=2), torch.rand(6, 2, 3, 4, 4)
    for step in steps:
        patterns.add(list(step))
    assert list(patterns.kept) == [0, 2, 5]
    torch.testing.assert_close(torch.stack(list(patterns.kept.values())), steps[[0, 2, 5]])
    torch.testing.assert_close(torch.stack(patterns.overlap), torch.stack([overlap(steps[0], step) for step in steps]))


def test_a_causal_models_even_attention_has_no_sink():
    even = torch.ones(2, 3, 40, 40).tril() / torch.arange(1, 41)[:, None]
    share = prefix_share(even, 30)
    torch.testing.assert_close(share[..., :30], torch.full((2, 3, 30), 1 / 30))
    assert not share[..., 30:].any()


def test_a_causal_checkpoint_beside(tiny):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    config._attn_implementation = "eager"
    recording = record_causal(Qwen2ForCausalLM(config).eval(), torch.randint(64, (32,)), steps=6)
    assert recording.share.shape == (1, 2, 4, 6, 32)
    seen = inspect(tiny["dream"], torch.arange(5, 20), mz.Recipe(gen_length=16, block_length=8), watched=4)
    text = page(seen, title="<b>", text="<script>", settings="", beside=("sibling", recording))
    assert "sibling" in text
    assert "<script>" not in text
    with pytest.raises(ValueError, match="8 to"):
        record_causal(None, torch.arange(3))


def test_figures_for_a_notebook(tiny, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    from mezzotint.analysis import figures

    seen = inspect(tiny["llada"], torch.arange(5, 25), mz.Recipe(gen_length=16, block_length=8, early_stop="off"), watched=4)
    model, heads = tiny["llada"].config, seen.recording.heads()
    pair = {"one": seen.recording, "other": seen.recording}
    made = {
        "map": figures.sink_map(pair),
        "path": figures.sink_path(pair),
        "instability": figures.instability_map(heads.instability.mean(0)),
        "variances": figures.variances(pair),
        "patterns": figures.head_patterns(seen, [(0, 0), (1, 1)]),
        "overlap": figures.pattern_overlap(seen),
        "suffix": figures.suffix_reach(seen),
    }
    for name, figure in made.items():
        figure.savefig(tmp_path / f"{name}.png", dpi=40)
        assert (tmp_path / f"{name}.png").stat().st_size > 1000, name
    assert made["map"].axes[0].images[0].get_array().shape == (4, 36)
    assert made["instability"].axes[0].images[0].get_array().shape == (model.layers, model.heads)
    assert len(made["suffix"].axes[0].lines) == model.layers
    values = figures.layer_variances(seen.recording)
    assert values["spatial"].shape == (model.layers,)
    assert ((values["temporal"] >= 0) & (values["temporal"] <= 1)).all()


def test_pictures_are_png():
    assert png(colour(torch.tensor([[0.0, 1.0], [torch.nan, 0.5]])))[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def sibling(tmp_path, bundled):
    """A causal checkpoint with the bundled model's vocabulary."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model, tokenizer = bundled
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": model.config.vocab_size}
    folder = tmp_path / "causal"
    LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_sibling_of_the_same_vocabulary_reads_the_very_tokens(bundled, sibling):
    from mezzotint.cli.inspect import as_read

    model, tokenizer = bundled
    stop = model.config.stop_ids[0]
    canvas = torch.tensor([tokenizer.bos_token_id, 20, 21, 30, 31, stop, stop])
    other = load_causal(sibling)[1]
    assert as_read(other, tokenizer, canvas, model.config.stop_ids, 3).tolist() == [tokenizer.bos_token_id, 20, 21, 30, 31]


def test_inspect_writes_a_page_that_a_browser_shows_without_network(tmp_path, capsys, sibling):
    out = tmp_path / "report.html"
    few = ["--gen-length", "16", "--block-length", "8", "--watched", "4", "--prompt", "Copy these words: amber coral"]
    assert main(["inspect", *few, "--beside", str(sibling), "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["steps"] == 4
    assert set(said["beside"]) == set(said["figures"])
    assert main(["inspect", "--gen-length", "4096", "--out", str(out)]) == 2
    assert "the prompt with its answer has 4" in capsys.readouterr().err
    assert "http" not in out.read_text()
    assert "prune --ranking instability</code> measures the same" in out.read_text()
    assert main(["inspect", "--out", str(tmp_path / "no" / "x.html")]) == 2
    assert main(["inspect", "--prompt", "", "--out", str(out)]) == 2
    assert "prompt='' is empty" in capsys.readouterr().err
    sync = pytest.importorskip("playwright.sync_api", reason="drives the browser with playwright: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium on the PATH (Debian: apt-get install chromium) or in $CHROMIUM")
    with sync.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        asked, failed = [], []
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("pageerror", lambda error: failed.append(str(error)))
        tab.goto(out.as_uri())
        assert tab.locator("h2").all_text_contents() == [
            "Sinks over the run",
            "Instability of each head",
            "Head patterns, and how long they last",
            "Attention to the suffix",
        ]
        assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        assert tab.locator("img").count() > 6
        assert tab.locator("svg polyline").count() > 6
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
        assert failed == []
        browser.close()


def test_unknown_sources_are_named(tmp_path):
    assert main(["inspect", "--beside", str(HERE / "dpad" / "ckpt_llada_tiny"), "--out", str(tmp_path / "x.html")]) == 2
