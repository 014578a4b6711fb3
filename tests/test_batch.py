"""A file of questions into a file of answers: as if each were asked alone, whatever happens on the way."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import empties, interruptible

import mezzotint as mz
from mezzotint.appending import open_to_append
from mezzotint.batch.answering import one_by_one
from mezzotint.batch.job import Job, conditions
from mezzotint.batch.output import Output
from mezzotint.batch.questions import Question, Unanswerable, questions, read_line
from mezzotint.engine import Engine, EngineSettings
from mezzotint.engine.fleet import cores_here
from mezzotint.recipe import Recipe

RECIPE = mz.Recipe(gen_length=32, block_length=16, commit=mz.Threshold(0.9))
SETTINGS = EngineSettings(running=4, waiting=10_000)
LINES = [
    {"id": "copy", "prompt": "Copy these words: amber coral lantern"},
    {"id": 7, "messages": [{"role": "user", "content": "Sort from small to large: 9 4 31"}], "seed": 3, "temperature": 0.7},
    {"prompt": "def add(a, b):\n    return ", "raw": True, "max_tokens": 5},
    {"id": "gaps", "text": "def add(a, b):\n    return [[3]]\n\n\ndef twice(x):\n    return [[3]]\n"},
    {"id": "suffix", "prompt": "def add(a, b):\n    return ", "suffix": "\n", "diffusion": {"gap": 3}},
    {"id": "auto", "prompt": "def [[2]](a, b):\n    return ", "suffix": "\n", "max_tokens": 4},
    {"id": "dual", "prompt": "Copy these words: tulip linen", "diffusion": {"recipe": "dual", "gen_length": 16, "block_length": 8, "suffix": "dpad:window=8"}},
]
BAD = [
    ("{", "not JSON"),
    ("[1]", "not a JSON object"),
    ('{"id": "x"}', "give one of prompt, messages, text"),
    ('{"prompt": "a", "text": "b"}', "prompt and text to answer"),
    ('{"prompt": "a", "temprature": 1}', "temprature is unknown"),
    ('{"prompt": 5}', "prompt=5 must be text"),
    ('{"prompt": "a", "seed": true}', "seed=True must be a whole number"),
    ('{"prompt": "a", "seed": 1e400}', "seed=inf"),
    ('{"prompt": "a", "max_tokens": 0}', "max_tokens=0"),
    ('{"text": "a [[3]]", "max_tokens": 3}', "max_tokens has no meaning beside text"),
    ('{"prompt": "a", "diffusion": {"gap": 3}}', "diffusion.gap needs a suffix"),
    ('{"prompt": "a", "suffix": "b", "diffusion": {"gap": 9000}}', "diffusion.gap=9000"),
    ('{"prompt": "a", "diffusion": {"speed": 3}}', "diffusion.speed is unknown"),
    ('{"prompt": "a", "diffusion": {"gen_length": null}}', "diffusion.gen_length=null is no value"),
    ('{"prompt": "a", "diffusion": {"commit": null, "steps": null}}', "diffusion.commit=null is no value"),
    ('{"text": "a [[3]]", "diffusion": {"early_stop": "step"}}', "diffusion.early_stop"),
    ('{"messages": [{"role": "user"}]}', "messages must be objects of role and content"),
    ('{"prompt": "\\ud800"}', "not valid Unicode"),
    ('{"id": [1], "prompt": "a"}', "id=[1]"),
]
UNANSWERABLE = [
    ({"prompt": " "}, "the prompt is empty"),
    ({"text": "no gap"}, "the text has no gap"),
    ({"prompt": "a", "diffusion": {"recipe": "fastest"}}, "fastest"),
    ({"prompt": "a", "diffusion": {"gen_length": 100}}, "gen_length=100"),
    ({"prompt": "a", "diffusion": {"gen_length": 320_000}}, "the limit is 4096"),
    ({"prompt": "a", "temperature": -1}, "temperature=-1"),
    ({"prompt": "a", "suffix": "b", "max_tokens": 2, "diffusion": {"gap": 3}}, "more than max_tokens=2"),
]


@pytest.fixture(scope="module")
def engine():
    made = Engine(SETTINGS)
    yield made
    made.close()


def write(path, lines):
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def answer(engine, source, target, recipe=RECIPE, seed=0):
    wrong = []
    with Output(target, conditions(SETTINGS, recipe, seed)) as output:
        job = Job(source, output, lambda tally: None, wrong.append)
        job.survey()
        job.take(one_by_one(engine, job.left(), recipe, seed))
    return {row["id"]: row for row in map(json.loads, target.read_text().splitlines())}, wrong, job.summary()


def test_every_line_is_answered_as_if_it_were_alone(engine, tmp_path):
    found, wrong, summary = answer(engine, write(tmp_path / "in.jsonl", LINES), tmp_path / "out.jsonl")
    model, tokenizer = engine.model, engine.tokenizer
    assert not wrong
    assert [found[id]["line"] for id in ("copy", "7", "3", "gaps", "suffix", "auto", "dual")] == list(range(1, 8))
    dual = mz.named("dual").with_(gen_length=16, block_length=8, suffix="dpad:window=8")
    for id, expected in {
        "copy": mz.generate(model, tokenizer, LINES[0]["prompt"], RECIPE),
        "7": mz.generate(model, tokenizer, LINES[1]["messages"], RECIPE.with_(temperature=0.7), seed=3),
        "3": mz.generate(model, tokenizer, LINES[2]["prompt"], RECIPE.with_(max_tokens=5), chat=False),
        "dual": mz.generate(model, tokenizer, LINES[6]["prompt"], dual),
    }.items():
        assert (found[id]["text"], found[id]["finish_reason"]) == (expected.text, expected.finish_reason)
        assert found[id]["completion_tokens"] == len(expected.tokens)
    for row in found.values():
        number = row["line"]
        (alone,) = answer(engine, write(tmp_path / f"in{number}.jsonl", [LINES[number - 1]]), tmp_path / f"out{number}.jsonl")[0].values()
        assert (alone["text"], alone["forwards"]) == (row["text"], row["forwards"])
    gaps = mz.infill(model, tokenizer, LINES[3]["text"], RECIPE)
    assert (found["gaps"]["text"], tuple(found["gaps"]["fills"])) == (gaps.text, gaps.fills)
    assert found["suffix"]["text"] == mz.infill(model, tokenizer, f"{LINES[4]['prompt']}[[3]]\n", RECIPE).text
    assert found["auto"]["text"].startswith("def [[2]](a, b):\n    return ")
    assert 1 <= found["auto"]["completion_tokens"] <= 4
    assert (summary["answered"], summary["completion_tokens"]) == (7, sum(row["completion_tokens"] for row in found.values()))


def test_bad_lines_are_told_and_the_rest_goes_on(engine, tmp_path):
    source = write(tmp_path / "in.jsonl", [*(text for text, _ in BAD), "", *(line for line, _ in UNANSWERABLE), LINES[0], LINES[0]])
    found, wrong, summary = answer(engine, source, tmp_path / "out.jsonl")
    told = {each.number: each.reason for each in wrong}
    for number, (_, reason) in enumerate(BAD, 1):
        assert reason in told[number], (number, told[number])
    for number, (_, reason) in enumerate(UNANSWERABLE, len(BAD) + 2):
        assert reason in told[number], (number, told[number])
    assert told[len(BAD) + 1 + len(UNANSWERABLE) + 2] == f"id 'copy' is that of line {len(BAD) + len(UNANSWERABLE) + 2}"
    assert all(len(reason.splitlines()) == 1 for reason in told.values())
    assert list(found) == ["copy"]
    assert summary["unanswerable"] == len(wrong) == len(told) == len(BAD) + len(UNANSWERABLE) + 1
    assert {error["line"] for error in summary["errors"]} == set(told)

    source.write_text(source.read_text().replace('"prompt": " "', '"prompt": "Copy these words: amber"'))
    again, wrong, summary = answer(engine, source, tmp_path / "out.jsonl")
    assert (summary["answered_before"], summary["answered"], len(again)) == (1, 1, 2)


def test_a_line_that_raises_anything_stops_no_other(engine, tmp_path, monkeypatch):
    """Whatever was not foreseen, and a deadline that one answer misses."""
    from mezzotint.batch import answering
    from mezzotint.engine import Expired

    real = answering.ids_of

    def ids_of(tokenizer, question):
        if question.id in ("1", "2"):
            raise TypeError("unforeseen") if question.id == "1" else Expired("not complete after 600 s")
        return real(tokenizer, question)

    monkeypatch.setattr(answering, "ids_of", ids_of)
    found, wrong, _ = answer(engine, write(tmp_path / "in.jsonl", [{"prompt": "a"}, {"prompt": "b"}, LINES[0]]), tmp_path / "out.jsonl")
    assert list(found) == ["copy"]
    assert {each.number: each.reason for each in wrong} == {1: "TypeError: unforeseen", 2: "not complete after 600 s"}


def test_a_recipe_without_a_length_is_a_value_error():
    recipe = Recipe()
    object.__setattr__(recipe, "gen_length", None)  # as read from JSON, where nothing checks types before
    with pytest.raises(ValueError, match="gen_length=None must be a whole number"):
        recipe.__post_init__()


def test_every_gap_is_filled_to_its_end(engine, tmp_path):
    """An end token inside a gap ends nothing, as in `infill`, though the recipe says so of answers."""
    lines = [{"text": f"Copy these words: {word}\n[[24]]", "diffusion": {"ends": False}} for word in ("amber coral", "fox")]
    found, wrong, _ = answer(
        engine, write(tmp_path / "in.jsonl", [*lines, lines[0] | {"diffusion": {"ends": False, "early_stop": "off"}}]), tmp_path / "out.jsonl"
    )
    assert not wrong
    for number, line in enumerate([*lines, lines[0]], 1):
        expected = mz.infill(engine.model, engine.tokenizer, line["text"], RECIPE, ends=False)
        assert (found[str(number)]["text"], tuple(found[str(number)]["fills"])) == (expected.text, expected.fills)
        assert found[str(number)]["forwards"] == expected.forwards


def test_answers_under_other_settings_are_never_mixed(engine, tmp_path):
    source, target = write(tmp_path / "in.jsonl", LINES[:1]), tmp_path / "out.jsonl"
    answer(engine, source, target)
    before = target.read_bytes()
    with pytest.raises(ValueError, match=r"id 'copy'.*asked differently or under other settings"):
        answer(engine, source, target, RECIPE.with_(gen_length=16))
    with pytest.raises(ValueError, match="under other settings"):
        answer(engine, source, target, seed=1)
    write(source, [LINES[0] | {"seed": 1}])
    with pytest.raises(ValueError, match="asked differently"):
        answer(engine, source, target)
    assert target.read_bytes() == before
    write(tmp_path / "other.jsonl", ["no answers here"])
    with pytest.raises(ValueError, match="line 1 is not an answer of a batch"):
        answer(engine, source, tmp_path / "other.jsonl")
    with open_to_append(target, b"{"), pytest.raises(ValueError, match="in use by another run"):
        answer(engine, source, target)


def test_ids_are_lines_where_none_is_given(tmp_path):
    found = list(questions(write(tmp_path / "in.jsonl", [{"prompt": "a"}, "", {"prompt": "b"}, {"id": 1, "prompt": "c"}])))
    assert [each.id for each in found] == ["1", "3", "1"]
    assert isinstance(found[2], Unanswerable)
    assert read_line(4, b'{"prompt": "a"}') == Question(4, "4", {"prompt": "a"})


def command(*words):
    return [sys.executable, "-m", "mezzotint", "generate", *words, "--gen-length", "32", "--block-length", "16"]


def test_kill_9_loses_nothing_and_doubles_nothing(tmp_path, engine):
    """A real process is killed while it answers, its last line is torn, and the same command goes on."""
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write(source, [{"id": f"q{i}", "prompt": f"Copy these words: amber coral {i}"} for i in range(14)])
    words = command("--input", str(source), "--output", str(target), "--running", "2", "--json")
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 300
    while (not target.exists() or target.read_bytes().count(b"\n") < 3) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = target.read_bytes()
    done = kept.count(b"\n")
    assert 3 <= done < 14
    target.write_bytes(kept + b'{"id": "q13", "line": 14, "te')
    again = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    summary = json.loads(again.stdout)
    assert (summary["answered_before"], summary["answered"]) == (done, 14 - done)
    assert target.read_bytes().startswith(kept)
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert sorted(row["id"] for row in rows) == sorted(f"q{i}" for i in range(14))
    undisturbed, _, _ = answer(engine, source, tmp_path / "whole.jsonl", Recipe(gen_length=32, block_length=16))
    assert {row["id"]: row["text"] for row in rows} == {id: row["text"] for id, row in undisturbed.items()}


@pytest.mark.parametrize(("number", "replicas"), [(signal.SIGINT, "1"), (signal.SIGTERM, "2")])
def test_a_stopped_batch_ends_quietly(tmp_path, number, replicas):
    """While it waits for answers: no traceback, nobody stays behind, and what was answered is there."""
    if int(replicas) > cores_here():
        pytest.skip("needs two cores")
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write(source, [{"prompt": "Copy these words: amber coral", "diffusion": {"gen_length": 512 * (i > 2) or 16, "early_stop": "off"}} for i in range(14)])
    words = command("--input", str(source), "--output", str(target), "--running", "2", "--replicas", replicas)

    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=interruptible)
    until = time.monotonic() + 300
    while (not target.exists() or target.read_bytes().count(b"\n") < 2) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "destroyed" not in said
    assert target.read_bytes().endswith(b"\n")
    assert empties(process.pid), "processes stay behind"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--input", "x.jsonl"], "--input needs --output"),
        (["--output", "x.jsonl"], "--output needs --input"),
        (["--input", "missing.jsonl", "--output", "y.jsonl"], "input='missing.jsonl' is not a file"),
        (["hello", "--input", "x.jsonl", "--output", "y.jsonl"], "the prompt is for one answer, --input for many"),
        (["--watch", "--input", "x.jsonl", "--output", "y.jsonl"], "--watch is for one answer"),
        (["--input", __file__, "--output", __file__], "is the input"),
        (["--input", __file__, "--output", "y.jsonl", "--replicas", "1:2"], "a range needs --ray"),
        (["--input", __file__, "--output", "y.jsonl", "--ray", "--replicas", "3:2"], "replicas=3:2"),
        (["--input", __file__, "--output", "y.jsonl", "--ray", "--replicas", "two"], "replicas='two'"),
        (["--input", __file__, "--output", "y.jsonl", "--running", "0"], "running=0"),
        (["hello", "--ray"], "--ray is for batches"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_options_that_do_not_fit_are_refused(words, told, capsys, tmp_path, monkeypatch):
    from mezzotint.cli import main

    monkeypatch.chdir(tmp_path)
    assert main(["generate", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1


def test_a_file_that_is_somebody_elses_is_left_alone(tmp_path):
    notes, torn = tmp_path / "notes.json", tmp_path / "out.jsonl"
    notes.write_text('{"title": "not ours, and without a newline"}')
    with pytest.raises(ValueError, match="did not write"), Output(notes, ""):
        pass
    assert notes.read_text().endswith('newline"}')
    torn.write_text('{"id": "a", "asked": "x"}\n{"id": "b", "as')
    with Output(torn, "") as output:
        assert output.known == {"a": "x"}
    assert torn.read_text().endswith("}\n")
