"""The public benchmarks on small files of their own format: what is asked, and what counts as right."""

import gzip
import json
import random
import re

import pytest
import torch

import mezzotint as mz
from mezzotint.cli import main
from mezzotint.evaluation.answering import Speaker, split
from mezzotint.evaluation.benchmarks import BENCHMARKS, choices, gsm8k, programs, ruler
from mezzotint.evaluation.evaluating import Evaluation
from mezzotint.evaluation.item import Settings, cut
from mezzotint.evaluation.predictions import Store
from mezzotint.evaluation.presets import PRESETS, preset
from mezzotint.evaluation.sandbox import filtered
from mezzotint.evaluation.sources import rows, spread
from mezzotint.generation import encode

RECIPE = mz.Recipe(gen_length=16, block_length=16, commit=mz.Threshold(0.5))
needs_filter = pytest.mark.skipif(not filtered(), reason="this kernel cannot filter system calls")


def write(path, found):
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return str(path)


def items(name, model, tokenizer, recipe=RECIPE, **settings):
    return BENCHMARKS[name].items(Settings(**settings), tokenizer, recipe, model.config)


@pytest.mark.parametrize(
    ("text", "exact", "strict"),
    [
        ("16-3-4=9\n#### 18", True, True),
        ("#### $1,018.", False, False),
        ("The answer is 18.", True, False),
        ("#### 18\nQuestion 2: 7", False, True),
        ("18.0", False, False),
        ("#### 17\n18", True, False),
        ("eighteen", False, False),
        ("", False, False),
        ("costs $18", True, False),
    ],
)
def test_gsm8k_strict_and_flexible(text, exact, strict):
    assert gsm8k.score({"answer": "18"}, {"text": text}) == {"exact_match": exact, "strict": strict}


def test_gsm8k_thousands_and_currency():
    assert gsm8k.score({"answer": "1,018"}, {"text": "#### $1018"})["exact_match"]
    assert gsm8k.score({"answer": "1,018"}, {"text": "so #### 1,018."}) == {"exact_match": True, "strict": True}


def test_gsm8k_shows_worked_examples_of_the_train_split(tmp_path, bundled):
    write(tmp_path / "train.jsonl", [{"question": f"Q{i}?", "answer": f"w{i}\n#### {i}"} for i in range(3)])
    write(tmp_path / "test.jsonl", [{"question": "How many?", "answer": "x\n#### 1,234"}, {"question": "And?", "answer": "#### 2"}])
    first, second = items("gsm8k", *bundled, data=str(tmp_path), shots=2)
    assert first.prompt == "Question: Q0?\nAnswer: w0\n#### 0\n\nQuestion: Q1?\nAnswer: w1\n#### 1\n\nQuestion: How many?\nAnswer:"
    assert first.facts == {"answer": "1,234"}
    assert second.id != first.id
    assert len(items("gsm8k", *bundled, data=str(tmp_path), shots=0, count=1)) == 1
    with pytest.raises(ValueError, match="shots=9 is more than the 3 rows"):
        items("gsm8k", *bundled, data=str(tmp_path), shots=9)


@pytest.mark.parametrize(("name", "split"), [("gsm8k", "train"), ("mmlu", "dev")])
def test_worked_examples_are_never_among_the_questions(tmp_path, bundled, name, split):
    path = tmp_path / "test.jsonl"
    row = {"question": "Q?", "answer": "#### 1"} if name == "gsm8k" else {"question": "Q?", "choices": ["a", "b"], "answer": 0}
    data = write(path, [row] * 9)
    with pytest.raises(ValueError, match=rf"shots=\d needs a {split} split; data='.*test.jsonl' is one file; give a folder with {split}.jsonl and test.jsonl"):
        items(name, *bundled, data=data)
    assert len(items(name, *bundled, data=data, shots=0)) == 9
    path.rename(tmp_path / f"{split}.jsonl")
    with pytest.raises(ValueError, match="has one file"):
        items(name, *bundled, data=str(tmp_path), shots=1)
    with pytest.raises(ValueError, match=f"split='{split}' asks its questions"):
        items(name, *bundled, data=str(tmp_path), shots=1, split=split)


