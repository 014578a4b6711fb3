"""What the long benchmarks share: samples outlive a kill, samples of other conditions are refused, and the figures say what the samples say."""

from pathlib import Path

import pytest
import torch

import mezzotint as mz
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


def test_recipes_take_turns_and_are_asked_once(bundled):
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
