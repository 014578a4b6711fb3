"""The search for a recipe: the order of the rungs, what is kept, that quality binds, and the file it writes."""

import dataclasses
import json

import pytest

import mezzotint as mz
from mezzotint.bench import tuning
from mezzotint.bench.questions import Answer, Question, gather
from mezzotint.bench.tuning import hand_written, ranked, rungs, space, tune, understood, work
from mezzotint.cli import main
from mezzotint.recipes import RECIPES, read

REFERENCE = mz.Recipe(gen_length=16, block_length=16)


def test_rungs_grow_by_three_up_to_all_questions():
    assert rungs(95, 40) == [5, 14, 40]
    assert rungs(95, 400) == [15, 45, 134, 400]
    assert rungs(3, 40) == [40]
    assert rungs(1000, 3) == [3]


def test_ranking_takes_frontier_after_frontier():
    points = {"slow good": (9.0, 1.0), "fast bad": (1.0, 0.2), "slow bad": (9.5, 0.1), "middle": (4.0, 0.8), "worse middle": (5.0, 0.8)}
    assert ranked(points) == ["fast bad", "middle", "slow good", "worse middle", "slow bad"]


def test_the_space_holds_the_hand_written_recipes():
    found = list(space(mz.Recipe(), 100, "cpu").values())
    for name in ("threshold", "factor", "local-leap", "entropy-bound", "prefix", "dual", "dkv", "dkv-prefill", "dkv-pd", "dkv-greedy", "dllm-cache"):
        assert RECIPES[name].recipe in found, name
    long = list(space(mz.Recipe(), 4096, "cpu").values())
    assert RECIPES["sparsed"].recipe in long
    written = hand_written(mz.Recipe(gen_length=256), 100, "cpu")
    assert written["dpad:llada-gsm8k"].suffix == mz.DPad(256, 4.0, 2.0)
    assert "sparsed" not in written
    assert "llada2" not in written
    assert "sdar" in hand_written(mz.named("llada2"), 100, "cpu")
    assert all(isinstance(r.attention, mz.Dense) for r in found)
    assert any(isinstance(r.attention, mz.SparseD) for r in space(mz.Recipe(), 4096, "cpu").values())
    assert any(r.block_length == 32 for r in space(mz.named("dream-greedy"), 100, "cpu").values())
    assert not any(isinstance(r.suffix, mz.DPad | mz.NoSuffix) for r in space(REFERENCE, 100, "cpu").values())
    assert mz.Recipe() not in found


CANDIDATES = {
    "careful": REFERENCE.with_(commit="threshold:tau=0.95"),
    "hasty": REFERENCE.with_(commit="quota", gen_length=2, block_length=2, steps=1),
    "slow": REFERENCE.with_(cache="prompt"),
    "cached": REFERENCE.with_(commit="threshold:tau=0.95", cache="dual"),
}


@pytest.fixture(scope="module")
def found(bundled):
    model, tokenizer = bundled
    asked: list[str] = []
    result = tune(model, tokenizer, gather(["lists"], 6), REFERENCE, CANDIDATES, max_loss=0, measure="positions", report=asked.append)
    return result, asked


def test_quality_binds(found):
    """One forward for two tokens is cheapest and wrong; what is chosen is as right as the reference and cheaper."""
    result, _ = found
    assert result.name in ("careful", "cached")
    assert result.recipe == CANDIDATES[result.name]
    assert result.search["loss"] <= 0
    assert result.check["loss"] <= 0
    assert (result.search["questions"], result.check["questions"]) == (4, 2)
    assert result.search["forwards"] < 8
    hasty = next(row for row in result.frontier if row["name"] == "hasty")
    assert hasty["loss"] > 0
    assert hasty["ci"][0] <= hasty["loss"] <= hasty["ci"][1]


def test_no_question_is_put_twice_but_the_first_to_the_reference(found):
    result, asked = found
    assert asked[0] == "reference"
    everyone = ["reference", *CANDIDATES]
    assert all(sorted(asked[1 + 5 * turn : 6 + 5 * turn]) == sorted(everyone) for turn in range(4))
    final = ["reference", *(name for name in CANDIDATES if asked.count(name) == 6)]
    turns = asked[-2 * len(final) :]
    assert sorted(turns[: len(final)]) == sorted(turns[len(final) :]) == sorted(final)
    assert asked.count("reference") == 7
    assert all(asked.count(name) in (4, 6) for name in CANDIDATES)
    assert asked.count("hasty") == 4  # what loses does not answer the last third
    assert len(asked) <= work(len(CANDIDATES), 6)
    assert result.rungs == [{"questions": 4, "recipes": 4}]


def test_everything_is_timed_in_turn(bundled, monkeypatch):
    """On a machine that has become twice as slow since the reference first answered, the speedups are what they were, in search and check."""
    model, tokenizer = bundled
    calls: list[float] = []

    def put(model, tokenizer, question, recipe):
        calls.append(1.0 if len(calls) < 2 else 2.0)
        return Answer("", True, calls[-1] * (4 if recipe == REFERENCE else 1), 1, 1, 1, 1)

    monkeypatch.setattr(tuning, "put", put)
    result = tune(model, tokenizer, gather(["lists"], 6), REFERENCE, {"careful": CANDIDATES["careful"]})
    assert (result.name, result.search["speedup"], result.check["speedup"]) == ("careful", 4, 4)
    assert [row["speedup"] for row in result.frontier] == [4]
    assert len(calls) == 1 + 1 + 1 + 2 * 6  # warm-ups, the one question that the reference answers alone, and all in turn


