"""The documentation says what is: generated pages are current, its commands parse, its examples run, its references exist."""

import dataclasses
import importlib
import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mezzotint as mz
from mezzotint.bench.chosen import chosen
from mezzotint.bench.replay import parse
from mezzotint.cli import options, parser
from mezzotint.recipes import RECIPES
from mezzotint.suffix import SUFFIXES

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
COMMANDS = [
    (page.name, line.strip())
    for page in [*PAGES, ROOT / "README.md"]
    if page.name not in ("log.md", "benchmarks.md")
    for line in page.read_text(encoding="utf-8").splitlines()
    if line.strip().startswith("mezzotint ") and line.count("'") % 2 == 0
]


def test_the_page_of_benchmarks_is_what_the_results_say():
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks" / "report.py"), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_report_shows_the_newest_of_each_part(tmp_path):
    report = runpy.run_path(str(ROOT / "benchmarks" / "report.py"))
    rows = [{"name": "a|b", "seconds": {"median": 2.0, "low": 1.0, "high": 3.25, "samples": [1.0]}, "recipe": "--cache dual", "speedup": 1.25}]
    (tmp_path / "2026-01-01-cpu-x.json").write_text('{"rows": [{"old": 1}]}')
    (tmp_path / "2026-01-02-cpu-x.json").write_text(json.dumps({"rows": rows, "model": "bundled", "machine": "here", "command": "mezzotint bench"}))
    page = report["page"](tmp_path)
    assert "| a\\|b | 2 (1–3.25) | `--cache dual` | 1.25 |" in page
    assert "    mezzotint bench\n" in page
    assert "old" not in page
    (tmp_path / "2026-01-01-cpu-x-quick.json").write_text('{"rows": [{"hasty": 1}]}')
    assert "hasty" not in report["page"](tmp_path)
    (tmp_path / "2026-01-03-cpu-x-quick.json").write_text('{"rows": [{"hasty": 1}]}')
    assert "hasty" in report["page"](tmp_path)
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(ValueError, match=r"mine\.json"):
        report["page"](tmp_path)


def test_the_report_says_what_was_measured_with_earlier_weights(tmp_path):
    report = runpy.run_path(str(ROOT / "benchmarks" / "report.py"))
    now, before = "0123456789abcdef", "fedcba9876543210"
    results = {
        "2026-01-03-cpu-bundled-eval": {"model": "bundled", "weights": now},
        "2026-01-01-cpu-old": {"model": "bundled", "weights": before},
        "2026-01-01-cpu-old-settings": {"settings": {"model": None, "weights": before}},
        "2026-01-03-cpu-new": {"weights": now},
        "2026-01-01-cpu-other": {"model": "org/name", "weights": before},
        "2026-01-01-cpu-quantised": {"weights": "int8"},
    }
    for name, result in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    page = report["page"](tmp_path)
    clause = "earlier weights of the bundled model"
    assert {section.splitlines()[0] for section in page.split("\n## ") if clause in section} == {"cpu old", "cpu old settings"}
    assert f"weights {before} · {clause} · date 2026-01-01" in page.split("## cpu old settings")[1]
    (tmp_path / "2026-01-03-cpu-bundled-eval.json").unlink()
    assert clause not in report["page"](tmp_path)


def test_the_report_has_a_row_for_what_is_nested(tmp_path):
    report = runpy.run_path(str(ROOT / "benchmarks" / "report.py"))
    arms = {"dense": {"exact_match": 1.0, "attention": "Dense()"}, "sparsed": {"exact_match": 0.5, "attention": "SparseD()"}}
    goal = {name: i for i, name in enumerate("abcdef")}
    result = {"tasks": {"math": arms, "lists": arms}, "goal": goal, "few": {"a": 1}, "moments": [0, 3], "held": [[0.25, 0.5], [0.75, 1.0]]}
    result |= {"rows": [{"name": "x", "per_task": {"math": {"mean": 0.5, "ci": [0.25, 0.75]}}}]}
    (tmp_path / "2026-01-01-cpu-x.json").write_text(json.dumps(result))
    page = report["page"](tmp_path)
    assert "| math | sparsed | 0.5 | `SparseD()` |\n| lists | dense | 1 | `Dense()` |" in page
    assert "**goal**\n\n| a | b | c | d | e | f |\n|---|---|---|---|---|---|\n| 0 | 1 | 2 | 3 | 4 | 5 |" in page
    assert "|  | 0 | 3 |\n|---|---|---|\n| 0 | 0.25 | 0.5 |\n| 3 | 0.75 | 1 |" in page
    assert "|  | per task: math |\n|---|---|\n| x | +0.5 [0.25, 0.75] |" in page
    assert "few a 1" in page