GSM8K_ROW = {"question": "Q?", "answer": "#### 1"}
MMLU_ROW = {"question": "Q?", "choices": ["a", "b"], "answer": 0}
MBPP_ROW = {"task_id": 11, "text": "Do.", "code": "pass", "test_list": ["assert True"]}


@pytest.mark.parametrize(
    ("name", "file", "rows", "named"),
    [
        ("gsm8k", "train", [GSM8K_ROW, {"answer": "#### 1"}], "train row 2: no usable field 'question'"),
        ("gsm8k", "test", [GSM8K_ROW | {"answer": 1}], "test row 1: no usable field 'answer'"),
        ("mmlu", "test", [MMLU_ROW, MMLU_ROW | {"subject": 3}], "test row 2: no usable field 'subject'"),
        ("mmlu", "dev", [MMLU_ROW, MMLU_ROW | {"subject": []}], "dev row 2: no usable field 'subject'"),
        ("mmlu", "test", [MMLU_ROW | {"choices": {"text": ["a", "b"], "label": 3}, "answer": "Z"}], "test row 1: answer='Z'"),
        ("mbpp", "prompt", [MBPP_ROW | {"task_id": 2}, {"task_id": 3, "text": "Do.", "test_list": []}], "prompt row 2: no usable field 'code'"),
        ("mbpp", "test", [MBPP_ROW | {"test_list": ["assert True", 3]}], "test row 1: `test_list` must be a list of texts"),
        ("mbpp", "test", [MBPP_ROW | {"test_setup_code": 3}], "test row 1: no usable field 'test_setup_code'"),
        ("mbpp", "test", [MBPP_ROW | {"task_id": []}], "test row 1: no usable field 'task_id'"),
        ("humaneval", "test", [{"task_id": "a"}], "test row 1: no usable field 'prompt'"),
        ("wikitext", "test", [{"text": "a"}, {"text": None}], "test row 2: no usable field 'text'"),
        ("choice", "test", [MMLU_ROW, MMLU_ROW | {"question": None}], "test row 2: no usable field 'question'"),
    ],
)
def test_damaged_rows_are_named(tmp_path, bundled, name, file, rows, named):
    good = {"gsm8k": GSM8K_ROW, "mmlu": MMLU_ROW, "mbpp": MBPP_ROW}.get(name)
    for part in ("train", "dev", "prompt", "test"):
        write(tmp_path / f"{part}.jsonl", rows if part == file else [good])
    with pytest.raises(ValueError, match=re.escape(f"data={str(tmp_path)!r} {named}")):
        items(name, *bundled, data=str(tmp_path), shots=0 if file == "test" else 2)


def test_an_answer_ends_before_the_first_of_its_ends():
    assert cut("a Question: b", ("Question:",)) == "a "
    assert cut("x\ndef f\nclass", ("\nclass", "\ndef")) == "x"
    assert cut("x", ()) == "x"


PROBLEM = {
    "task_id": "HumanEval/0",
    "prompt": 'def double(x):\n    """Twice x."""\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
}


@needs_filter
@pytest.mark.parametrize(
    ("chat", "text", "right"),
    [
        (False, "    return 2 * x\n", True),
        (False, "    return 3 * x\n", False),
        (False, "return 2 * x", False),
        (False, "    import sys\n    sys.exit(0)", False),
        (True, "```python\ndef double(x):\n    return x + x\n```\nThat is it.", True),
        (True, "Here:\n```\nprint('no')\n```\n```python\ndef double(x):\n    return x * 2\n", True),
        (True, "def double(x):\n    return 2 * x\n", True),
        (True, "    return 2 * x\n", True),
        (True, "```python3\ndef double(x):\n    return 2 * x\n```\nThat is it.\n", True),
        (True, '```python title="a.py"\r\ndef double(x):\r\n    return 2 * x\r\n```\r\nThat is it.\r\n', True),
        (True, "```py\ndef double_all(xs):\n    return xs\n```\n```py\ndef double(x):\n    return 2 * x\n```", True),
        (True, "```py\n# see def double\nprint(1)\n```\n```py\ndef double(x):\n    return 2 * x\n```", True),
        (True, "1. So:\n   ```python\n   def double(x):\n\n       return 2 * x\n   ```\n   That is it.\n", True),
        (True, "Call ```double(2)``` then.\n```\ndef double(x):\n    return 2 * x\n```", True),
        (True, "So: ```python\n    return 2 * x\n```", True),
        (True, "I do not know.", False),
    ],
)
def test_humaneval_runs_the_program(chat, text, right):
    facts = {"prompt": PROBLEM["prompt"], "test": f"{PROBLEM['test']}\ncheck(double)", "name": "double", "chat": chat}
    found = programs.score(facts, {"text": text})
    assert found["exact_match"] is right
    assert right or found["reason"]