def test_time_ends_the_search(bundled):
    """Without time every rung still puts one question, and the check one."""
    model, tokenizer = bundled
    asked: list[str] = []
    result = tune(model, tokenizer, gather(["code"], 8), REFERENCE, CANDIDATES, max_loss=0, measure="positions", seconds=0, report=asked.append)
    assert result.rungs == [{"questions": 1, "recipes": 4}]
    assert result.search["questions"] == 1
    assert result.check["questions"] in (1, 2)
    assert asked.count("reference") <= 8 + 1 + result.check["questions"]
    assert all(asked.count(name) <= 2 for name in CANDIDATES)


def test_a_recipe_that_the_model_refuses_does_not_take_part(tiny):
    config = dataclasses.replace(tiny["llada"].config, block_length=16)
    assert not understood(config, REFERENCE.with_(cache="feature"))
    assert understood(config, REFERENCE.with_(cache="dual"))
    assert understood(tiny["llada"].config, REFERENCE.with_(cache="feature"))


def test_without_anything_better_the_reference_stays(bundled):
    model, tokenizer = bundled
    result = tune(model, tokenizer, gather(["lists"], 6), REFERENCE, {"slow": CANDIDATES["slow"]}, measure="forwards")
    assert (result.name, result.recipe) == ("reference", REFERENCE)


def test_a_search_that_could_see_nothing_is_refused(bundled):
    model, tokenizer = bundled
    with pytest.raises(ValueError, match="too few"):
        tune(model, tokenizer, gather(["lists"], 2), REFERENCE, CANDIDATES)
    impossible = [Question("Copy these words: amber", "not that", "exact")] * 6
    with pytest.raises(ValueError, match="answers none of the 6"):
        tune(model, tokenizer, impossible, REFERENCE.with_(steps=2), {})


def test_the_command_writes_a_recipe_that_commands_take(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tuning, "COMMITS", ({"commit": "threshold:tau=0.9", "confidence": "probability"},))
    monkeypatch.setattr(tuning, "CACHES", ({}, {"cache": "dual"}))
    monkeypatch.setattr(tuning, "RECIPES", {})
    questions = tmp_path / "questions.jsonl"
    lines = [{"prompt": e.prompt, "answer": e.answer} for e in gather(["lists"], 6)]
    questions.write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "swift.json"
    words = ["--gen-length", "16", "--block-length", "16", "--max-loss", "100", "--by", "positions", "--out", str(out)]
    assert main(["tune", "--task", str(questions), *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    chosen = read(out)
    assert chosen.name == "swift"
    assert chosen.recipe.to_dict() == told["recipe"]
    finalists = told["finalists"]
    assert 1 <= finalists <= 5
    assert f"2 questions kept out of the search except for its last choice, among {finalists} (" in chosen.source
    check = told["check"]
    assert f"{check['loss']:.1f} points lost (95 % interval {check['ci'][0]:.1f} to {check['ci'][1]:.1f})" in chosen.source
    assert "--max-loss 100" in chosen.source
    assert main(["generate", "Copy these words: amber", "--recipe", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"] == told["recipe"]
    assert main(["tune", "--task", str(questions), *words]) == 2
    assert "exists" in capsys.readouterr().err


def test_all_lines_of_a_file_are_asked_unless_told_otherwise(tmp_path, monkeypatch):
    """Of a built-in task, 60."""
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"{i}?", "answer": "x"}) + "\n" for i in range(90)))
    asked: list[int] = []

    def stop(model, tokenizer, questions, *_, **more):
        asked.append(len(questions))
        raise ValueError("enough")

    monkeypatch.setattr(tuning, "tune", stop)
    for words in (["--task", str(file)], ["--task", str(file), "lists"], ["--task", str(file), "lists", "--count", "7"]):
        assert main(["tune", *words, "--out", str(tmp_path / "x.json")]) == 2
    assert asked == [90, 150, 14]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--task", "chess"], ["task='chess'", "math"]),
        (["--task", "lists", "--out", "x.yaml"], ["x.yaml", ".json"]),
        (["--task", "lists", "--max-loss", "101"], ["max_loss=101"]),
        (["--task", "lists", "--by", "joy"], ["by='joy'", "seconds"]),
        (["--task", "lists", "--count", "0"], ["count=0"]),
        (["--task", "code", "--steps", "16"], ["--steps", "gaps"]),
        (["--task", "lists", "--minutes", "0"], ["minutes=0"]),
        (["/no/such/model", "--task", "lists"], ["/no/such/model"]),
    ],
    ids=lambda part: " ".join(part)[:40],
)
def test_bad_input_is_one_line(words, named, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["tune", *words]) == 2
    told = capsys.readouterr()
    assert len(told.err.strip().splitlines()) == 1
    assert all(word in told.err for word in named), told.err
