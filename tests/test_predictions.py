"""Answering and scoring as two steps: what is stored, what a killed run resumes from, and what is never mixed up."""

import copy
import json
import time
from dataclasses import replace

import pytest
import tokenizers
import torch
import transformers

import mezzotint as mz
from mezzotint.evaluation import answering
from mezzotint.evaluation.answering import Speaker, chunks, collect
from mezzotint.evaluation.evaluating import Evaluation, beside, rescore
from mezzotint.evaluation.intervals import bootstrap, paired, wilson
from mezzotint.evaluation.item import Gap, Passage, Question, Settings
from mezzotint.evaluation.predictions import Prediction, Store, conditions, read, weights_digest
from mezzotint.evaluation.scoring import compare, score, summary

RECIPE = mz.Recipe(gen_length=8, block_length=8, commit=mz.Threshold(0.5), suffix=mz.DPad(window=8), temperature=0.7)


@pytest.fixture
def evaluation(bundled):
    model, tokenizer = bundled
    return lambda store, **more: Evaluation(model, tokenizer, RECIPE, Settings(count=3), store, hard=1, batch=2, **more)


def run(evaluation, path, **more):
    with Store(path) as store:
        return evaluation(store, **more).run("lists")


def test_every_line_names_its_recipe_and_versions_and_scoring_needs_no_model(evaluation, tmp_path):
    path = tmp_path / "deep" / "predictions.jsonl"
    figures, said, _ = run(evaluation, path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == len(said) == 4
    for line in lines:
        assert mz.Recipe.from_dict(line["recipe"]) == RECIPE
        assert line["versions"]["mezzotint"] == mz.__version__
        assert line["versions"]["torch"] == torch.__version__
        assert line["versions"]["transformers"] == transformers.__version__
        assert line["versions"]["tokenizers"] == tokenizers.__version__
        assert line["settings"]["seed"] == 0
    ((taken, again),) = rescore([path])
    assert again == figures
    assert (taken.task, figures["count"], figures["hard"]["count"]) == ("lists", 3, 1)


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_a_killed_run_resumes_to_the_same_predictions(evaluation, tmp_path, monkeypatch, keep):
    whole = tmp_path / "whole.jsonl"
    _, first, _ = run(evaluation, whole)
    killed = tmp_path / "killed.jsonl"
    lines = whole.read_text().splitlines(keepends=True)
    killed.write_text("".join(lines[:keep]) + lines[keep][:40])
    asked = []
    answers = answering.answers
    monkeypatch.setattr(answering, "answers", lambda speaker, items, seeds: asked.extend(items) or answers(speaker, items, seeds))
    _, resumed, _ = run(evaluation, killed)
    assert [p.said for p in resumed] == [p.said for p in first]
    assert len(asked) == {0: 4, 1: 4, 2: 2}[keep]  # groups of two: a group with a missing answer is asked as a whole
    assert {p.id for _, p in read(killed)} == {p.id for p in first}


def test_predictions_under_other_conditions_are_not_taken_over(bundled, tmp_path):
    model, tokenizer = bundled
    items = [Question("0", prompt="Copy these words: amber")]
    with Store(tmp_path / "p.jsonl") as store:
        base = conditions("lists", "m", model, RECIPE, Settings(), 3)
        collect(Speaker(model, tokenizer, RECIPE, Settings(), 3), items, store, base)
        assert store.of(base.run, items)
        others = [
            conditions("lists", "m", model, RECIPE.with_(commit="threshold:tau=0.6"), Settings(), 3),
            conditions("lists", "m", model, RECIPE, Settings(seed=1), 3),
            conditions("math", "m", model, RECIPE, Settings(), 3),
            *(replace(base, versions=base.versions | {name: "0"}) for name in ("torch", "transformers", "tokenizers")),
            replace(base, model=base.model | {"weights": "0"}),
        ]
        assert not any(store.of(other.run, items) for other in others)
        assert not store.of(base.run, [Question("0", prompt="Copy these words: coral")])
        assert conditions("lists", "m", model, RECIPE, Settings(count=9), 3).run == base.run


def test_conditions_know_the_configuration_the_tokenizer_and_the_quantisation(tiny, bundled):
    model, (_, tokenizer) = copy.copy(tiny["llada"]), bundled
    first = conditions("lists", "m", model, RECIPE, Settings(), 3, tokenizer).run
    assert conditions("lists", "m", model, RECIPE, Settings(), 3, tokenizer).run == first
    config, seen = model.config, {first}
    for change in ({"rope_theta": 5.0}, {"norm_eps": 0.1}, {"stop_ids": (7,)}, {"stop_text": "."}):
        model.config = replace(config, **change)
        seen.add(conditions("lists", "m", model, RECIPE, Settings(), 3, tokenizer).run)
    model.config = config
    other = copy.deepcopy(tokenizer)
    other.chat_template = "{{ messages }}"
    seen.add(conditions("lists", "m", model, RECIPE, Settings(), 3, other).run)
    other = copy.deepcopy(tokenizer)
    other.add_tokens(["<|new|>"])
    seen.add(conditions("lists", "m", model, RECIPE, Settings(), 3, other).run)
    assert len(seen) == 7


def test_the_weights_digest_sees_the_scheme_of_quantised_weights(tiny):
    pytest.importorskip("torchao", reason="needs the extra `quant`")
    plain, weight, dynamic = tiny["llada"], *(mz.quantise(tiny["llada"], scheme) for scheme in ("int8-weight", "int8-dynamic"))
    assert len({weights_digest(model) for model in (plain, weight, dynamic)}) == 3
    assert weights_digest(mz.quantise(plain, "int8-dynamic")) == weights_digest(dynamic)


def test_the_weights_digest_sees_one_changed_tensor(tiny):
    model = tiny["llada"]
    before = weights_digest(model)
    assert before == weights_digest(model) != weights_digest(tiny["dream"])
    with torch.no_grad():
        model.layers[0].mlp.down.weight.mul_(1.5)
        assert weights_digest(model) != before
        model.layers[0].mlp.down.weight.div_(1.5)


def test_the_weights_digest_takes_tensors_of_any_size(tiny):
    """From 2**24 elements on float32 rounds the last place up to the length itself."""
    model = copy.deepcopy(tiny["llada"])
    large = torch.zeros(12288, 4096, dtype=torch.float16)
    model.layers[0].mlp.down.weight = torch.nn.Parameter(large)
    before = weights_digest(model)
    large[-1, -1] = 1
    assert weights_digest(model) != before


def test_a_damaged_line_is_named_and_a_file_in_use_is_refused(evaluation, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"run": "x"}\n')
    with pytest.raises(ValueError, match="line 1 is not a prediction"):
        run(evaluation, path)
    path.unlink()
    with Store(path), pytest.raises(ValueError, match="in use by another run"), Store(path):
        pass


def test_groups_hold_one_kind_of_similar_length():
    items = [
        Question("a", prompt="x" * 9),
        Gap("b"),
        Question("c", prompt="x"),
        Question("d", prompt="xx", chat=False),
        Passage("e"),
        Question("f", prompt="xxx"),
    ]
    groups = [[items[i].id for i in group] for group in chunks(items, 2)]
    assert groups == [["b"], ["e"], ["d"], ["c", "f"], ["a"]]
    long = [Question("short", prompt="x" * 10), Question("long", prompt="x" * 300)]
    assert [len(group) for group in chunks(long, 16)] == [1, 1]  # padding costs as much as text
    assert all(len({type(items[i]) for i in group}) == 1 for group in chunks(items, 16))
    assert all(len({getattr(items[i], "chat", None) for i in group}) == 1 for group in chunks(items, 16))


def test_comparison_is_paired_and_counts_changed_verdicts_and_answers(evaluation, tmp_path):
    path = tmp_path / "p.jsonl"
    with Store(path) as store:
        figures, _, _ = evaluation(store, against=mz.Recipe(gen_length=8, block_length=8)).run("lists")
    assert set(figures["paired"]) == {"figure", "difference", "ci", "changed", "answers_changed", "count"}
    assert figures["paired"]["figure"] == "exact_match"
    assert figures["paired"]["count"] == 3
    assert figures["hard"]["paired"]["count"] == 1
    assert figures["paired"]["difference"] == pytest.approx(figures["exact_match"] - figures["compared"]["exact_match"])
    scored = rescore([path])
    assert len(scored) == 2
    assert scored[0][1]["paired"] == figures["paired"] | {"against": scored[1][0].run}
    assert "paired" not in scored[1][1]


def test_each_further_run_is_compared_with_the_first(evaluation, tmp_path):
    path = tmp_path / "p.jsonl"
    run(evaluation, path)
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    for name, change in (("second", {"said": {"text": "!"}}), ("third", {})):
        conditions = {"batch": {"second": 8, "third": 9}[name], "run": name}
        path.write_text(path.read_text() + "".join(json.dumps(line | change | conditions) + "\n" for line in lines))
    (first, alone), *further = rescore([path])
    assert not {"paired", "unpaired"} & {*alone, *alone["hard"]}
    assert [figures["paired"]["against"] for _, figures in further] == [first.run] * 2
    assert [figures["paired"]["answers_changed"] for _, figures in further] == [3, 0]
    assert [figures["hard"]["paired"]["answers_changed"] for _, figures in further] == [1, 0]


def test_ruler_is_compared_by_recall_part_by_part():
    def made(kind, text):
        return [Prediction(f"{kind}-{i}", kind, {"wanted": ["one", "two"]}, "?", {"text": text}) for i in range(4)]

    mine = made("common@512", "one") + made("single@512", "one two")
    theirs = made("common@512", "nil") + made("single@512", "one two")
    found = summary("ruler", mine, score("ruler", mine))
    beside("ruler", found, (mine, score("ruler", mine)), (theirs, score("ruler", theirs)))
    assert (found["paired"]["figure"], found["paired"]["difference"], found["paired"]["count"]) == ("recall", 0.25, 8)
    common, single = (found["parts"][kind] for kind in ("common@512", "single@512"))
    assert (common["paired"]["difference"], common["paired"]["changed"], common["compared"]["recall"]) == (0.5, 4, 0)
    assert (single["paired"]["difference"], single["paired"]["changed"]) == (0, 0)
    low, high = single["paired"]["ci"]
    assert low < -0.2 < 0.2 < high  # no change in four questions does not prove that there is none


def test_an_item_that_does_not_fit_is_named_before_anything_is_answered(bundled, tmp_path, monkeypatch):
    model, tokenizer = bundled
    monkeypatch.setattr(answering, "predict", lambda *_: pytest.fail("something was answered"))
    rows = [{"question": "a " * size, "answer": "#### 1", "choices": ["a", "b"]} for size in (1, 9000)]
    path = tmp_path / "d.jsonl"
    settings = Settings(data=str(path), shots=0)
    with Store(None) as store:
        for task, answer in (("gsm8k", "#### 1"), ("choice", "a")):
            path.write_text("".join(json.dumps(row | {"answer": answer}) + "\n" for row in rows))
            with pytest.raises(ValueError, match=rf"^{task} '0+1': the prompt has \d+ tokens, the model's context is"):
                Evaluation(model, tokenizer, RECIPE, settings, store).run(task)


def test_an_answer_that_ends_for_another_reason_is_the_same_answer(evaluation):
    _, said, scored = run(evaluation, None)
    ended = [replace(p, said=p.said | {"finish_reason": "another"}) for p in said]
    assert compare(said, ended, scored, scored)["answers_changed"] == 0
    other = [replace(p, said=p.said | {"text": p.said["text"] + "!"}) for p in said]
    assert compare(said, other, scored, scored)["answers_changed"] == len(said)


def test_comparison_refuses_different_questions(evaluation, tmp_path):
    _, said, scored = run(evaluation, None)
    other = [replace(p, asked="?") for p in said]
    with pytest.raises(ValueError, match="different questions"):
        compare(said, other, scored, scored)
    with pytest.raises(ValueError, match="no question in common"):
        compare(said, [replace(p, id=p.id + "x") for p in said], scored, scored)


def test_runs_of_different_lengths_are_paired_by_id(bundled, evaluation, tmp_path):
    """A harder half of other size, and questions that only one of the runs was asked."""
    model, tokenizer = bundled
    long, short = tmp_path / "long.jsonl", tmp_path / "short.jsonl"
    run(evaluation, long)
    plain = mz.Recipe(gen_length=8, block_length=8)
    with Store(short) as store:
        Evaluation(model, tokenizer, plain, Settings(count=2), store, hard=2, batch=2).run("lists")
    for paths, shares in (([long, short], (3, 1)), ([short, long], (2, 2))):
        figures = next(figures for taken, figures in rescore(paths) if "paired" in figures)
        assert (figures["count"], figures["paired"]["count"], figures["compared"]["count"]) == (shares[0], 2, 2)
        assert (figures["hard"]["count"], figures["hard"]["paired"]["count"]) == (shares[1], 1)


def test_runs_that_cannot_be_compared_keep_their_figures(evaluation, tmp_path):
    """With the reason, as when the data changed between the runs."""
    path = tmp_path / "p.jsonl"
    with Store(path) as store:
        evaluation(store, against=mz.Recipe(gen_length=8, block_length=8)).run("lists")
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    mine = next(line["run"] for line in lines)
    changed = [line | {"asked": "?"} if line["run"] == mine and not line["part"] else line for line in lines if line["run"] == mine or not line["part"]]
    path.write_text("".join(json.dumps(line) + "\n" for line in changed))
    figures = next(figures for taken, figures in rescore([path]) if taken.run == mine)
    assert figures["count"] == 3
    assert "different questions" in figures["unpaired"]
    assert "no question in common" in figures["hard"]["unpaired"]
    assert not {"paired", "compared"} & {*figures, *figures["hard"]}


def test_predictions_of_the_harness_are_left_out_with_a_warning(evaluation, tmp_path):
    path = tmp_path / "p.jsonl"
    figures, _, _ = run(evaluation, path)
    line = json.loads(path.read_text().splitlines()[0])
    foreign = json.dumps(line | {"task": "harness generate_until"}) + "\n"
    path.write_text(path.read_text() + foreign)
    with pytest.warns(UserWarning, match="the 1 predictions of lm-evaluation-harness are left out"):
        ((_, again),) = rescore([path])
    assert again == figures
    path.write_text(foreign)
    with pytest.raises(ValueError, match="no predictions in it but those of lm-evaluation-harness"):
        rescore([path])


def test_intervals():
    low, high = wilson(0, 10)
    assert low == 0
    assert 0.2 < high < 0.35
    assert wilson(4, 4)[1] == 1
    same = paired([True] * 50, [True] * 50)
    assert (same["difference"], same["changed"]) == (0, 0)
    assert same["ci"][0] < -0.01 < 0.01 < same["ci"][1]  # no change in 50 does not prove that there is none
    better = paired([True] * 40 + [False] * 10, [False] * 40 + [False] * 10)
    assert better["difference"] == 0.8
    assert better["ci"][0] > 0.6
    costs = paired([1.0, 2.0, 3.5, 4.0], [1.5, 2.5, 4.5, 4.5])
    assert costs["ci"][1] < 0
    assert costs["changed"] == 4
    assert paired([0.5, 0.25], [0.5, 0.25])["ci"] == (0, 0)
    assert paired([0.5, 0.25], [0.5, 0.25], shares=True)["ci"] == paired([True, True], [True, True])["ci"]
    assert bootstrap([1.5]) is None
    assert paired([1.5], [1.0])["ci"] is None  # one figure does not say how much figures differ
    low, high = paired([True], [True])["ci"]
    assert low < -0.3 < 0.3 < high


def test_coverage_of_the_paired_interval():
    """With known chances the true difference lies inside the 95 % interval about 95 times in 100."""
    generator = torch.Generator().manual_seed(0)
    inside = 0
    for _ in range(400):
        first = torch.rand(60, generator=generator) < 0.7
        second = torch.where(torch.rand(60, generator=generator) < 0.8, first, torch.rand(60, generator=generator) < 0.3)
        low, high = paired(second.tolist(), first.tolist())["ci"]
        inside += low <= 0.2 * (0.3 - 0.7) <= high
    assert 0.92 <= inside / 400 <= 0.99


def test_a_batch_counts_its_seconds_once(bundled):
    model, tokenizer = bundled
    items = [Question(str(i), prompt="Copy these words: amber") for i in range(4)]
    begun = time.perf_counter()
    said = answering.predict(Speaker(model, tokenizer, RECIPE, Settings(), 4), items, range(4))
    passed = time.perf_counter() - begun
    assert 0 < sum(p.seconds for p in said) <= passed
    assert len({p.seconds for p in said}) == 1


def test_a_gap_is_filled_from_both_sides(bundled):
    model, tokenizer = bundled
    document = 'def keep_values(xs):\n    """Keep the values above 3."""\n    return [x for x in xs if x > 3]\n'
    start = document.index("x > 3")
    item = Gap("g", document=document, gap=(start, start + 5))
    with Store(None) as store:
        taken = conditions("code", "m", model, mz.Recipe(), Settings(), 1)
        (p,) = collect(Speaker(model, tokenizer, mz.Recipe(), Settings(), 1), [item], store, taken)
    assert p.said["text"].strip() == "x > 3"


def test_scoring_names_a_prediction_that_lacks_what_it_needs(evaluation):
    _, said, _ = run(evaluation, None)
    with pytest.raises(ValueError, match=r"prediction of lists .* cannot be scored"):
        score("lists", [replace(said[0], said={})])
    with pytest.raises(ValueError, match="task='chess' is unknown; accepted: math"):
        summary("chess", said, [{"exact_match": True}] * len(said))
