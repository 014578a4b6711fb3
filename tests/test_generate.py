"""Text in, text out, on the bundled model."""

import copy
import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

import mezzotint as mz
from mezzotint.generation import answer_ids, encode, infill, load_tokenizer, stream

QUESTION = "Copy these words: amber coral lantern"
SHORT = mz.Recipe(gen_length=32, block_length=16)


def test_stream_joins_to_the_answer_and_never_takes_back(bundled):
    model, tokenizer = bundled
    for recipe in (SHORT, SHORT.with_(commit=mz.Threshold(0.7)), SHORT.with_(max_tokens=20)):
        pieces = list(stream(model, tokenizer, QUESTION, recipe))
        assert all(pieces)
        assert "".join(pieces) == mz.generate(model, tokenizer, QUESTION, recipe).text


def test_a_list_of_prompts_equals_one_by_one(bundled):
    model, tokenizer = bundled
    prompts = [QUESTION, "Sort from small to large: 9 4 31", "How often does fox occur? fox tiger fox"]
    together = mz.generate(model, tokenizer, prompts, SHORT)
    alone = [mz.generate(model, tokenizer, p, SHORT) for p in prompts]
    assert [r.text for r in together] == [r.text for r in alone]
    assert [r.forwards for r in together] == [r.forwards for r in alone]


def test_tokens_are_those_before_the_stop(bundled):
    model, tokenizer = bundled
    result = mz.generate(model, tokenizer, QUESTION, SHORT)
    assert not set(result.tokens.tolist()) & set(model.config.stop_ids)
    assert tokenizer.decode(result.tokens) == result.text
    assert result.finish_reason in ("stop", "length")
    assert result.recipe == SHORT
    assert result.seconds > 0
    limited = mz.generate(model, tokenizer, QUESTION, SHORT.with_(max_tokens=2))
    assert len(limited.tokens) <= 2


def test_answer_ids():
    assert answer_ids([5, 6, 1, 7], [1, 2]) == ([5, 6], True)
    assert answer_ids([5, 6, 7], [1]) == ([5, 6, 7], False)
    assert answer_ids([5, 6, 7, 1], [1], limit=2) == ([5, 6], False)


def test_chat_and_plain_prompts(bundled):
    model, tokenizer = bundled
    chat = encode(tokenizer, "hello")
    assert chat == encode(tokenizer, [{"role": "user", "content": "hello"}])
    assert tokenizer.decode(chat).startswith("<|startoftext|><|start_header_id|>user")
    raw = encode(tokenizer, "hello", chat=False)
    assert tokenizer.decode(raw) == "<|startoftext|>hello"
    for empty in ("", "  \n", []):
        with pytest.raises(ValueError, match="empty"):
            encode(tokenizer, empty)
    with pytest.raises(ValueError, match=f"context is {model.config.max_length}"):
        mz.generate(model, tokenizer, "amber " * 6000, SHORT)


def test_turn_end_is_a_stop_id(bundled):
    model, tokenizer = bundled
    assert tokenizer.convert_tokens_to_ids("<|eot_id|>") in model.config.stop_ids
    assert model.config.stop_ids[0] == tokenizer.eos_token_id


def test_infill_keeps_what_is_given(bundled):
    model, tokenizer = bundled
    text = "def add(a, b):\n    return [[3]]\n\n\ndef twice(x):\n    return [[3]]\n"
    result = infill(model, tokenizer, text)
    before, middle, after = text.split("[[3]]")
    assert result.text == before + result.fills[0] + middle + result.fills[1] + after
    loose = infill(model, tokenizer, "Copy these words: amber coral\n[[24]]", ends=False)
    assert loose.finish_reason == "length"
    assert len(loose.tokens) == len(tokenizer("Copy these words: amber coral\n", add_special_tokens=False)["input_ids"]) + 1 + 24
    assert loose.forwards >= 24
    for wrong, word in (("no gap", "no gap"), ("[[0]]", "gap of 0"), ("[[99999]]", "1 to 4096")):
        with pytest.raises(ValueError, match=word):
            infill(model, tokenizer, wrong)


def test_a_text_with_gaps_may_fill_the_context(bundled):
    model, tokenizer = bundled
    text = "Copy these words: amber coral\n[[4]]"
    length = len(infill(model, tokenizer, text).tokens)
    short = copy.copy(model)
    short.config = dataclasses.replace(model.config, max_length=length)
    assert len(infill(short, tokenizer, text).tokens) == length
    for scaling, reach in ((None, length - 1), (mz.RopeScaling("ntk", 1.0, length - 1), length - 1)):
        short.config = dataclasses.replace(model.config, max_length=length - 1, rope_scaling=scaling)
        with pytest.raises(ValueError, match=f"the text with its gaps has {length} tokens, the model's context is {reach}; .* ntk:2"):
            infill(short, tokenizer, text)
    prompt = encode(tokenizer, QUESTION)
    short.config = dataclasses.replace(model.config, max_length=len(prompt), rope_scaling=mz.RopeScaling("linear", 1.0, len(prompt)))
    with pytest.raises(ValueError, match=f"the prompt has {len(prompt)} tokens"):
        mz.generate(short, tokenizer, QUESTION, SHORT)


def test_a_slow_tokenizer_of_the_checkpoint_is_replaced(bundled, tmp_path):
    """Dream's folder names a Python class of its own; the vocabulary is read without it."""
    import json

    tokenizer = bundled[1]
    model = json.loads((Path(mz.models.loading.BUNDLED) / "tokenizer.json").read_text())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"])
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + merges + "\n")
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "DreamTokenizer", "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]}})
    )
    shutil.copy(Path(__file__).parent / "golden" / "dpad" / "ckpt_dream_tiny" / "config.json", tmp_path / "config.json")
    found = load_tokenizer(tmp_path)
    assert found("Copy these words")["input_ids"] == tokenizer("Copy these words", add_special_tokens=False)["input_ids"]


def test_the_bundled_model_fits_the_package(bundled):
    model, _ = bundled
    folder = mz.models.loading.BUNDLED
    assert sum(f.stat().st_size for f in folder.iterdir()) <= 24 * 2**20
    assert model.dtype == torch.float32
    assert model.config.family == "llada"