def test_humaneval_asks_in_a_chat_or_continues(tmp_path, bundled):
    path = tmp_path / "HumanEval.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write(json.dumps(PROBLEM) + "\n")
    (asked,) = items("humaneval", *bundled, data=str(path))
    assert "Complete this Python function" in asked.prompt
    (continued,) = items("humaneval", *bundled, data=str(tmp_path), chat=False)
    assert continued.prompt == PROBLEM["prompt"]
    assert "\ndef" in continued.until


@needs_filter
def test_mbpp_shows_three_problems_and_runs_the_tests(tmp_path, bundled):
    problems = [
        {"task_id": i, "text": f"Return {i}.", "code": f"def f():\n    return {i}", "test_list": [f"assert f() == {i}"], "test_setup_code": ""}
        for i in (2, 3, 4, 11, 12, 600)
    ]
    data = write(tmp_path / "mbpp.jsonl", problems)
    found = items("mbpp", *bundled, data=data, chat=False)
    assert [i.id for i in found] == ["011", "012"]
    assert found[0].prompt.count("[BEGIN]") == 4
    assert found[0].prompt.count("[DONE]") == 3
    assert programs.score(found[0].facts, {"text": "def f():\n    return 11\n[DONE] and more"})["exact_match"]
    assert not programs.score(found[0].facts, {"text": "def f():\n    return 12"})["exact_match"]
    fenced = "So:\n  ```python3\n  def f():\n      return 11\n  ```\nDone."
    assert programs.score(found[0].facts | {"chat": True}, {"text": fenced})["exact_match"]
    write(tmp_path / "mbpp.jsonl", problems[3:])
    with pytest.raises(ValueError, match="give --shots 0"):
        items("mbpp", *bundled, data=data)


def test_choices_of_every_known_shape():
    plain = {"question": "Q", "choices": ["a", "b"], "answer": 1}
    assert choices.options(plain, "x") == ("Q", ["a", "b"], 1)
    assert choices.options(plain | {"answer": "B"}, "x")[2] == 1
    assert choices.options(plain | {"answer": "a"}, "x")[2] == 0
    arc = {"question": "Q", "choices": {"text": ["a", "b", "c"], "label": ["1", "2", "3"]}, "answerKey": "3"}
    assert choices.options(arc, "x")[2] == 2
    for damaged in ({"answer": 5}, {"answer": "Z"}, {"choices": ["a"]}, {"choices": "ab"}, {"answer": None}):
        with pytest.raises(ValueError, match=r"x: "):
            choices.options(plain | damaged, "x")


def test_mmlu_letters_and_shots_by_subject(tmp_path, bundled):
    row = {"question": "Which?", "subject": "high_school_art", "choices": ["u", "v", "w", "z"], "answer": 2}
    write(tmp_path / "dev.jsonl", [row, row | {"subject": "law"}])
    write(tmp_path / "test.jsonl", [row])
    (found,) = items("mmlu", *bundled, data=str(tmp_path), shots=1)
    assert found.part == "high_school_art"
    assert "about high school art" in found.prompt
    assert found.prompt.endswith("D. z\nAnswer:")
    assert "Answer: C\n\n" in found.prompt
    assert found.choices == (" A", " B", " C", " D")
    assert choices.score({"right": 1, "characters": [1, 5]}, {"log_likelihoods": [-3.0, -4.0]}) == {"exact_match": False, "by_character": True}


