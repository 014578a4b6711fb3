"""The benchmark: FLOPs against arithmetic, replayed pace and answer, what is interleaved, prompts of a length, the frontier, the command."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

import mezzotint as mz
from mezzotint.bench import replay as replays
from mezzotint.bench.chosen import chosen
from mezzotint.bench.contest import answered, contest, difference, faster, frontier, keeps, table
from mezzotint.bench.measuring import compare, measure
from mezzotint.bench.prompts import prompts
from mezzotint.bench.questions import Question, gather, last_number
from mezzotint.bench.resources import countable
from mezzotint.bench.shapes import SHAPES, random_model, shape_of
from mezzotint.cli import main
from mezzotint.evaluation.intervals import paired

TINY = Path(__file__).parent / "golden" / "dpad" / "ckpt_dream_tiny_gqa7"


def by_hand(config, rows: int, visible: int, predicted: int) -> int:
    """FLOPs of one forward: projections, both attention products, the gated MLP, and the head on the predicted rows."""
    d, q, kv = config.hidden_size, config.heads * config.head_dim, config.kv_heads * config.head_dim
    layer = 2 * rows * d * (2 * q + 2 * kv) + 4 * rows * visible * q + 6 * rows * d * config.mlp_size
    return config.layers * layer + 2 * predicted * d * config.vocab_size


@pytest.mark.parametrize("name", ["llada", "dream"])
def test_flops_are_those_of_the_matrix_products(tiny, name):
    config = tiny[name].config
    prompt = [torch.arange(5, 17)]
    recipe = mz.Recipe(gen_length=8, block_length=8, steps=2, early_stop="off")
    found = measure(tiny[name], prompt, recipe, count=True)
    assert found.flops == by_hand(config, 20, 20, 8) + by_hand(config, 20, 20, 4)
    cached = measure(tiny[name], prompt, recipe.with_(cache="dual"), count=True)
    assert cached.flops == by_hand(config, 20, 20, 8) + by_hand(config, 8 + config.shift, 20, 4)
    assert (found.forwards, found.positions, found.decided) == (2, 40, 8)


def test_sparse_attention_is_counted_by_the_tiles_it_keeps(tiny):
    prompt, plain = [torch.arange(5, 21)], mz.Recipe(gen_length=8, block_length=8, steps=4, early_stop="off")
    sparse = plain.with_(attention="sparsed:skip=0,select=0.5,block_size=8,impl=reference")
    dense = measure(tiny["llada"], prompt, plain, count=True).flops
    half = measure(tiny["llada"], prompt, sparse, count=True).flops
    assert dense is not None
    assert half is not None
    assert half != dense
    assert not countable(plain.with_(attention="sparsed:impl=flex"), tiny["llada"], 4096)


@pytest.mark.parametrize("name", ["sparsed", "window", "streaming"])
def test_what_runs_in_compiled_kernels_is_not_counted(tiny, monkeypatch, name):
    recipe = mz.Recipe(gen_length=8, block_length=8).with_(attention=name)
    monkeypatch.setattr("mezzotint.bench.resources.available", lambda impl, kind: "")
    monkeypatch.setattr("mezzotint.attention.sparsed.available", lambda impl, kind: "")
    assert not countable(recipe, tiny["llada"], 1024)
    assert countable(recipe, tiny["llada"], 1023) == (name == "sparsed")  # which is dense on short canvases
    monkeypatch.setattr("mezzotint.bench.resources.available", lambda impl, kind: "no compiler")
    assert countable(recipe, tiny["llada"], 1024)


def test_the_work_of_quantised_weights_is_left_open(tiny):
    pytest.importorskip("torchao", reason="needs the extra `quant`")
    recipe = mz.Recipe(gen_length=8, block_length=8, steps=2)
    assert measure(mz.quantise(tiny["llada"], "int8-weight"), [torch.arange(5, 17)], recipe, count=True).flops is None
    assert measure(tiny["llada"], [torch.arange(5, 17)], recipe, count=True).flops


@pytest.mark.parametrize(("pace", "width"), [(3.2, 32), (5.0, 32), (2.5, 8), (1.0, 16), (40.0, 32)])
def test_a_replayed_pace_holds_over_blocks(pace, width):
    model = random_model(shape_of(str(TINY)), dtype="float32")
    recipe = mz.Recipe(gen_length=160, block_length=width, commit=mz.Threshold(0.9))
    paced = replays.replayed("threshold", recipe, replays.Replay(pace), meaningless=True)
    found = measure(model, [torch.arange(9)], paced)
    assert found.decided == 160
    expected = max(160 / pace, 160 / width)
    assert abs(found.forwards - expected) <= 1


@pytest.mark.parametrize(("early_stop", "decided"), [("step", {37, 38, 39, 40, 48, 64}), ("block", {48}), ("off", {64})])
def test_a_replayed_answer_ends_the_run_where_a_stop_id_would(early_stop, decided):
    model = random_model(shape_of(str(TINY)), dtype="float32")
    recipe = mz.Recipe(gen_length=64, block_length=16, early_stop=early_stop)
    found = measure(model, [torch.arange(9)], recipe, replay=replays.Replay(answer=36))
    assert found.decided in decided
    assert found.tokens == 36
    if early_stop == "step":
        assert found.forwards <= 48


def test_the_replayed_answer_agrees_with_a_stop_id(tiny):
    """The same tokens on a model whose stop id is what it puts at some place: both runs end after the same step."""
    model = random_model(shape_of(str(TINY)), dtype="float32")
    recipe = mz.Recipe(gen_length=24, block_length=8)
    prompt = torch.arange(9)
    whole = mz.denoise_all(model, [prompt], recipe)
    answer = whole.tokens[0, 9:].tolist()
    place = next(i for i, token in enumerate(answer) if i > 2 and token not in answer[:i])
    stopping = random_model(shape_of(str(TINY)), dtype="float32")
    stopping.config = dataclasses.replace(stopping.config, stop_ids=(answer[place],))
    for early_stop in ("step", "block"):
        real = mz.denoise_all(stopping, [prompt], recipe.with_(early_stop=early_stop))
        assert measure(model, [prompt], recipe.with_(early_stop=early_stop), replay=replays.Replay(answer=place)).forwards == real.forwards


@pytest.mark.parametrize("replay", [replays.Replay(answer=20), replays.Replay(2.0)])
def test_under_a_replay_the_models_own_stop_ids_end_nothing(replay):
    """Nor are tokens counted that were not written."""
    model, prompt = random_model(shape_of(str(TINY)), dtype="float32"), [torch.arange(9)]
    recipe = mz.Recipe(gen_length=24, block_length=8)
    first = mz.denoise_all(model, prompt, recipe).tokens[0, 9].item()
    model.config = dataclasses.replace(model.config, stop_ids=(first,))
    assert measure(model, prompt, recipe).decided < 20
    found = measure(model, prompt, recipe, replay=replay)
    assert found.tokens == (replay.answer or 24)
    assert found.tokens <= found.decided
    (row,) = compare(model, {"plain": recipe}, {9: prompt}, repeats=1, replays={None: replay})
    assert row["answer_tokens"] == found.tokens
    assert row["forwards"] == found.forwards


def test_answers_are_counted_from_where_each_row_begins():
    """Where blocks stand on a grid, rows of a batch begin at places of their own, and the canvas ends with a whole block."""
    model = random_model(shape_of(str(TINY)), dtype="float32")
    model.config = dataclasses.replace(model.config, block_length=8, stop_ids=(-1,))
    recipe, prompt = mz.Recipe(gen_length=16, block_length=8), [torch.arange(9), torch.arange(13)]
    steps = list(mz.denoise(model, prompt, recipe))
    assert (steps[-1].begins, steps[-1].tokens.shape[1]) == ((9, 13), 32)
    assert measure(model, prompt, recipe).tokens == 2 * 16
    stop = next(step.index for step in steps if (step.ids[0, 1:4] >= 0).all() and (step.ids[1, 5:8] >= 0).all())  # in the block from 8 on
    assert measure(model, prompt, recipe, replay=replays.Replay(answer=2)).forwards == stop + 1


def test_what_is_compared_is_interleaved_and_paired():
    model = random_model(shape_of(str(TINY)), dtype="float32")
    asked = prompts([8, 24], 2, vocabulary=50)
    recipes = chosen(["plain", "threshold", "threshold+cache=dual"], {"gen_length": "8", "block_length": "8"})
    order: list[tuple[str, int]] = []
    pace = replays.parse(["tokens_per_forward=2", "threshold+cache=dual:tokens_per_forward=4"])
    rows = compare(model, recipes, asked, repeats=2, replays=pace, meaningless=True, report=lambda name, length: order.append((name, length)))
    names = list(recipes)
    assert [name for name, _ in order[:6]] == names * 2
    assert [name for name, _ in order[6:12]] == names * 2
    assert [name for name, _ in order[12:]] == [*names[1:], names[0]] * 2
    assert [(r["length"], r["name"]) for r in rows] == [(length, name) for length in (8, 24) for name in names]
    first = {r["length"]: r for r in rows if r["name"] == "plain"}
    for r in rows:
        assert r["seconds"]["low"] <= r["seconds"]["median"] <= r["seconds"]["high"]
        ratios = [a / b for a, b in zip(first[r["length"]]["seconds"]["samples"], r["seconds"]["samples"], strict=True)]
        assert r["speedup"]["low"] == min(ratios)
        assert r["flops"] > 0
        assert r["peak_bytes"] is None or r["peak_bytes"] > 2**20
    assert [r["tokens_per_forward"] for r in rows[:3]] == [1, 2, 4]
    assert rows[2]["positions_computed"] < rows[1]["positions_computed"] < rows[0]["positions_computed"]


@pytest.mark.parametrize(
    ("texts", "named"),
    [
        (["tokens_per_forward=0.5"], "0.5"),
        (["tokens_per_forward=x"], "tokens_per_forward=x"),
        (["answer=2.5"], "answer=2.5"),
        (["pace=3"], "pace=3"),
        (["answer=0"], "answer=0"),
    ],
)
def test_replays_that_are_refused(texts, named):
    with pytest.raises(ValueError, match=named):
        replays.parse(texts)


def test_replays_may_name_a_recipe_with_colons():
    assert replays.parse(["a:b+suffix=dpad:window=3:tokens_per_forward=2,answer=9"]) == {"a:b+suffix=dpad:window=3": replays.Replay(2.0, 9)}


def test_random_weights_do_not_pretend_to_confidence():
    with pytest.raises(ValueError, match="--replay"):
        replays.replayed("threshold", mz.Recipe(commit=mz.Threshold()), replays.Replay(), meaningless=True)
    assert replays.replayed("plain", mz.Recipe(), replays.Replay(3.0), meaningless=True) == mz.Recipe()


def test_shapes_are_the_released_ones():
    assert round(SHAPES["llada-8b"].parameters() / 1e9, 3) == 8.016
    assert round(SHAPES["dream-7b"].parameters() / 1e9, 3) == 7.616
    with pytest.raises(ValueError, match="llada-8b"):
        shape_of("llada-9b")
    with pytest.raises(ValueError, match="layers=40"):
        random_model(SHAPES["llada-8b"], layers=40)


def test_prompts_have_their_length(bundled):
    _, tokenizer = bundled
    for length, rows in prompts([40, 300], 2, tokenizer=tokenizer).items():
        assert all(length - 6 <= len(row) <= length for row in rows)
        assert "code of amber" in tokenizer.decode(rows[1])
    with pytest.raises(ValueError, match="length=3"):
        prompts([3], 1, tokenizer=tokenizer)


def test_recipes_as_they_are_written(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"name": "swift", "source": "me", "recipe": {"commit": "threshold:tau=0.7"}}))
    found = chosen([str(file), "threshold+suffix=dpad:window=8,k=3+cache=dual"], {"gen_length": "64"})
    assert found["swift"] == mz.Recipe(gen_length=64, commit=mz.Threshold(0.7))
    assert found["threshold+suffix=dpad:window=8,k=3+cache=dual"].suffix == mz.DPad(8, 3.0)
    with pytest.raises(ValueError, match="twice"):
        chosen(["plain", "plain"])


def test_named_recipes_have_the_models_blocks():
    config = dataclasses.replace(shape_of(str(TINY)), block_length=8)
    found = chosen(["plain", "plain+gen_length=24"], {"steps": "none"}, config)
    assert [recipe.block_length for recipe in found.values()] == [8, 8]
    assert chosen(["plain"])["plain"].block_length == mz.Recipe().block_length


def test_the_command_fits_named_recipes_to_a_shape_in_blocks(tmp_path, capsys):
    raw = json.loads((TINY.parents[1] / "families" / "sdar" / "sdar_tiny" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {"mask_token_id": 296}))
    assert main(["bench", "plain", "--shape", str(tmp_path), "--gen-length", "12", "--lengths", "16", "--repeats", "1", "--json"]) == 0
    assert "--block-length 4" in json.loads(capsys.readouterr().out)["rows"][0]["recipe"]


def test_the_frontier_is_what_nobody_beats():
    assert frontier([(1.0, 0.5), (2.0, 0.9), (3.0, 0.9), (0.5, 0.2), (2.5, 0.7)]) == [True, True, False, True, False]
    assert frontier([(1.0, 0.5), (1.0, 0.5)]) == [True, True]


def test_paired_differences():
    found = difference([1, 1, 0, 0, 1, 1, 1, 1], [1, 0, 0, 1, 1, 1, 1, 1])
    assert (found["mean"], found["changed"]) == (0.0, 2)
    assert found["ci"][0] < 0 < found["ci"][1]
    low, high = difference([1] * 98, [1] * 98)["ci"]
    assert -low == high == pytest.approx(1.96 * 0.01, rel=1e-4)
    mine, theirs = [1, 0.5, 0.5, 0], [1, 0.75, 0, 0]
    same = paired(mine, theirs, shares=True)
    assert difference(mine, theirs) == {"mean": same["difference"], "ci": list(same["ci"]), "changed": 2}
    assert difference([1, 1, 1], [0, 0, 0])["ci"][1] == 1


def test_quality_is_kept_only_where_the_interval_excludes_the_loss():
    assert keeps((-0.04, 0.04)) is True
    assert keeps((-0.2, 0.2)) is None
    assert keeps((-0.2, -0.06)) is False
    assert keeps((-0.2, 0.2), margin=0.3) is True
    assert keeps(difference([1] * 24, [1] * 24)["ci"]) is None  # no change in 24 questions leaves a loss of five points open
    assert keeps(difference([1] * 50, [1] * 50)["ci"]) is True


def test_questions_of_a_file(tmp_path):
    file = tmp_path / "mine.jsonl"
    lines = [{"prompt": "2+2?", "answer": "It is 4", "match": "number"}, {"prompt": "Say amber", "answer": "amber", "match": "contains"}]
    file.write_text("\n".join(map(json.dumps, lines)))
    first, second = gather([str(file)], 10)
    assert first.right("1,000 and then 4.0")
    assert not first.right("four")
    assert second.right("well, amber it is")
    assert Question("a", "b  c").right("b c\n")
    for bad in ('{"prompt": "x"}', '{"prompt": "x", "answer": "y", "match": "like"}', "nothing", '{"prompt": "", "answer": "y"}'):
        file.write_text(bad)
        with pytest.raises(ValueError, match="line 1"):
            gather([str(file)], 10)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,2", 2),
        ("the answer is 3, 14", 14),
        ("1,000 and no more", 1000),
        ("-1,234,567.5", -1234567.5),
        ("12,3456", 3456),
        ("1234,567", 567),
        ("so 1,000,", 1000),
        ("7.25.", 7.25),
        ("none", None),
    ],
)
def test_the_last_number_of_a_text(text, number):
    """Commas belong to it where they part thousands."""
    assert last_number(text) == number


def test_all_lines_of_a_file_are_asked_and_counted(tmp_path, capsys):
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"{i}?", "answer": "x"}) + "\n" for i in range(25)))
    assert len(gather([str(file)])) == 25
    assert len(gather([str(file), "lists"])) == 25 + 20
    assert len(gather([str(file), "lists"], 3)) == 6
    file.write_text("".join(json.dumps({"prompt": f"{i}?", "answer": "x"}) + "\n" for i in range(21)))
    assert main(["bench", "plain", "--task", str(file), "--repeats", "1", "--gen-length", "1", "--block-length", "1"]) == 0
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert told[1][3] == "questions"
    assert told[3][1:4] == ["plain", "│", "21"]


def test_a_contest_counts_the_same_questions_for_all(bundled):
    model, tokenizer = bundled
    recipes = {"plain": mz.Recipe(gen_length=32), "threshold": mz.Recipe(gen_length=32, commit=mz.Threshold(0.5))}
    rows = contest(model, tokenizer, [gather(["code", "lists"], 1)] * 2, recipes)
    plain, fast = rows
    assert plain["questions"] == 2
    assert plain["exact_match_per_seed"][0] == plain["exact_match_per_seed"][1]
    assert plain["speedup"] == 1
    assert (plain["against_first"]["mean"], plain["against_first"]["changed"]) == (0, 0)
    assert fast["forwards"] < plain["forwards"]
    assert any(r["on_frontier"] for r in rows)
    assert plain["tokens_per_forward"] == 1


def test_draws_are_pooled_a_model_may_stand_in_and_time_ends_the_contest(bundled):
    model, tokenizer = bundled
    recipes = {"plain": mz.Recipe(gen_length=32), "other": mz.Recipe(gen_length=32)}
    questions = gather(["code"], 4)
    asked: list[str] = []
    found = answered(model, tokenizer, [questions[:2], questions[2:]], recipes, others={"other": mz.load_model()}, report=asked.append)
    plain, other = table(recipes, found)
    assert plain["questions"] == 4
    assert len(asked) == 2 * (4 + 1)
    assert other["against_first"]["changed"] == 0
    assert [a.text for group in found["plain"] for a in group.values()] == [a.text for group in found["other"] for a in group.values()]
    ratio = faster(found["plain"], found["plain"])
    assert ratio == {"ratio": 1.0, "ci": [1.0, 1.0]}
    (number, alone), *_ = found["plain"][0].items()
    assert faster([{number: alone}], [{number: alone}]) == {"ratio": 1.0, "ci": None}  # one question has no interval
    (hurried,) = contest(model, tokenizer, [questions[:2], questions[2:]], {"plain": recipes["plain"]}, seconds=0)
    assert hurried["questions"] == 2  # the first of each draw


def test_the_command_writes_json_and_plots(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the plot needs the extra `plot`")
    out, plot = tmp_path / "found.json", tmp_path / "found.svg"
    words = ["plain", "dual", "--gen-length", "32", "--lengths", "40", "--repeats", "1", "--json", "--out", str(out), "--plot", str(plot)]
    assert main(["bench", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(out.read_text())
    assert [r["name"] for r in found["rows"]] == ["plain", "dual"]
    assert set(found) >= {"machine", "threads", "torch", "command", "date", "model", "dtype", "weights"}
    assert "dual" in plot.read_text()


def test_the_command_measures_a_shape(capsys):
    words = ["plain", "threshold", "--shape", str(TINY), "--gen-length", "16", "--block-length", "16", "--repeats", "1", "--replay", "tokens_per_forward=4"]
    assert main(["bench", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "weights" not in found  # random ones are nobody's
    plain, threshold = found["rows"]
    assert (plain["forwards"], threshold["forwards"]) == (16, 4)
    assert main(["bench", *words]) == 0
    told = capsys.readouterr().out
    assert "threshold" in told
    assert "tokens/forward" in told


BESIDE_SHAPE = (("--model", "x"), ("--rope-scaling", "ntk:2"), ("--weights", "int8"), ("--mask-id", "3"), ("--block-causal", "4"))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["fastest"], ["recipe='fastest'", "plain"]),
        (["plain+commit=best"], ["plain+commit=best", "commit='best'"]),
        (["--repeats", "0"], ["repeats=0"]),
        (["--shape", "llada-9b"], ["shape='llada-9b'", "llada-8b"]),
        *((["--shape", str(TINY), name, value], ["--shape", name]) for name, value in BESIDE_SHAPE),
        (["--layers", "3"], ["layers=3", "--shape"]),
        (["--task", "chess"], ["task='chess'", "math"]),
        (["--task", "math", "--lengths", "30"], ["--lengths", "--task"]),
        (["--task", "code", "--steps", "16"], ["--steps", "gaps"]),
        (["plain+steps=16", "--task", "code"], ["--steps", "gaps"]),
        (["--plot", "x.gif"], ["x.gif", ".svg"]),
        (["--out", "/"], ["out='/'", "a folder"]),
        (["--out", "/no/such/folder/x.json"], ["/no/such/folder"]),
        (["--lengths", "2"], ["length=2", "too short"]),
        (["threshold", "--shape", str(TINY)], ["threshold", "--replay"]),
        (["--replay", "fast=3"], ["fast=3"]),
        (["--replay", "dual2:answer=3"], ["dual2"]),
    ],
    ids=lambda part: " ".join(part)[:40],
)
def test_bad_input_is_one_line(words, named, capsys):
    assert main(["bench", *words]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.strip().splitlines()) == 1
    assert all(word in told.err for word in named), told.err
