"""What the long benchmarks share: samples outlive a kill, samples of other conditions are refused, and the figures say what the samples say."""

import json
import re
from pathlib import Path

import pytest
import torch

import mezzotint as mz
from mezzotint.bench.questions import Answer
from mezzotint.evaluation.suite import questions

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """The benchmarks' own modules."""
    monkeypatch.syspath_prepend(str(FOLDER))


def answer(text: str, seconds: float = 1.0) -> mz.Generation:
    return mz.Generation(torch.zeros(4, dtype=torch.long), 3, 99, seconds, ("stop",), mz.Recipe(), text)


def test_samples_are_taken_up_again(tmp_path, tiny):
    from samples import Samples

    path = tmp_path / "kept" / "samples.jsonl"
    first = Samples(path, tiny["llada"], length=64)
    first.add(0, "plain", result=answer("a"), right=True)
    first.add(1, "plain", result=answer("b"), right=False)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])  # killed while the second was being written
    again = Samples(path, tiny["llada"], length=64)
    assert again.get(0, "plain") == {"text": "a", "seconds": 1.0, "forwards": 3, "positions_computed": 99, "tokens": 4, "right": True}
    assert again.get(1, "plain") is None
    again.add(1, "plain", result=answer("b"), right=False)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(("family", "length", "named"), [("llada", 128, "length=64, this is 128"), ("dream", 64, "weights=")])
def test_samples_of_other_conditions_are_refused(tmp_path, tiny, family, length, named):
    from samples import Samples

    Samples(tmp_path / "s.jsonl", tiny["llada"], length=64)
    with pytest.raises(SystemExit, match=named):
        Samples(tmp_path / "s.jsonl", tiny[family], length=length)


def test_recipes_take_turns_and_are_asked_once(bundled, monkeypatch):
    from samples import Clock, Samples, figures, take_turns

    model, tokenizer = bundled
    plain = mz.Recipe(gen_length=16, block_length=16)
    stages = {"none": plain, "dual": plain.with_(cache=mz.DualCache())}
    asked = [(task, questions(task, 1)[0]) for task in ("lists", "code")]
    samples = Samples(None, model)
    found = take_turns(model, tokenizer, asked, stages, samples, Clock(None), lambda text: None)
    assert {name: len(group) for name, group in found.items()} == {"none": 2, "dual": 2}
    assert take_turns(model, tokenizer, asked, stages, samples, Clock(None), lambda text: None) == found
    assert len(take_turns(model, tokenizer, asked, stages, samples, Clock(0), lambda text: None)["dual"]) == 1
    warm: list[mz.Recipe] = []
    monkeypatch.setattr("samples.ask", lambda model, tokenizer, example, recipe: warm.append(recipe))
    take_turns(model, tokenizer, asked, stages, samples, Clock(None), lambda text: None)
    assert warm == list(stages.values())  # all are answered already
    row = figures("dual", stages["dual"], found["dual"], found["none"])
    assert row["positions_computed"] < sum(s["positions_computed"] for s in found["none"]) / 2
    assert row["against_first"]["difference"] == row["exact_match"] - sum(s["right"] for s in found["none"]) / 2


def test_the_headline_names_what_dpad_adds():
    from headline import TWINS, recipes, row, verdict

    seconds = {"vanilla": 100.0, "parallel +dual +early stop": 2.0, "parallel +dual +DPad +early stop": 1.0}
    stages = recipes(256, 256)
    taken = {name: [{"seconds": seconds.get(name, 10.0), "tokens": 20, "forwards": 5, "positions_computed": 50}] * 2 for name in stages}
    judged = {name: [True, name != "fast"] for name in stages if name not in TWINS}
    rows = [row(name, recipe, taken[name], taken["vanilla"], judged) for name, recipe in stages.items()]
    assert rows[0]["name"] == "vanilla"
    assert rows[0]["speedup"] == 1
    found = verdict(rows)
    assert (found["best"], found["best_speedup"], found["reached"]) == ("parallel +dual +DPad +early stop", 100.0, True)
    assert (found["strongest_without_dpad"], found["dpad_adds"]) == ("parallel +dual +early stop", 2.0)
    judged["parallel +dual +DPad +early stop"] = [False, True]  # half of the answers lost
    rows = [row(name, recipe, taken[name], taken["vanilla"], judged) for name, recipe in stages.items()]
    assert verdict(rows)["best"] == "parallel +dual +early stop"


