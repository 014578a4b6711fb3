"""`mezzotint eval` as a user runs it: in one process here, since the command's own start is tested in test_cli."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings

import pytest

from mezzotint.cli import main
from mezzotint.evaluation import answering
from mezzotint.evaluation.predictions import read

SHORT = ["--gen-length", "16", "--block-length", "16", "--commit", "threshold:tau=0.3"]


@pytest.fixture
def command(capsys, monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    handler = signal.getsignal(signal.SIGTERM)

    def run(*words):
        code = main(["eval", *words])
        return code, capsys.readouterr()

    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def data(tmp_path):
    rows = [{"question": f"{i} and {i}?", "text": "Some words of a page. " * 9, "answer": f"#### {2 * i}"} for i in range(3)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "test.jsonl"


def test_a_benchmark_its_file_and_its_score(command, data, tmp_path, monkeypatch):
    out = tmp_path / "run"
    code, said = command("gsm8k", "--data", str(data), "--shots", "0", *SHORT, "--against", "plain", "--out", str(out), "--json")
    assert code == 0
    report = json.loads(said.out)
    figures = report["tasks"]["gsm8k"]
    assert set(figures) >= {"exact_match", "strict", "count", "ci", "forwards", "positions_computed", "paired", "compared"}
    assert figures["count"] == figures["paired"]["count"] == 3
    assert report["recipe"]["commit"] == "threshold:tau=0.3"
    assert report["compared_with"]["commit"] == "quota"
    assert (report["settings"]["shots"], report["settings"]["data"], report["batch"]) == (0, str(data), 1)
    assert set(report) >= {"weights", "machine", "torch", "transformers", "date", "command", "seed", "dtype"}
    assert json.loads((out / "report.json").read_text()) == report
    code, again = command("--score", str(out / "predictions.jsonl"), "--json")
    runs = json.loads(again.out)["runs"]
    assert [run["task"] for run in runs] == ["gsm8k", "gsm8k"]
    assert runs[0]["figures"]["paired"] == figures["paired"] | {"against": runs[1]["run"]}
    assert {run["recipe"]["commit"] for run in runs} == {"threshold:tau=0.3", "quota"}
    monkeypatch.setenv("COLUMNS", "200")
    code, table = command("--score", str(out / "predictions.jsonl"))
    assert {"commit=threshold:tau=0.3", "commit=quota"} <= set(table.out.split())
    assert f"with {runs[1]['run'][:6]}: exact match" in table.out


def test_an_option_holds_for_the_tasks_that_take_it_alone(command, data, tmp_path):
    """So that a task is the same run alone and beside others."""
    words = [*SHORT, "--against", "none", "--json"]
    own = ["--count", "1", "--hard-count", "0", "--batch", "2"]
    foreign = ["--data", str(data), "--shots", "0", "--chat", "no", "--samples", "1", "--window", "16", "--context", "0"]
    for folder, tasks, more in (("alone", ["lists"], own), ("beside", ["lists", "gsm8k", "prose", "wikitext"], own + foreign)):
        assert command(*tasks, *more, *words, "--out", str(tmp_path / folder))[0] == 0
    runs = [{taken.task: taken for taken, _ in read(tmp_path / folder / "predictions.jsonl")} for folder in ("alone", "beside")]
    assert runs[0]["lists"].run == runs[1]["lists"].run
    beside = {task: (taken.settings["data"], taken.settings["chat"], taken.settings["samples"], taken.batch) for task, taken in runs[1].items()}
    assert beside["gsm8k"] == (str(data), False, 32, 2)
    assert beside["prose"] == (None, None, 1, 1)
    assert beside["wikitext"] == (str(data), None, 1, 1)


def test_missing_data_of_a_later_task_are_said_before_anything_is_answered(command, monkeypatch):
    monkeypatch.setattr(answering, "predict", lambda *_: pytest.fail("something was answered"))
    code, said = command("lists", "gsm8k", "--data", "/no/such.jsonl", "--count", "1", *SHORT)
    assert code == 2
    assert "/no/such.jsonl" in said.err


def test_a_killed_command_resumes(data, tmp_path):
    out = tmp_path / "run"
    words = [sys.executable, "-m", "mezzotint", "eval", "gsm8k", "--data", str(data), "--shots", "0", "--batch", "1", *SHORT, "--out", str(out), "--json"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, env=os.environ)
    for _ in range(1200):
        if (out / "predictions.jsonl").exists() and (out / "predictions.jsonl").read_bytes().count(b"\n"):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = (out / "predictions.jsonl").read_bytes()
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    whole = (out / "predictions.jsonl").read_bytes()
    assert whole.startswith(kept[: kept.rfind(b"\n") + 1])
    assert whole.count(b"\n") == 3
    assert json.loads(done.stdout)["tasks"]["gsm8k"]["count"] == 3


def test_the_list_names_tasks_and_presets(command):
    code, said = command("--list", "--json")
    found = json.loads(said.out)
    assert code == 0
    assert {"math", "prose", "gsm8k", "humaneval", "mbpp", "mmlu", "ruler", "wikitext-suffix"} <= set(found["tasks"])
    assert found["presets"]["llada-instruct"]["gsm8k"]["recipe"]["block_length"] == 8
    assert command("--list")[0] == 0


def test_tables_for_people(command, tmp_path, monkeypatch):
    (tmp_path / "t.txt").write_text("The law was passed in 1921 and it was changed . " * 5)
    code, said = command("wikitext", "--data", str(tmp_path / "t.txt"), "--samples", "1", "--window", "20")
    assert code == 0
    assert "perplexity" in said.out
    assert "bits per byte" in said.out
    monkeypatch.setenv("COLUMNS", "200")
    words = ("--samples", "1", "--window", "20", "--context", "20", "--gen-length", "64", "--block-length", "16", "--count", "2")
    code, said = command("wikitext-suffix", "--data", str(tmp_path / "t.txt"), *words, "--suffix", "none", "--against", "plain")
    assert "nats per token +" in said.out or "nats per token -" in said.out
    assert "figures and" in said.out
    code, said = command("lists", "--count", "1", "--hard-count", "0", *SHORT, "--against", "none", "--examples", "1")
    assert "lists 00000" in said.out


def test_tasks_beside_all_are_asked_too(command, monkeypatch):
    from mezzotint.evaluation import tasks

    monkeypatch.setattr(tasks, "TASKS", {"lists": tasks.TASKS["lists"]})
    code, said = command("--all", "math", "--count", "1", "--hard-count", "0", "--samples", "1", *SHORT, "--against", "none", "--json")
    assert code == 0
    assert list(json.loads(said.out)["tasks"]) == ["math", "lists", "prose"]


def test_a_preset_sets_recipe_and_settings(command, data):
    code, said = command("gsm8k", "--preset", "dpad-llada-1.5", "--data", str(data), "--shots", "0", "--count", "1", "--gen-length", "32", "--json")
    assert code == 0
    assert json.loads(said.out)["recipe"]["suffix"] == "dpad:k=3.0,a=1.6"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["chess"], ["task='chess'", "gsm8k", "math"]),
        (["ruler", "--shots", "3"], ["shots=3", "ruler", "gsm8k"]),
        (["math", "--data", "x"], ["data='x'", "math"]),
        (["wikitext", "--recipe", "threshold"], ["--recipe", "wikitext", "whatever the recipe"]),
        (["gsm8k", "--data", "/no/such.jsonl"], ["/no/such.jsonl", "hub id"]),
        (["gsm8k", "--preset", "best"], ["preset='best'", "llada-base"]),
        (["ruler", "--preset", "llada-base"], ["preset='llada-base'", "'ruler'", "gsm8k"]),
        (["ruler", "--lengths", "4k"], ["lengths='4k'", "4096,8192"]),
        (["ruler", "--lengths", "30"], ["at least", "--lengths"]),
        (["choice"], ["--data"]),
        (["code", "--steps", "16"], ["--steps", "code", "gaps"]),
        (["code", "wikitext-suffix", "--max-tokens", "16"], ["--max-tokens", "gaps", "canvas and suffix"]),
        (["math", "--count", "0"], ["count=0"]),
        (["--harness", "gsm8k", "--samples", "0"], ["samples=0", "at least 1"]),
        (["prose", "--samples", "0"], ["samples=0", "at least 1"]),
        (["mmlu", "prose", "code", "--batch", "4"], ["batch=4", "mmlu", "math", "gsm8k"]),
        (["prose", "--count", "5"], ["count=5", "prose", "math", "gsm8k"]),
        (["prose", "--hard-count", "0"], ["hard_count=0", "prose", "math"]),
        (["wikitext-suffix", "--commit", "threshold"], ["--commit", "wikitext-suffix", "canvas and suffix"]),
        (["suffix-ppl", "prose", "--temperature", "1"], ["--temperature", "suffix-ppl"]),
        (["--score", "/no/such"], ["/no/such"]),
        (["--score", "x", "--shots", "0"], ["shots=0", "--score"]),
        (["--score", "x", "--seed", "1"], ["seed=1", "--score"]),
        (["--score", "x", "--commit", "quota"], ["commit='quota'", "--score"]),
        (["math", "--score", "x"], ["tasks=['math']", "--score"]),
        (["--harness", "gsm8k", "--hard-count", "0"], ["hard_count=0", "--harness"]),
        (["math", "--include-path", "/tmp"], ["--include-path", "--harness"]),
        (["--harness", "gsm8k", "--preset", "llada-base"], ["preset='llada-base'", "--harness", "--gen-length 1024 --block-length none --shots 5 --chat no"]),
        (["--harness", "arc_easy", "--preset", "llada-base"], ["preset='llada-base'", "--harness"]),
        (["lists", "--against", "fastest"], ["recipe='fastest'", "plain"]),
    ],
    ids=lambda part: " ".join(part)[:40],
)
def test_bad_input_is_one_line_and_exit_code_2(command, words, named):
    code, said = command(*words)
    assert code == 2
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1, said.err
    assert all(word in said.err for word in named), said.err