def test_the_report_says_what_is_missing(tmp_path):
    """No command, and nothing good enough; what else is null is left out."""
    report = runpy.run_path(str(ROOT / "benchmarks" / "report.py"))
    (tmp_path / "2026-01-01-cpu-a.json").write_text('{"best_single": "factor", "best_composed": null, "model": null}')
    (tmp_path / "2026-01-01-cpu-b.json").write_text('{"command": "mezzotint bench", "count": 1}')
    first, second = report["page"](tmp_path).split("\n## ")[1:]
    assert "date 2026-01-01 · command not recorded" in first
    assert "\nbest single factor · best composed none\n" in first
    assert "not recorded" not in second


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page}: {line[10:70]}" for page, line in COMMANDS])
def test_commands_parse(page, line, tmp_path, monkeypatch):
    words = shlex.split(line, comments=True)[1:]
    monkeypatch.chdir(tmp_path)
    for word in words:
        if word.endswith(".json"):
            (tmp_path / word).write_text("{}")
    args = parser().parse_args(words)
    if words[0] == "bench":
        recipes = chosen(args.recipes or ["plain"], options.fields_of(args))
        assert set(parse(args.replay or ())) <= {None, *recipes}
        importlib.import_module("mezzotint.cli.bench").check(args)
    elif hasattr(args, "recipe") and hasattr(args, "gen_length"):
        options.recipe_of(args, mz.Recipe())


def test_references_exist():
    for page in PAGES:
        for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            module, _, last = name.rpartition(".")
            documented = getattr(importlib.import_module(module), last, None) or importlib.import_module(name)
            assert documented.__doc__, f"{page.name}: {name} has no docstring"


def test_the_first_page_runs(capsys):
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(block, "index.md", "exec"), {})
    assert capsys.readouterr().out.split()[-1] in ("stop", "length")


EXAMPLES = [("generate", "Answer: 1 3 5 7 9"), ("infill", "return len([n for n in numbers if n > 3])")]


@pytest.mark.parametrize("more", [[], ["--recipe", "threshold"]], ids=["default", "threshold"])
@pytest.mark.parametrize(("command", "answer"), EXAMPLES)
def test_the_examples_of_the_help_are_answered_rightly(command, answer, more, capsys):
    text = importlib.import_module(f"mezzotint.cli.{command}").__doc__
    words = shlex.split(text[text.index(f"mezzotint {command} ") :])[1:3]
    args = parser().parse_args([*words, *more])
    assert args.run(args) == 0
    assert answer in capsys.readouterr().out


def test_the_first_pages_example_is_that_of_the_help():
    text = importlib.import_module("mezzotint.cli.generate").__doc__
    (asked,) = set(re.findall(r'"Sort [^"]*"', text))
    assert set(re.findall(r'"Sort [^"]*"', (ROOT / "docs" / "index.md").read_text(encoding="utf-8"))) == {asked}


def test_the_examples_of_batches_are_answered_rightly(tmp_path):
    (lines,) = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "in.jsonl").write_text(lines, encoding="utf-8")
    args = parser().parse_args(["generate", "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")])
    assert args.run(args) == 0
    found = {answer["id"]: answer["text"] for answer in map(json.loads, (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines())}
    assert found["a"] == "Answer: amber coral lantern"
    assert found["b"] == "Answer: 3 4 9"
    assert "if n > 3])" in found["c"]
    assert "if n > 3])" in found["d"]


@pytest.fixture(scope="module")
def stride():
    """The example of `docs/extending.md`, run as it stands; the registry is put back afterwards."""
    before = dict(SUFFIXES)
    found = runpy.run_path(str(ROOT / "examples" / "stride.py"))
    yield found
    SUFFIXES.clear()
    SUFFIXES.update(before)


def test_the_example_of_a_method_is_one(stride, tiny):
    plain = mz.Recipe(gen_length=48, block_length=8, steps=12)
    prompt = torch.arange(5, 18)[None]
    baseline = mz.denoise_all(tiny["llada"], prompt, plain)
    assert torch.equal(mz.denoise_all(tiny["llada"], prompt, plain.with_(suffix="stride:every=1")).tokens, baseline.tokens)
    for cache in ("none", "prefix", "dual"):
        recipe = plain.with_(suffix="stride:every=4,near=4", cache=cache)
        found = mz.denoise_all(tiny["llada"], prompt, recipe)
        assert found.positions_computed < mz.denoise_all(tiny["llada"], prompt, plain.with_(cache=cache)).positions_computed
        assert (found.tokens[0, 13:] != tiny["llada"].config.mask_id).all()
        assert mz.Recipe.from_json(recipe.to_json()) == recipe
    with pytest.raises(ValueError, match="every=0"):
        stride["Stride"](0)
    assert stride["result"].positions_computed > 0


def test_a_method_outside_the_package_is_one_on_the_command_line(tmp_path):
    (block,) = re.findall(r"```python\n(import sys.*?)```", (ROOT / "docs" / "extending.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "mine.py").write_text("from mezzotint.suffix import NoSuffix\n\nclass Mine(NoSuffix):\n    pass\n\n" + block, encoding="utf-8")
    words = [sys.executable, str(tmp_path / "mine.py"), "generate", "Copy these words: amber coral", "--gen-length", "32", "--json", "--suffix", "mine"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recipe"]["suffix"] == "mine"


def test_the_example_sees_what_it_says(stride):
    canvas = mz.Canvas.gaps([[1, 2], 8, [3, 4], 3], 9, torch.device("cpu"))
    visible = stride["Stride"](every=3, near=1).begin(canvas, torch.Generator())(mz.Block(0, 2, 4))
    assert visible.tolist() == [0, 1, 2, 3, 4, 7, 10, 11, 13]


def test_pages_that_the_program_writes():
    pytest.importorskip("mkdocs", reason="the site needs the extra `docs`")
    pages = runpy.run_path(str(ROOT / "docs" / "pages.py"))
    commands, recipes, methods = pages["commands"](), pages["recipes"](), pages["methods"]()
    assert all(f"## mezzotint {name}\n" in commands for name in importlib.import_module("mezzotint.cli").COMMANDS)
    assert all(f"| `{name}` |" in recipes for name in RECIPES)
    assert "[DPad](dpad.md)" in methods
    assert "`threshold:tau=0.9`" in methods
    assert "::: mezzotint.cache.none.NoCache" in methods
    assert dataclasses.is_dataclass(mz.NoCache)


def test_measured_rows_stand_on_their_methods_page(tmp_path, monkeypatch):
    pytest.importorskip("mkdocs", reason="the site needs the extra `docs`")
    pages = runpy.run_path(str(ROOT / "docs" / "pages.py"))
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    rows = [
        {"name": "dual", "recipe": "--commit threshold --cache dual", "exact_match": 0.5, "speedup": 3.0},
        {"name": "plain", "recipe": "", "length": 2048, "speedup": {"median": 1.0, "low": 1.0, "high": 1.0}},
        {"name": "bare", "recipe": "--commit factor", "seconds": 2.0},
        {"name": "few", "recipe": "--cache prompt", "exact_match": 1.0, "questions": 6, "speedup": 2.0},
    ]
    (results / "2026-01-01-cpu-x.json").write_text(json.dumps({"rows": rows, "questions": 100, "growth": {"plain": 1.5, "dual": None}}))
    figures = {"exact_match": 0.25, "count": 200, "against_dense": {"difference": -0.5, "ci": [-0.625, -0.375]}}
    arms = {"all": {"near": figures}, "tasks": {"math": {"near": {**figures, "attention": "SlidingWindow(window=64)"}}}, "weights": 16 * "a"}
    (results / "2026-01-01-cpu-quality.json").write_text(json.dumps(arms))
    (results / "2026-01-02-cpu-bundled-eval.json").write_text(json.dumps({"weights": 16 * "b"}))
    (tmp_path / "benchmarks" / "report.py").write_text((ROOT / "benchmarks" / "report.py").read_text())
    monkeypatch.setitem(pages["measured"].__globals__, "ROOT", tmp_path)
    measured, link = pages["measured"], "[cpu x](../benchmarks.md#cpu-x)"
    head = "| result | row | right | against the result's first row | speed |\n|---|---|---|---|---|\n"
    assert measured(["cache=dual"], [], []) == f"{head}| {link} | `dual` | 50.0 % of 100 [40.4, 59.6] |  | 3.00 times |"
    assert measured([], [], ["plain"]) == f"{head}| {link} | `plain`, prompt of 2,048 tokens |  |  | 1.00 times |"
    near = "| [cpu quality](../benchmarks.md#cpu-quality) (earlier weights) | `near` | 25.0 % of 200 [19.5, 31.4] | -50.0 [-62.5, -37.5] points |  |"
    assert measured(["attention=window"], [], []) == head + near
    assert measured(["commit=factor"], [], []) == measured(["cache=prompt"], [], []) == f"* {link}: 1 row"
    assert measured([], ["x"], []) == f"* {link}: seconds on the longest canvas over those on the shortest: plain 1.50"
    assert measured([], ["bundled-eval"], []) == "* [cpu bundled eval](../benchmarks.md#cpu-bundled-eval)"
    assert all("Nothing" in measured([strategy], [], []) for strategy in ("cache=du", "cache=prefix", "attention=streaming"))


def test_docstrings_become_lists():
    pytest.importorskip("griffe", reason="the site needs the extra `docs`")
    listed = runpy.run_path(str(ROOT / "docs" / "docstrings.py"))["listed"]
    assert listed("What.\n\nwindow: places\n    and more; k, a: shares.\n\nEnd: not one.") == (
        "What.\n\n* **window**: places and more\n* **k, a**: shares.\n\nEnd: not one."
    )