def test_choice_by_likelihood_on_the_bundled_model(tmp_path, bundled):
    """The bundled model knows how its own tasks' answers go on."""
    row = {"question": "q", "choices": ["Answer: amber coral", "violet %% 17 ("], "answer": 0}
    data = write(tmp_path / "own.jsonl", [row])
    with Store(None) as store:
        figures, said, _ = Evaluation(*bundled, RECIPE, Settings(data=data, samples=8), store).run("choice")
    assert figures["exact_match"] == 1
    assert len(said[0].said["log_likelihoods"]) == 2


def test_prompt_and_continuation_are_cut_as_the_harness_cuts_them(bundled):
    _, tokenizer = bundled
    before, after = split(tokenizer, "The code is ", "amber")
    assert tokenizer.decode(before[1:]) == "The code is"
    assert tokenizer.decode(after) == " amber"
    with pytest.raises(ValueError, match="no tokens of its own"):
        split(tokenizer, "The code", "")


@pytest.mark.parametrize("length", [420, 1111])
def test_ruler_fills_any_length_and_holds_its_answers(bundled, length):
    model, tokenizer = bundled
    found = items("ruler", model, tokenizer, lengths=(length,), count=2)
    assert len(found) == 2 * len(ruler.KINDS)
    for item in found:
        size = len(encode(tokenizer, item.prompt)) + RECIPE.gen_length
        assert size <= length
        assert size > length - 100
        assert ruler.score(item.facts, {"text": ", ".join(item.facts["wanted"])}) == {"exact_match": True, "recall": 1.0}
        if "common" not in item.id:
            assert all(wanted in item.prompt for wanted in item.facts["wanted"])
    assert found == items("ruler", model, tokenizer, lengths=(length,), count=2)
    assert found != items("ruler", model, tokenizer, lengths=(length,), count=2, seed=1)
    assert {i.part for i in found} == {f"{kind}@{length}" for kind in ruler.KINDS}


def test_ruler_questions_have_one_answer():
    for seed in range(20):
        rng = random.Random(seed)
        text = ruler.KINDS["multiquery"](rng, 20)
        keys = text.prompt.rsplit("What are the codes of ", 1)[1].rstrip("?").split(", ")
        assert [text.prompt.count(f"The code of {key} is {value}.") for key, value in zip(keys, text.wanted, strict=True)] == [1, 1, 1, 1]
        assert len(ruler.KINDS["multivalue"](rng, 5).wanted) == 4
        tracked = ruler.KINDS["tracking"](rng, 10)
        value = tracked.prompt.rsplit("Which variables are ", 1)[1].rstrip("?")
        assert f"{tracked.wanted[0]} = {value}." in tracked.prompt
        assert all(f"{b} = {a}." in tracked.prompt for a, b in zip(tracked.wanted, tracked.wanted[1:], strict=False))
        words = ruler.KINDS["frequent"](rng, 30 + 40 * seed).prompt.split("\n")[0].split()
        counts = {w: words.count(w) for w in set(words) - {"..."}}
        top = sorted(counts.values(), reverse=True)
        assert top[2] > (top[3] if len(top) > 3 else 0)
        assert set(ruler.KINDS["frequent"](random.Random(seed), 100).wanted) <= set(ruler.KINDS["frequent"](random.Random(seed), 100).prompt.split())


@pytest.mark.parametrize(("kind", "room"), [("common", 100_000), ("multikey-dense", 200_000), ("frequent", 200_000)])
def test_ruler_fills_long_lengths(kind, room):
    text = ruler.fitted(kind, "0", room, lambda prompt: len(prompt) // 4)
    assert room - 100 < len(text.prompt) // 4 <= room


def test_names_never_run_short_and_are_those_of_always():
    many = ruler.names(random.Random(0), len(ruler.KEYS) ** 2 + 9)
    assert len(set(many)) == len(many)
    assert [name.count("-") for name in many] == [1] * len(ruler.KEYS) ** 2 + [2] * 9
    assert ruler.names(random.Random(0), 3) == random.Random(0).sample(ruler.KEYS, 3)
    pairs = random.Random(0).sample(range(len(ruler.KEYS) ** 2), 200)
    assert ruler.names(random.Random(0), 200) == [f"{ruler.KEYS[i // len(ruler.KEYS)]}-{ruler.KEYS[i % len(ruler.KEYS)]}" for i in pairs]


def test_ruler_scores_the_share_of_what_was_wanted():
    facts = {"wanted": ["471", "amber-fox"]}
    assert ruler.score(facts, {"text": "It is 471."}) == {"exact_match": False, "recall": 0.5}
    assert ruler.score(facts, {"text": "47 and amber"}) == {"exact_match": False, "recall": 0.0}
    assert ruler.score(facts, {"text": "4711 and AMBER-FOXES"}) == {"exact_match": False, "recall": 1.0}  # as string_match_all of RULER has it
    assert ruler.score(facts, {"text": "Amber-fox, 471!"})["exact_match"]


def test_ruler_refuses_what_cannot_be(bundled):
    with pytest.raises(ValueError, match=r"needs a prompt of at least \d+ tokens"):
        items("ruler", *bundled, lengths=(40,))
    with pytest.raises(ValueError, match="exceeds the model's trained length of 4096"):
        items("ruler", *bundled, lengths=(10_000,))


@pytest.mark.parametrize("name", ["wikitext", "wikitext-masked", "wikitext-suffix"])
def test_wikitext_in_three_senses(tmp_path, bundled, name):
    (tmp_path / "test.txt").write_text(" = Title = \n\n" + " The law was passed in 1921 and it was changed . " * 30)
    settings = Settings(data=str(tmp_path), samples=2, window=16, context=None if name == "wikitext" else 8, count=3)
    with Store(None) as store:
        figures, said, scored = Evaluation(*bundled, mz.Recipe(gen_length=64, block_length=16), settings, store).run(name)
    assert figures["count"] == 3
    assert figures["tokens"] == sum(s["tokens"] for s in scored) == 48
    chief = next(iter(figures))
    assert chief == ("masked_perplexity" if name == "wikitext-masked" else "perplexity")
    assert figures["ci"][0] <= figures[chief] <= figures["ci"][1]
    assert figures["nats_per_token"] == pytest.approx(sum(p.said["nats"] for p in said) / 48)
    if name != "wikitext-masked":
        assert figures["bits_per_byte"] == pytest.approx(sum(p.said["nats"] for p in said) / torch.tensor(2.0).log().item() / sum(s["bytes"] for s in scored))


@pytest.mark.parametrize("name", ["wikitext", "wikitext-masked", "suffix-ppl"])
def test_one_window_has_no_interval_and_tables_cope(tmp_path, name, capsys):
    (tmp_path / "test.txt").write_text("The law was passed in 1921 and it was changed . " * 30)
    words = ["eval", name, "--data", str(tmp_path), "--samples", "1", "--context", "16", "--count", "1"]
    words += [] if name != "suffix-ppl" else ["--gen-length", "64", "--against", "plain"]
    assert main([*words, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["tasks"][name]
    assert figures["ci"] is None
    assert "increase_percent_low" not in figures
    if name == "suffix-ppl":
        assert figures["paired"]["ci"] is None
    assert main(words) == 0
    assert "perplexity" in capsys.readouterr().out


def test_wikitext_suffix_compares_strategies_on_the_same_masks(tmp_path, bundled):
    (tmp_path / "test.txt").write_text("The law was passed in 1921 and it was changed . " * 30)
    settings = Settings(data=str(tmp_path), samples=2, context=16, count=2)
    full = mz.Recipe(gen_length=64, block_length=16)
    for against, changed in ((full.with_(commit="threshold"), 0), (full.with_(suffix="none"), 2)):
        with Store(None) as store:
            figures, _, _ = Evaluation(*bundled, full, settings, store, against=against).run("wikitext-suffix")
        assert figures["paired"]["changed"] == changed
    with pytest.raises(ValueError, match="leaves no masks behind"):
        items("wikitext-suffix", *bundled, recipe=mz.Recipe(gen_length=32), data=str(tmp_path))


def test_suffix_ppl_weighs_all_some_and_none_on_the_same_masks(tmp_path, bundled):
    (tmp_path / "test.txt").write_text("The law was passed in 1921 and it was changed . " * 30)
    settings = Settings(data=str(tmp_path), samples=2, context=16, count=3)
    for suffix, equal in (("dpad:window=48,k=0,a=9", "all"), ("none", "none")):
        recipe = mz.Recipe(gen_length=64, block_length=16).with_(suffix=suffix)
        with Store(None) as store:
            figures, said, _ = Evaluation(*bundled, recipe, settings, store).run("suffix-ppl")
        assert figures["perplexity"] == pytest.approx(figures[f"perplexity_{equal}"])
        assert figures["perplexity_all"] != pytest.approx(figures["perplexity_none"])
        assert figures["increase_percent"] == pytest.approx(0 if equal == "all" else figures["none_increase_percent"], abs=1e-6)
        assert figures["none_increase_percent_low"] <= figures["none_increase_percent"] <= figures["none_increase_percent_high"]
        assert all(p.said["all"] != p.said["none"] for p in said)


def test_sources_read_every_kind_and_name_damage(tmp_path):
    found = [{"a": 1}, {"a": 2}]
    write(tmp_path / "test.jsonl", found)
    (tmp_path / "list.json").write_text(json.dumps(found))
    assert rows(str(tmp_path), "test") == rows(str(tmp_path / "list.json"), "any") == found
    (tmp_path / "bad.jsonl").write_text('{"a": 1}\nnonsense\n')
    (tmp_path / "one.json").write_text("{}")
    for name, message in (("bad.jsonl", "line 2 is not JSON"), ("one.json", "list of objects"), ("no.csv", "unknown kind"), ("gone.jsonl", "neither a file")):
        if name == "no.csv":
            (tmp_path / name).write_text("a,b")
        with pytest.raises(ValueError, match=message):
            rows(str(tmp_path / name), "test")
    with pytest.raises(ValueError, match="no file of the split 'train'"):
        rows(str(tmp_path), "train")
    assert spread(3, 10) == [0, 3, 6]
    assert spread(None, 3) == spread(9, 3) == [0, 1, 2]


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-20], lambda raw: raw[:40] + b"x" * 40 + raw[80:], lambda raw: raw[:-8] + b"12345678", lambda raw: b"text"]
)
def test_a_damaged_gzip_file_is_named(tmp_path, damage):
    raw = gzip.compress("".join(json.dumps({"question": f"{random.Random(i).random()}"}) + "\n" for i in range(200)).encode())
    (tmp_path / "test.jsonl.gz").write_bytes(damage(raw))
    with pytest.raises(ValueError, match=r"data='.*test.jsonl.gz' cannot be read: "):
        rows(str(tmp_path), "test")


