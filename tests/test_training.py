"""The bundled model's recipe: its data, its noise, and a run that is cut off and goes on."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoTokenizer

import mezzotint as mz
from mezzotint.analysis.causal import load_causal, record_causal

TRAINING = Path(__file__).parent.parent / "training"
BUNDLED = Path(mz.__file__).parent / "bundled"
TINY = {"hidden_size": 64, "layers": 2, "heads": 8, "mlp_size": 32, "vocab_size": 2048, "tokens": 512, "long": 0.0}
SHORT = ["--mix", "prose=0", "code=0", "repeat=0"]

sys.path.insert(0, str(TRAINING))
data = pytest.importorskip("data")
train = pytest.importorskip("train")
checkpoint = pytest.importorskip("checkpoint")
export = pytest.importorskip("export")
causal = pytest.importorskip("causal")


@pytest.fixture(scope="module")
def source():
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED)
    return data.Source(tokenizer, data.prose_texts(None), 0, 512, SimpleNamespace(value=1.0), data.MIX)


def test_no_question_of_the_evaluation_is_trained_on(source):
    for task in ("math", "retrieval", "lists", "tools", "code", "recall", "count"):
        assert not any(source.example(task, 1.0).held_out for _ in range(60)), task
    shown = set(mz.evaluation.tasks.prose.paragraphs(evaluation=True))
    assert not shown & set(source.prose)


def test_batches_hold_items_of_one_length_whose_answers_can_be_masked(source):
    batches = iter(source)
    for _ in range(10):
        batch = next(batches)
        assert len({len(item.ids) for item in batch}) == 1
        masked, weight = train.noise(batch, torch.Generator().manual_seed(0), 1.0)
        for row, item in enumerate(batch):
            at = masked[row].nonzero()[:, 0]
            assert len(at)
            assert at[0] >= item.start
            assert at[-1] < item.end
            assert not weight[row][~masked[row]].any()
        assert torch.allclose(weight.sum(1), torch.ones(len(batch)))


def test_a_result_is_masked_with_its_copies(source):
    """In 3+4=7, 7+5=12 the second 7 would give the first away."""
    ids, groups = source.grouped("3+4=7\n7+5=12\n#### 12", 0, chained=True)
    said = [[source.tokenizer.decode([ids[i]]) for i in group] for group in groups]
    assert said == [["7", "7"], ["1", "2", "1", "2"]]


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    train.main()


def test_a_run_goes_on_where_it_was_cut_off_and_its_export_answers(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(train.PRESETS, "cpu", TINY)
    monkeypatch.setattr(train.tokenizer_recipe, "train", lambda prose, size, out: copied(out))
    words = ["--out", str(tmp_path / "run"), "--minutes", "0.03", "--no-compile", *SHORT]
    run(monkeypatch, *words, "--piece", "0.01")
    weights, first = checkpoint.read(tmp_path / "run")
    assert first["step"] > 0
    assert any(name.startswith("0/") for name in weights)
    run(monkeypatch, *words)
    said = capsys.readouterr().out
    _, last = checkpoint.read(tmp_path / "run")
    assert f"resumed at step {first['step']}" in said
    assert last["step"] > first["step"]
    assert last["tokens"] > first["tokens"]
    monkeypatch.setattr(sys, "argv", ["export.py", str(tmp_path / "run"), str(tmp_path / "model")])
    export.main()
    model, tokenizer = mz.load(tmp_path / "model", dtype="float32")
    trained = checkpoint.read(tmp_path / "run")[0]["weights/layers.0.mlp.gate.weight"]
    assert torch.equal(model.layers[0].mlp.gate.weight, trained.bfloat16().float())
    assert mz.generate(model, tokenizer, "Copy these words: amber coral", mz.Recipe(gen_length=8, block_length=8, steps=8)).forwards == 8


def copied(out):
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (out / file).write_bytes((BUNDLED / file).read_bytes())
    return AutoTokenizer.from_pretrained(out)


def test_a_checkpoint_keeps_weights_and_optimisers(tmp_path):
    torch.manual_seed(0)
    model, other = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    mine, theirs = (torch.optim.AdamW(m.parameters(), lr=0.1) for m in (model, other))
    for _ in range(3):
        model(torch.randn(2, 4)).square().sum().backward()
        mine.step()
        mine.zero_grad()
    checkpoint.save(tmp_path, model, [mine], {"step": 3})
    assert checkpoint.restore(tmp_path, other, [theirs]) == {"step": 3}
    x = torch.randn(2, 4)
    for m, optimiser in ((model, mine), (other, theirs)):
        m(x).square().sum().backward()
        optimiser.step()
    assert torch.equal(model.weight, other.weight)
    assert len(list(tmp_path.glob("step-*.safetensors"))) == 1


def test_a_causal_twin_is_trained_and_laid_beside(tmp_path, monkeypatch):
    monkeypatch.setitem(train.PRESETS, "cpu", TINY)
    monkeypatch.setattr(causal.mz, "load_model", lambda folder: SimpleNamespace(config=train.shape(TINY, AutoTokenizer.from_pretrained(BUNDLED))))
    monkeypatch.setattr(sys, "argv", ["causal.py", "--out", str(tmp_path), "--minutes", "0.02"])
    causal.main()
    _, counters = checkpoint.read(tmp_path)
    assert counters["step"] > 0
    model, tokenizer = load_causal(tmp_path)
    assert model.num_parameters() == train.shape(TINY, tokenizer).parameters()
    recording = record_causal(model, torch.tensor(tokenizer("The sum of three and four is seven.")["input_ids"]), steps=4)
    assert not recording.share[..., -1].isnan().any()