def test_the_headline_draws_for_every_question_anew(tiny, monkeypatch, capsys):
    import headline

    seeds: dict[str, set[int]] = {}

    def generate(model, tokenizer, prompt, recipe, *, seed=0):
        seeds.setdefault(prompt, set()).add(seed)
        return answer("a")

    monkeypatch.setattr(headline.mz, "load", lambda name: (tiny["llada"], None))
    monkeypatch.setattr(headline.mz, "generate", generate)
    monkeypatch.setattr(headline, "begun", lambda *given: answer("a"))
    monkeypatch.setattr("sys.argv", ["headline.py", "--quick", "--json"])
    headline.main()
    assert sorted(seeds.values(), key=max) == [{0}, {1}, {2}, {3}]
    assert json.loads(capsys.readouterr().out)["seeds"] == headline.SEEDS


def test_the_headline_times_what_was_only_judged(tmp_path, tiny):
    from headline import enough
    from samples import Samples

    samples = Samples(tmp_path / "s.jsonl", tiny["llada"])
    assert not enough(samples.get(0, "fast"), timed=False)
    samples.add(0, "fast", result=answer("a"), right=True, timed=False)
    assert enough(samples.get(0, "fast"), timed=False)
    assert not enough(samples.get(0, "fast"), timed=True)
    samples.add(0, "fast", result=answer("a", 2.0), right=True, timed=True)
    again = Samples(tmp_path / "s.jsonl", tiny["llada"]).get(0, "fast")
    assert again is not None
    assert again["seconds"] == 2.0
    assert enough(again, timed=True)
    assert enough(again, timed=False)


def test_growth_counts_the_questions_that_got_the_same_answer():
    from canvas_growth import growth

    short = [{"text": "a", "seconds": 1.0}, {"text": "b", "seconds": 1.0}]
    assert growth([{"text": "a", "seconds": 1.5}, {"text": "other", "seconds": 9.0}], short) == 1.5
    assert growth([{"text": "x", "seconds": 1.0}, {"text": "y", "seconds": 1.0}], short) is None


def passes(right: list[list[bool]], seconds: float) -> list[dict[int, Answer]]:
    """Draws of questions answered so, each in that time."""
    return [{100 * draw + i: Answer("", r, seconds, 1, 1, 1, 1) for i, r in enumerate(group)} for draw, group in enumerate(right)]


def test_a_composition_wins_only_on_draws_that_had_no_part_in_the_choice():
    from pareto import verdict

    recipes = {"plain": mz.Recipe(), "single": mz.Recipe(commit=mz.Threshold(0.9)), "both": mz.Recipe(commit=mz.Threshold(0.9), cache=mz.DualCache())}
    sound = [[True] * 60] * 3
    found = {"plain": passes(sound, 4.0), "single": passes(sound, 2.0), "both": passes(sound, 1.0)}
    said = verdict(recipes, found, ["plain", "single"], ["both"])
    assert (said["best_single"], said["best_composed"]) == ("single", "both")
    assert said["composition_wins"] == {"verdict": True, "questions": 60, "why": ""}
    assert said["composed_over_single"]["ratio"] == pytest.approx(2)
    found["both"] = passes([[True] * 60, [True] * 60, [False] * 60], 1.0)  # good where it was chosen, and nowhere else
    assert verdict(recipes, found, ["plain", "single"], ["both"])["composition_wins"]["verdict"] is False
    few = {name: [dict(list(group.items())[:8]) for group in passes(sound, s)] for name, s in (("plain", 4.0), ("single", 2.0), ("both", 1.0))}
    said = verdict(recipes, few, ["plain", "single"], ["both"])["composition_wins"]
    assert (said["verdict"], said["questions"]) == (None, 8)
    assert "a loss of 5 points lies within" in said["why"]
    once = {name: groups[:1] for name, groups in few.items()}
    assert "one draw: chosen and compared on the same questions" in verdict(recipes, once, ["plain", "single"], ["both"])["composition_wins"]["why"]


def test_speed_that_the_interval_leaves_open_is_no_win():
    from pareto import decided

    assert decided([0.9, 1.4], [[-0.01, 0.01]])[0] is None
    assert decided(None, [[-0.01, 0.01]])[0] is None
    assert decided([0.5, 0.9], [[-0.2, 0.2]]) == (False, "")
    assert decided([1.1, 1.4], [[-0.01, 0.01], [-0.04, 0.02]]) == (True, "")


def test_few_questions_name_no_cache_that_keeps_quality():
    from caches import verdict

    def row(name: str, seconds: float, difference: float, ci: tuple[float, float]) -> dict:
        return {"name": name, "seconds": seconds, "against_first": {"difference": difference, "ci": ci}}

    first, slow, quick = row("none", 9.0, 0.0, (-0.02, 0.02)), row("slow", 3.0, 0.0, (-0.02, 0.02)), row("quick", 1.0, 0.0, (-0.3, 0.3))
    assert verdict([first, slow, quick], 100)["verdict"] == "slow"
    said = verdict([first, quick], 4)
    assert (said["verdict"], said["questions"]) == (None, 4)
    assert "within every 95 % interval" in said["why"]
    assert "loses more than 0.5 points" in verdict([first, row("bad", 1.0, -0.4, (-0.6, -0.1))], 4)["why"]


def test_what_tune_found_is_judged_by_the_intervals():
    from tuning import verdicts

    def good(*given) -> bool | None:
        return verdicts(*given)["tuned_at_least_as_good"]["verdict"]

    assert good([-0.02, 0.02], [1.1, 1.3], False, 100) is True
    assert good([-0.02, 0.02], [0.6, 1.2], False, 100) is None
    assert good([-0.02, 0.02], [0.6, 0.8], False, 100) is False
    assert good([-0.02, 0.02], None, True, 100) is True
    assert good([-0.02, 0.02], None, False, 1) is None
    assert good([-0.3, -0.1], [1.1, 1.3], False, 100) is False
    assert good([-0.25, 0.25], [0.6, 1.2], False, 6) is None
    said = verdicts([-0.25, 0.25], [0.6, 1.2], False, 6)["tuned_keeps_quality"]
    assert (said["verdict"], said["questions"]) == (None, 6)


def test_kept_answers_are_those_of_the_same_recipe():
    from sparsed_quality import IDENTITY, known

    about = {"weights": "w"}
    line = {"task": "math", "arm": "sparsed", "recipe": "--gen-length 16", "attention": "a", "from": 0, "to": 20, "about": about}
    key = tuple(line[name] for name in IDENTITY)
    assert known([line], about) == {key: line}
    assert key not in known([line | {"recipe": "--gen-length 24"}], about)
    assert known([line | {"about": {"weights": "v"}}], about) == {}
    assert known([{name: value for name, value in line.items() if name != "recipe"}], about) == {}


def test_the_share_of_sparse_forwards_is_left_open_where_patterns_are_made_anew():
    from sparsed_quality import Arm, dense_forwards, sparse_share

    recipe = mz.Recipe(gen_length=16, block_length=16, steps=10)
    once, anew = mz.SparseD(skip=0.2), mz.SparseD(skip=0.2, rebuild="recall:0.95")
    assert sparse_share([(10, dense_forwards(Arm(recipe, once)))] * 2) == 0.7
    assert sparse_share([(10, dense_forwards(Arm(recipe, mz.Dense())))]) == 0
    assert sparse_share([(10, dense_forwards(Arm(recipe, anew)))]) is None


def test_sparsed_meets_the_caches_of_its_paper_where_they_are_named(bundled, monkeypatch, capsys):
    import sparsed_quality

    monkeypatch.setattr(sparsed_quality.mz, "load", lambda name: bundled)
    words = ["sparsed_quality.py", "--tasks", "code", "--count", "2", "--words", "--json"]
    recipes = {}
    for named in ([], ["--arms", "dkv-cache", "fast-dllm"]):
        monkeypatch.setattr("sys.argv", words + named)
        sparsed_quality.main()
        found = json.loads(capsys.readouterr().out)
        assert all(row["count"] == 2 for row in found["all"].values())
        recipes[bool(named)] = {name: row["recipe"] for name, row in found["tasks"]["code"].items()}
    assert set(recipes[False]) == {"dense", "sparsed", "sparsed, residual", "sparsed, mass 0.95", "window", "streaming"}
    assert list(recipes[True]) == ["dense", "dkv-cache", "fast-dllm"]
    assert recipes[True]["dkv-cache"] == f"{recipes[True]['dense']} --cache delayed"
    assert recipes[True]["fast-dllm"].endswith("--commit threshold --cache prefix")
    monkeypatch.setattr("sys.argv", [*words, "--arms", "dkv"])
    with pytest.raises(SystemExit, match=r"'dkv' is unknown; accepted: dense, .*, dkv-cache, fast-dllm"):
        sparsed_quality.main()


def test_the_report_puts_only_intervals_in_brackets():
    from report import cell, page

    assert cell([0.1, 0.25], "ci") == cell([0.1, 0.25], "difference_ci") == "[0.1, 0.25]"
    assert cell([177.0, 518.0], "speedup_range") == "177–518"
    assert cell([64, 256], "lengths") == "64 256"
    assert cell({"ratio": 1.5, "ci": None}) == "1.5"
    assert cell({"mean": 0.5, "ci": [0.25, 0.75]}) == "+0.5 [0.25, 0.75]"
    assert cell({"verdict": True, "questions": 60, "why": ""}) == "yes (on 60 questions)"
    assert cell({"verdict": None, "questions": 1, "why": "too few"}) == "open (on 1 question; too few)"
    assert re.search(r" · samples \d+ · ", page())
