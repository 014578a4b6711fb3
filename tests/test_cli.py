"""The command as a user runs it: a process of its own on the bundled model."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import interruptible

SHORT = ["--gen-length", "32", "--block-length", "16"]


def mezzotint(*words: str, text: str | None = None) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "mezzotint", *words], input=text, capture_output=True, text=True, timeout=120, check=False)


def test_generate_json_from_cold_in_15_seconds():
    begun = time.monotonic()
    done = mezzotint("generate", "Copy these words: amber coral", "--json", *SHORT)
    assert time.monotonic() - begun < 15
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) >= {"text", "tokens", "forwards", "positions_computed", "seconds", "finish_reason", "recipe", "seed"}
    assert found["recipe"]["gen_length"] == 32


def test_argument_file_stdin_and_watch_agree(tmp_path):
    (tmp_path / "prompt.txt").write_text("Sort from small to large: 7 3 5")
    ways = [
        mezzotint("generate", "Sort from small to large: 7 3 5", *SHORT),
        mezzotint("generate", "--file", str(tmp_path / "prompt.txt"), *SHORT),
        mezzotint("generate", *SHORT, text="Sort from small to large: 7 3 5"),
        mezzotint("generate", "-", "--watch", *SHORT, text="Sort from small to large: 7 3 5"),
    ]
    assert all(w.returncode == 0 for w in ways), [w.stderr for w in ways]
    assert len({w.stdout for w in ways}) == 1


def test_infill_recipes_and_info():
    filled = json.loads(mezzotint("infill", "def f(x):\n    return [[4]]\n", "--json").stdout)
    assert filled["text"].startswith("def f(x):\n    return ")
    assert len(filled["fills"]) == 1
    assert filled["recipe"]["early_stop"] == "off"
    assert "plain" in json.loads(mezzotint("recipes", "--json").stdout)
    about = json.loads(mezzotint("info", "--json", "--length", "512").stdout)
    assert about["family"] == "llada"
    assert about["length"] == 512
    assert "LLaDAModelLM" in mezzotint("info").stdout


def test_demo_and_eval_json():
    demo = json.loads(mezzotint("demo", "--questions", "2", "--recipes", "threshold", "--json").stdout)
    assert set(demo["recipes"]["threshold"]) >= {"right", "total", "seconds", "forwards"}
    done = mezzotint("eval", "lists", "--count", "4", "--hard-count", "1", "--recipe", "threshold", "--json")
    found = json.loads(done.stdout)["tasks"]["lists"]
    assert found["count"] == 4
    assert 0 <= found["ci"][0] <= found["exact_match"] <= found["ci"][1] <= 1
    assert set(found["paired"]) == {"figure", "difference", "ci", "changed", "answers_changed", "count"}
    assert found["hard"]["count"] == 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["generate", ""], ["prompt is empty"]),
        (["generate", "hi", "--recipe", "fastest"], ["recipe='fastest'", "plain"]),
        (["generate", "hi", "--gen-length", "100"], ["gen_length=100", "block_length=32"]),
        (["generate", "hi", "--gen-length", "ten"], ["gen_length='ten'", "int"]),
        (["generate", "hi", "--steps", "2"], ["steps=2", "4 blocks"]),
        (["generate", "hi", "--commit", "best"], ["commit='best'", "threshold"]),
        (["generate", "--file", "/no/such/file"], ["/no/such/file", "give the path of a file that exists"]),
        (["generate", "hi", "--device", "meta"], ["device='meta'", "accepted: cpu"]),
        (["infill", "a [[3]] b", "--gen-length", "64"], ["--gen-length 64 has no effect"]),
        (["generate", "hi", "--model", "/no/such/model"], ["/no/such/model", "hub id"]),
        (["generate", "hi", "--device", "cuda:9"], ["device='cuda:9'", "cpu"]),
        (["generate", "hi", "--dtype", "int3"], ["dtype='int3'", "float32"]),
        (["generate", "amber " * 6000], ["tokens", "context", "--rope-scaling"]),
        (["infill", "nothing here"], ["no gap", "[[8]]"]),
        (["infill", "a [[3]] b", "--max-tokens", "4"], ["max_tokens=4"]),
        (["infill", "a [[3]] b", "--early-stop", "block"], ["--early-stop block", "filled to its end"]),
        (["generate", "hi", "--gen-lenght", "3"], ["--gen-lenght", "--gen-length"]),
        (["generate", "hi", "--seed", "abc"], ["--seed", "abc"]),
        (["generatte", "hi"], ["generatte", "generate"]),
        (["demo", "--recipes", ","], ["recipes"]),
        (["eval", "chess"], ["task='chess'", "math"]),
        (["eval"], ["--all"]),
        (["demo", "--questions", "0"], ["questions=0"]),
        (["info", "/no/such/model"], ["/no/such/model"]),
    ],
    ids=lambda part: " ".join(part)[:40],
)
def test_bad_input_is_one_line_and_exit_code_2(words, named):
    done = mezzotint(*words)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert all(word in done.stderr for word in named), done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("error", [MemoryError("not enough memory to pack 9 keys"), MemoryError(), RuntimeError("CUDA out of memory")], ids=repr)
def test_memory_that_is_not_there_is_one_line(monkeypatch, capsys, error):
    from mezzotint import cli
    from mezzotint.cli import recipes

    def run(args):
        raise error

    monkeypatch.setattr(recipes, "run", run)
    monkeypatch.setattr(cli.signal, "signal", lambda *rest: None)
    monkeypatch.setattr(cli.warnings, "showwarning", cli.warnings.showwarning)
    assert cli.main(["recipes"]) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert told.startswith("mezzotint: not enough memory: ")


@pytest.mark.parametrize("words", [["recipes", "--json"], ["recipes"]], ids=" ".join)
def test_a_full_disk_is_one_line(words):
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "mezzotint", *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr == "mezzotint: the output cannot be written: No space left on device\n"


def test_ctrl_c_while_the_arguments_are_read_ends_quietly(monkeypatch):
    from mezzotint import cli

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "parser", interrupted)
    assert cli.main(["recipes"]) == 130


@pytest.mark.parametrize("terminal", [True, False])
def test_an_interrupted_answer_ends_its_line_on_a_terminal(monkeypatch, capsys, terminal):
    import argparse

    import mezzotint as mz
    from mezzotint.cli import generate

    def stream(*args, **rest):
        yield "The answer"
        raise KeyboardInterrupt

    monkeypatch.setattr(mz, "stream", stream)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    with pytest.raises(KeyboardInterrupt):
        generate.answer(argparse.Namespace(watch=False, json=False, seed=0), mz.load_model(), None, mz.Recipe(), "hi", None)
    assert capsys.readouterr().out == "The answer" + "\n" * terminal


def test_demo_shows_the_fast_recipe():
    from mezzotint.cli.demo import RECIPES

    assert RECIPES == ("plain", "threshold", "dual", "fast")


def test_ctrl_c_ends_quietly():
    process = subprocess.Popen(
        [sys.executable, "-m", "mezzotint", "generate", "hello", "--watch", "--gen-length", "2048", "--early-stop", "off"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TERM": "xterm"},
        preexec_fn=interruptible,
    )
    try:
        time.sleep(10)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors
