"""Mezzotint under the real lm-evaluation-harness, offline, with local data: its figures against ours on the same predictions."""

import copy
import gzip
import json
import os
import signal
import warnings
import zlib
from pathlib import Path

import pytest
import torch

import mezzotint as mz
from mezzotint.cli import main
from mezzotint.evaluation.benchmarks import BENCHMARKS
from mezzotint.evaluation.item import Settings
from mezzotint.evaluation.likelihood import bound
from mezzotint.evaluation.predictions import Store, read
from mezzotint.evaluation.sandbox import filtered
from mezzotint.generation import encode, opening

lm_eval = pytest.importorskip("lm_eval", reason="needs the extra eval")

RECIPE = mz.Recipe(gen_length=16, block_length=16, commit=mz.Threshold(0.5))

GSM8K = """
include: {tasks}/gsm8k/gsm8k.yaml
task: local_gsm8k
tag: local
dataset_path: json
dataset_name: null
dataset_kwargs:
  data_files: {{train: {folder}/train.jsonl, test: {folder}/test.jsonl}}
num_fewshot: 0
"""

HUMANEVAL = """
include: {tasks}/humaneval/humaneval.yaml
task: local_humaneval
dataset_path: json
dataset_name: null
dataset_kwargs:
  data_files: {{test: {folder}/humaneval.jsonl}}
"""

CHOICE = """
task: local_choice
dataset_path: json
dataset_kwargs:
  data_files: {{test: {folder}/choice.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: answer
doc_to_choice: "{{{{choices}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""

ROLLING = """
task: local_rolling
dataset_path: json
dataset_kwargs:
  data_files: {{test: {folder}/pages.jsonl}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{{{page}}}}"
metric_list: [{{metric: bits_per_byte}}]
"""

CODE_EVAL = '''
"""Stands in for the hub's code_eval, which needs the network: the program either runs to its end or does not."""

import datasets
import evaluate
import subprocess
import sys


class CodeEval(evaluate.Metric):
    def _info(self):
        features = datasets.Features({"predictions": datasets.Sequence(datasets.Value("string")), "references": datasets.Value("string")})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references, k=(1,), **rest):
        programs = [p[0] + "\\n" + r for p, r in zip(predictions, references)]
        inside = "import sys; exec(sys.stdin.read(), {})"  # as the official one: in an empty namespace
        runs = [subprocess.run([sys.executable, "-c", inside], input=text, text=True, capture_output=True).returncode == 0 for text in programs]
        return {"pass@1": sum(runs) / len(runs)}, {}
'''

PAGES = ["The code of amber is 471. The code of coral is 203.", "Answer: lily fox maple"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Task files of the harness's own tasks on local data."""
    tasks = str(next(iter(lm_eval.__path__))) + "/tasks"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ALLOW_CODE_EVAL", "1")
    monkeypatch.chdir(tmp_path)
    for name, text in (("gsm8k", GSM8K), ("humaneval", HUMANEVAL), ("choice", CHOICE), ("rolling", ROLLING)):
        (tmp_path / f"{name}.yaml").write_text(text.format(tasks=tasks, folder=tmp_path))
    (tmp_path / "code_eval").mkdir()
    (tmp_path / "code_eval" / "code_eval.py").write_text(CODE_EVAL)

    def write(name, found):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in found))

    rows = [{"question": f"{i} and {i}?", "answer": f"so {2 * i}\n#### {2 * i}"} for i in range(1, 9)]
    write("train.jsonl", rows[:2])
    write("test.jsonl", rows)
    programs = [
        {
            "task_id": f"HumanEval/{i}",
            "prompt": f'def add{i}(x):\n    """Add {i}."""\n',
            "entry_point": f"add{i}",
            "canonical_solution": "",
            "test": f"def check(f):\n    assert f(1) == {i + 1}\n",
        }
        for i in range(4)
    ]
    write("humaneval.jsonl", programs)
    write(
        "choice.jsonl",
        [{"question": "Copy: amber", "choices": [" Answer: amber", " 17 %("], "answer": 0}, {"question": "q", "choices": [" a", " b"], "answer": 1}],
    )
    write("pages.jsonl", [{"page": page} for page in PAGES])
    return tmp_path


def harness(bundled, folder, task, *, said=None, store=None, monkeypatch=None, **more):
    from mezzotint.evaluation import harness as adapter

    if said is not None:
        replies = iter(said)
        monkeypatch.setattr(adapter.Mezzotint, "generate_until", lambda self, requests: [next(replies) for _ in requests])
    return adapter.run_harness([task], *bundled, RECIPE, store or Store(None), samples=4, include_path=folder, **more)["harness"][task]


def ours(name, bundled, data, said):
    model, tokenizer = bundled
    benchmark = BENCHMARKS[name]
    items = benchmark.items(Settings(data=str(data), shots=0, chat=False), tokenizer, RECIPE, model.config)
    scored = [benchmark.score(item.facts, {"text": text}) for item, text in zip(items, said, strict=True)]
    return {key: sum(s[key] for s in scored) / len(scored) for key in scored[0] if key != "reason"}


def test_gsm8k_scores_are_the_harness_own(bundled, folder, monkeypatch):
    said = ["2", "it is 4.\n#### 4", "#### $6.", "#### 7", "ten 10,", "#### 12 or 13", "so 1,4", "nothing"]
    theirs = harness(bundled, folder, "local_gsm8k", said=said, monkeypatch=monkeypatch)
    mine = ours("gsm8k", bundled, folder / "test.jsonl", said)
    assert mine == {"exact_match": theirs["exact_match,flexible-extract"], "strict": theirs["exact_match,strict-match"]}
    assert 0 < mine["strict"] < mine["exact_match"] < 1
    assert theirs["count"] == 8


@pytest.mark.skipif(not filtered(), reason="this kernel cannot filter system calls")
def test_humaneval_scores_are_the_harness_own(bundled, folder, monkeypatch):
    main = "    return x + 3\n\nif __name__ == '__main__':\n    raise SystemExit(input())"
    said = ["    return x\n", "    return x + 2\n", "return x + 2", main]
    theirs = harness(bundled, folder, "local_humaneval", said=said, monkeypatch=monkeypatch, unsafe_code=True)
    mine = ours("humaneval", bundled, folder / "humaneval.jsonl", said)
    assert mine["exact_match"] == theirs["pass@1,create_test"] == 0.5


DATA = os.environ.get("MEZZOTINT_DATA")
real = pytest.mark.skipif(not DATA, reason="needs MEZZOTINT_DATA, a folder that holds gsm8k/ and humaneval/")


@real
def test_on_the_real_gsm8k_both_say_the_same(bundled, folder, monkeypatch):
    """Every reference answer, most of them spoiled in one of the ways in which models spoil them."""
    rows = [json.loads(line) for line in (Path(DATA or "") / "gsm8k" / "test.jsonl").read_text().splitlines()]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ways = (
        lambda text: text,
        lambda text: text.replace("####", "The answer is") + ".",
        lambda text: text.replace("#### ", "#### $"),
        lambda text: text + "1",
        lambda text: text.rsplit("\n", 1)[0],
        lambda text: text + " apples, not 7",
        lambda text: text.replace(",", ""),
    )
    said = [ways[i % len(ways)](row["answer"]) for i, row in enumerate(rows)]
    theirs = harness(bundled, folder, "local_gsm8k", said=said, monkeypatch=monkeypatch)
    mine = ours("gsm8k", bundled, folder / "test.jsonl", said)
    assert mine == pytest.approx({"exact_match": theirs["exact_match,flexible-extract"], "strict": theirs["exact_match,strict-match"]})
    assert theirs["count"] == len(rows) == 1319
    assert 0.3 < mine["strict"] < 0.9


@real
@pytest.mark.skipif(not filtered(), reason="this kernel cannot filter system calls")
def test_on_the_real_humaneval_both_say_the_same(bundled, folder, monkeypatch):
    """The reference solutions of the first 30 problems, every third without its last line."""
    with gzip.open(Path(DATA or "") / "humaneval" / "HumanEval.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file][:30]
    (folder / "humaneval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = [row["canonical_solution"].rstrip().rsplit("\n", 1)[0] if i % 3 == 2 else row["canonical_solution"] for i, row in enumerate(rows)]
    theirs = harness(bundled, folder, "local_humaneval", said=said, monkeypatch=monkeypatch, unsafe_code=True)
    mine = ours("humaneval", bundled, folder / "humaneval.jsonl", said)
    assert mine["exact_match"] == pytest.approx(theirs["pass@1,create_test"])
    assert 0.6 < mine["exact_match"] < 0.8


def test_the_harness_asks_what_we_ask_and_the_model_answers(bundled, folder):
    """Both ways put the same prompts to the model, so they store the same answers."""
    model, tokenizer = bundled
    path = folder / "predictions.jsonl"
    with Store(path) as store:
        theirs = harness(bundled, folder, "local_gsm8k", store=store, limit=2)
    assert {taken.versions["lm_eval"] for taken, _ in read(path)} == {lm_eval.__version__}
    said = [p.said["text"] for _, p in sorted(read(path), key=lambda pair: pair[1].id)]
    items = BENCHMARKS["gsm8k"].items(Settings(data=str(folder), shots=0, chat=False, count=2), tokenizer, RECIPE, model.config)
    answers = mz.generate(model, tokenizer, [item.prompt for item in items], RECIPE, chat=False)
    assert said == [a.text.split("Question:")[0] for a in answers]
    assert theirs["count"] == 2
    before = path.read_bytes()
    with Store(path) as store:
        assert harness(bundled, folder, "local_gsm8k", store=store, limit=2) == theirs
    assert path.read_bytes() == before  # nothing was answered anew


def test_likelihoods_under_the_harness(bundled, folder):
    found = harness(bundled, folder, "local_choice")
    assert found["acc,none"] >= 0.5
    assert {"acc,none", "acc_norm,none"} <= set(found)


def test_the_command_writes_the_harness_report(folder, capsys, monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    handler = signal.getsignal(signal.SIGTERM)
    out = folder / "out"
    words = ["--include-path", str(folder), "--samples", "1", "--count", "1", "--out", str(out), "--json"]
    try:
        assert main(["eval", "--harness", "local_choice", *words]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report == json.loads((out / "report.json").read_text())
        assert "acc,none" in report["harness"]["local_choice"]
        assert set(report) >= {"weights", "machine", "torch", "date", "command", "seed", "batch", "dtype"}
        assert main(["eval", "--score", str(out / "predictions.jsonl")]) == 2
        assert "no predictions in it but those of lm-evaluation-harness" in capsys.readouterr().err
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_rolling_likelihood_is_the_bound_of_the_windows(bundled, folder):
    from mezzotint.evaluation.harness import Mezzotint

    model, tokenizer = bundled
    found = harness(bundled, folder, "local_rolling")
    assert 0 < found["bits_per_byte,none"] < 10
    adapter = Mezzotint(model, tokenizer, RECIPE, Settings(samples=4, window=10))
    (log_p,) = adapter.loglikelihood_rolling([asked(PAGES[0])])
    ids = tokenizer(PAGES[0], add_special_tokens=False)["input_ids"]
    pieces = [ids[i : i + 10] for i in range(0, len(ids), 10)]
    first = opening(tokenizer)
    seeds = [zlib.crc32(f"t/0/0-{j:04d}".encode()) for j in range(len(pieces))]
    expected = -sum(bound(model, torch.tensor([*first, *piece]), 1, samples=4, seed=seed) for piece, seed in zip(pieces, seeds, strict=True))
    assert log_p == pytest.approx(expected, rel=1e-6)


def asked(*arguments, task="t", document=0, number=0):
    from lm_eval.api.instance import Instance

    return Instance("generate_until", {}, arguments, number, metadata=(task, document, 1))


def test_a_request_has_the_same_name_and_masks_whatever_is_asked_beside_it(bundled, tmp_path, monkeypatch):
    """The choices of a document share their masks; repeats of a request are told apart."""
    from mezzotint.evaluation import answering
    from mezzotint.evaluation.harness import Mezzotint, ids_of

    many = [asked("a", " b", task=task, document=i, number=j) for task in ("s", "t") for i in range(2) for j in range(2)]
    assert ids_of(many[4:]) == ids_of(many)[4:] == ["t/0/0", "t/0/1", "t/1/0", "t/1/1"]
    assert ids_of([many[0]] * 3) == ["s/0/0", "s/0/0/1", "s/0/0/2"]
    seeds: list[int] = []
    monkeypatch.setattr(answering, "bound", lambda *_, seed, **more: seeds.append(seed) or 1.0)
    monkeypatch.setattr(answering, "greedy", lambda *_, **more: False)
    with Store(tmp_path / "p.jsonl") as store:
        adapter = Mezzotint(*bundled, RECIPE, Settings(), store=store, batch=1)
        assert len(adapter.loglikelihood(many[4:6])) == 2
        assert seeds == [zlib.crc32(b"t/0")] * 2
        adapter.loglikelihood(many)
        assert len(seeds) == 8  # what was asked alone is not asked again
        assert len(set(seeds)) == 4


def test_a_chat_is_encoded_as_its_template_writes_it(bundled, monkeypatch):
    """Without a begin token where the template has none, as `eval` without the harness does it."""
    from mezzotint.evaluation import answering
    from mezzotint.evaluation.harness import Mezzotint

    model, tokenizer = bundled
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = tokenizer.chat_template.replace("{{ '<|startoftext|>' }}", "")
    weighed: list[list[int]] = []
    monkeypatch.setattr(answering, "bound", lambda model, ids, start, **more: weighed.append(ids[:start].tolist()) or 1.0)
    monkeypatch.setattr(answering, "greedy", lambda *_, **more: False)
    for known, begins in ((bare, False), (tokenizer, True)):
        adapter = Mezzotint(model, known, RECIPE, Settings())
        text = adapter.apply_chat_template([{"role": "user", "content": "Say amber"}])
        ids = encode(known, "Say amber", chat=True)
        assert encode(known, adapter.prompt(text), chat=False) == ids
        assert (ids[0] == known.bos_token_id) is begins
        assert adapter.generate_until([asked(text, {})]) == [mz.generate(model, known, "Say amber", RECIPE, chat=True).text]
        adapter.loglikelihood([asked(text, "amber")])
        assert weighed[-1] == ids[: len(weighed[-1])]
        assert len(weighed[-1]) > 8
        adapter.loglikelihood([asked("Say amber", " amber")])
        assert weighed[-1] == encode(known, "Say amber", chat=False)
        assert weighed[-1][0] == known.bos_token_id


@pytest.mark.parametrize(("metric", "decoded"), [("acc", 0), ("exact_match", 4)])
def test_greedy_decoding_is_asked_only_where_figures_need_it(bundled, folder, monkeypatch, metric, decoded):
    from mezzotint.evaluation import answering

    (folder / "other.yaml").write_text(CHOICE.format(folder=folder).replace("local_choice", "local_other").replace("metric: acc}", f"metric: {metric}}}"))
    times: list[int] = []
    monkeypatch.setattr(answering, "greedy", lambda *_, **more: times.append(1) or False)
    assert f"{metric},none" in harness(bundled, folder, "local_other")
    assert len(times) == decoded


def test_greedy_decoding_is_asked_by_tasks_of_one_continuation(bundled, folder, monkeypatch):
    from mezzotint.evaluation import answering

    words = CHOICE.replace("output_type: multiple_choice", "output_type: loglikelihood").replace("local_choice", "local_last")
    words = words.replace("doc_to_target: answer", 'doc_to_target: "{{{{choices[0]}}}}"').replace('doc_to_choice: "{{{{choices}}}}"\n', "")
    (folder / "last.yaml").write_text(words.format(folder=folder).replace(", {metric: acc_norm}", ""))
    monkeypatch.setattr(answering, "greedy", lambda *_, **more: True)
    assert harness(bundled, folder, "local_last")["acc,none"] == 1


def test_requests_are_answered_one_by_one(bundled):
    from mezzotint.evaluation.harness import Mezzotint

    model, tokenizer = bundled
    adapter = Mezzotint(model, tokenizer, RECIPE, Settings(samples=2))
    chat = adapter.apply_chat_template([{"role": "user", "content": "Copy these words: amber coral"}])
    (text,) = adapter.generate_until([asked(chat, {"until": [" coral"]})])
    whole = mz.generate(model, tokenizer, "Copy these words: amber coral", RECIPE).text
    assert text == whole.split(" coral")[0]
    (found,) = adapter.loglikelihood([asked(chat, whole)])
    assert found[0] < 0
    assert isinstance(found[1], bool)
    with pytest.raises(ValueError, match="asks for samples"):
        adapter.generate_until([asked(chat, {"until": [], "do_sample": True})])


def test_a_request_that_does_not_fit_is_named_before_anything_is_answered(bundled, folder, monkeypatch):
    from mezzotint.evaluation import answering
    from mezzotint.evaluation.harness import Mezzotint

    monkeypatch.setattr(answering, "predict", lambda *_: pytest.fail("something was answered"))
    adapter = Mezzotint(*bundled, RECIPE, Settings(samples=1))
    for ask, short, long in ((adapter.generate_until, ("a", {}), ("a " * 9000, {})), (adapter.loglikelihood, ("a", " b"), ("a " * 9000, " b"))):
        with pytest.raises(ValueError, match=r"harness task 't', document 0: the prompt has \d+ tokens"):
            ask([asked(*short), asked(*long)])


def test_a_recipe_is_refused_where_only_likelihoods_are_asked(bundled, folder, monkeypatch):
    from mezzotint.evaluation import answering

    with monkeypatch.context() as patch:
        patch.setattr(answering, "predict", lambda *_: pytest.fail("something was answered"))
        with pytest.raises(ValueError, match=r"--recipe means nothing to local_choice: .* --cfg-scale counts"):
            harness(bundled, folder, "local_choice", given=["recipe", "cfg_scale"])
    assert "acc,none" in harness(bundled, folder, "local_choice", given=["cfg_scale"], limit=1)
    assert harness(bundled, folder, "local_gsm8k", given=["recipe"], said=["2"], monkeypatch=monkeypatch, limit=1)["count"] == 1


def test_ruler_of_the_harness_is_refused_and_ours_is_named(capsys, monkeypatch):
    from mezzotint.cli import options

    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(options, "load", lambda args: pytest.fail("a model was loaded"))
    handler = signal.getsignal(signal.SIGTERM)
    try:
        for task in ("ruler", "niah_single_1", "ruler_vt"):
            assert main(["eval", "--harness", f"gsm8k,{task}"]) == 2
            (line,) = capsys.readouterr().err.strip().splitlines()
            assert f"task='{task}'" in line
            assert "mezzotint eval ruler --lengths" in line
    finally:
        signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("import no_such_package", r"local_odd needs a package that is not installed \(No module named 'no_such_package'\); .*lm-eval\[longbench\]"),
        ("assert False, 'no tokenizer'", r"local_odd cannot be built \(AssertionError: no tokenizer\)"),
        ("{}['tokenizer']", r"local_odd cannot be built \(KeyError: 'tokenizer'\)"),
    ],
)
def test_a_task_that_the_harness_cannot_build_is_named_with_the_reason(bundled, folder, code, named):
    (folder / "odd.py").write_text(f"{code}\ntext = str\n")
    (folder / "odd.yaml").write_text(
        CHOICE.format(folder=folder).replace("local_choice", "local_odd").replace("test_split:", "process_docs: !function odd.text\ntest_split:")
    )
    with pytest.raises(ValueError, match=named):
        harness(bundled, folder, "local_odd")


@pytest.mark.slow
def test_unknown_tasks_are_named(bundled, folder):
    with pytest.raises(ValueError, match="harness task='chess' is unknown"):
        harness(bundled, folder, "chess")
    with pytest.raises(ValueError, match="is not a folder"):
        harness(bundled, folder / "gsm8k.yaml", "chess")