@pytest.mark.parametrize("name", ["gsm8k", "humaneval", "mbpp", "mmlu", "arc", "choice", "wikitext"])
def test_a_split_of_one_file_is_refused(tmp_path, bundled, name):
    data = write(tmp_path / "own.jsonl", [{}])
    with pytest.raises(ValueError, match=r"split='train' means nothing to data='.*own.jsonl', which is one file"):
        items(name, *bundled, data=data, split="train", shots=0)


def test_parquet_is_read_where_the_extra_is(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra eval")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"a": [1, 2]}), tmp_path / "test-00000-of-00001.parquet")
    assert rows(str(tmp_path), "test") == [{"a": 1}, {"a": 2}]
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "test-00000-of-00001.parquet").read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"torn.parquet' cannot be read: "):
        rows(str(tmp_path / "torn.parquet"), "test")


def test_every_preset_can_be_asked_and_bears_its_source():
    for name, tasks in PRESETS.items():
        for task, found in tasks.items():
            Settings(**found.settings)
            assert set(found.settings) <= {*BENCHMARKS[task].uses, "cfg_scale"}
            assert found.source
            assert mz.Recipe.from_dict(found.recipe.to_dict()) == found.recipe
            assert preset(name, task) is found
    with pytest.raises(ValueError, match="preset='best' is unknown"):
        preset("best", "gsm8k")
    with pytest.raises(ValueError, match="nothing for task 'ruler'"):
        preset("llada-base", "ruler")


def test_settings_and_speaker_are_values():
    with pytest.raises(ValueError, match="shots=-1 must be at least 0"):
        Settings(shots=-1)
    with pytest.raises(ValueError, match="lengths="):
        Settings(lengths=())
    assert Speaker.__dataclass_params__.frozen
