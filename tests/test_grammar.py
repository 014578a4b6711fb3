"""Answers under a grammar always match it, whatever the model, recipe, temperature or room; and the programme over the block is exact."""

import asyncio
import itertools
import json
import re

import pytest
import torch

import mezzotint as mz
from mezzotint.canvas import Canvas
from mezzotint.commit import Sampler

pytest.importorskip("outlines_core", reason="needs the extra: pip install 'mezzotint[serve]'")

from mezzotint.denoising import Ask, Step, turns
from mezzotint.grammar.automaton import Automaton
from mezzotint.grammar.compiling import Compiler, token_bytes
from mezzotint.grammar.constrained import Constrained
from mezzotint.grammar.specification import GrammarError, Specification

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"enum": ["get_weather", "set_timer", "café"]},
        "count": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 3},
        "ratio": {"type": ["number", "null"]},
    },
    "required": ["name", "count", "tags"],
}
STOP = 9


def compile_all(tokenizer, stop_ids, *specifications, **limits):
    async def main():
        compiler = Compiler(tokenizer, stop_ids, **limits)
        return [await compiler.compile(s) for s in specifications]

    return asyncio.run(main())


def run(model, ids, recipe, grammar, seed):
    canvas = mz.denoising.as_canvas([torch.tensor(ids)], model, recipe)
    sampler = Constrained(recipe.sampler(), grammar, canvas, recipe.max_tokens or recipe.gen_length, model.config.stop_ids)
    steps = turns(model, canvas, recipe, [seed], grows=True, sampler=sampler)
    with torch.inference_mode():
        turn, forwards = next(steps), 0
        while turn is not None:
            forwards += isinstance(turn, Ask)
            turn = next(steps, None) if isinstance(turn, Step) else steps.send(turn.answer())
    return canvas.tokens[0, canvas.start :].tolist(), forwards


def test_whatever_is_asked_for_matches(bundled):
    jsonschema = pytest.importorskip("jsonschema", reason="checks answers against their schema: pip install jsonschema")
    model, tokenizer = bundled
    stop_ids = model.config.stop_ids
    grammars = compile_all(
        tokenizer, stop_ids, Specification.schema(SCHEMA), Specification.regex(r"[0-9]{3}-[a-z]+(é|☕)"), Specification.choice(["yes.", "no (really)", "a\\b"])
    )
    ids = tokenizer("Start a 5 minute timer for tea.", add_special_tokens=False)["input_ids"]
    recipes = [
        mz.Recipe(gen_length=96, block_length=8, commit=mz.Threshold(0.3), cache=mz.DualCache()),
        mz.Recipe(gen_length=32, block_length=16, max_tokens=61, temperature=1.5, commit=mz.Threshold(0.2)),
        mz.Recipe(
            gen_length=60, block_length=60, steps=6, temperature=1.0, sampling="categorical", top_p=0.9, confidence="entropy", commit=mz.EntropyBound(2.0)
        ),
    ]
    checks = (
        lambda text: jsonschema.validate(json.loads(text), SCHEMA) is None,
        lambda text: re.fullmatch(r"[0-9]{3}-[a-z]+(é|☕)", text),
        lambda text: text in ("yes.", "no (really)", "a\\b"),
    )
    for number, recipe in enumerate(recipes):
        for grammar, matches in list(zip(grammars, checks, strict=True))[: 3 if number == 1 else 1]:
            tokens, forwards = run(model, ids, recipe, grammar, number)
            limit = recipe.max_tokens or recipe.gen_length
            end = next((i for i, t in enumerate(tokens) if t in stop_ids), len(tokens))
            assert end <= limit
            text = tokenizer.decode(tokens[:end])
            assert matches(text), text
            assert forwards <= end + recipe.width


def test_no_room_to_spare(bundled):
    """The shortest text that matches is found when there is room for nothing longer."""
    model, tokenizer = bundled
    grammar = compile_all(tokenizer, model.config.stop_ids, Specification.schema(SCHEMA))[0]
    least = int(grammar.least[0])
    ids = tokenizer("Hello", add_special_tokens=False)["input_ids"]
    tokens, _ = run(model, ids, mz.Recipe(gen_length=least, block_length=None, steps=3), grammar, 0)
    found = json.loads(tokenizer.decode([t for t in tokens if t not in model.config.stop_ids]))
    assert set(found) >= {"name", "count", "tags"}


@pytest.fixture
def toy():
    """(ab)* c over ids a = 0, b = 1, c = 2, "ab" = 3."""
    return Automaton.build({5: {0: 6, 2: 7, 3: 5}, 6: {1: 5}}, 5, {7}, (STOP,))


def matching(length, most):
    """Every canvas of `length` that begins with a text of the toy grammar, its end within `most`, or that can still become one."""
    found = []
    for ids in itertools.product([0, 1, 2, 3, STOP], repeat=length):
        text = list(ids)
        end = text.index(STOP) if STOP in text else None
        words = "".join("abc?"[t] if t < 3 else "ab" if t == 3 else "" for t in (text if end is None else text[:end]))
        if end is not None:
            good = re.fullmatch("(ab)*c", words) and set(text[end:]) == {STOP} and end <= most
        elif re.fullmatch("(ab)*c", words):
            good = length <= most
        elif re.fullmatch("(ab)*", words):
            good = length + 1 <= most
        elif re.fullmatch("(ab)*a", words):
            good = length + 2 <= most
        else:
            good = False
        if good:
            found.append(ids)
    return found


@pytest.mark.parametrize("most", [4, 9])
@pytest.mark.parametrize("decided", [{}, {1: 1}, {2: 3}], ids=str)
def test_the_programme_over_the_block_equals_enumeration(toy, most, decided):
    """The likeliest text and every marginal, against all texts written out."""
    torch.manual_seed(most)
    canvas = Canvas.blank([torch.tensor([0])], 4, 8, torch.device("cpu"))
    for position, token in decided.items():
        canvas.tokens[0, 1 + position], canvas.decided[0, 1 + position], canvas.open[0, 1 + position] = token, True, False
    open = [p for p in range(4) if p not in decided]
    logits = torch.randn(1, len(open), 10, dtype=torch.float64) * 2
    texts = [ids for ids in matching(4, most) if all(ids[p] == t for p, t in decided.items())]
    logprobs = logits[0].log_softmax(-1)
    weights = torch.tensor([sum(logprobs[i, ids[p]].item() for i, p in enumerate(open)) for ids in texts], dtype=torch.float64)
    wanted = torch.zeros(len(open), 10, dtype=torch.float64)
    for ids, chance in zip(texts, weights.softmax(0).tolist(), strict=True):
        for i, p in enumerate(open):
            wanted[i, ids[p]] += chance
    sampler = Constrained(Sampler(), toy, canvas, most, (STOP,))
    prediction = sampler(logits, torch.ones(1, len(open), dtype=torch.bool), [torch.Generator()])
    best = texts[int(weights.argmax())]
    assert prediction.tokens[0].tolist() == [best[p] for p in open]
    chances = wanted[range(len(open)), prediction.tokens[0]]
    torch.testing.assert_close(prediction.confidence[0], chances, atol=1e-9, rtol=0)


def test_draws_follow_the_conditioned_distribution(toy):
    canvas = Canvas.blank([torch.tensor([0])], 3, 8, torch.device("cpu"))
    logits = torch.randn(1, 3, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    texts = matching(3, 3)
    weights = torch.tensor([sum(logits[0].log_softmax(-1)[p, t].item() for p, t in enumerate(ids)) for ids in texts], dtype=torch.float64).softmax(0)
    sampler, generator = Constrained(Sampler(temperature=1.0), toy, canvas, 3, (STOP,)), torch.Generator().manual_seed(0)
    drawn = [tuple(sampler(logits, torch.ones(1, 3, dtype=torch.bool), [generator]).tokens[0].tolist()) for _ in range(300)]
    shares = torch.tensor([drawn.count(ids) / len(drawn) for ids in texts], dtype=torch.float64)
    assert set(drawn) <= set(texts)
    torch.testing.assert_close(shares, weights, atol=0.1, rtol=0)


def test_formats_allow_only_what_is_valid():
    """Also where a format stands inside another schema, and not where it is a value or a name."""
    wanted = {
        "time": (["23:59:59Z", "00:00:00.25+05:30"], ["24:00:00Z", "11:11:11\\\\1", "11:11:11\\\\ 5", "11:11:11"]),
        "date": (["2026-11-30", "1999-02-28"], ["2026-11-31", "2026-02-29", "26-01-01", "\u0661999-01-01"]),
        "date-time": (["2026-11-30T01:02:03Z"], ["2026-11-30", "2026-11-30T01:02:03"]),
        "uuid": (["00000000-0000-4000-8000-00000000000a"], ["00000000-0000-4000-8000-00000000000g"]),
    }
    for name, (valid, others) in wanted.items():
        alone = Specification.schema({"type": "string", "format": name}).expression()
        inside = Specification.schema({"type": "array", "items": {"type": "string", "format": name}, "minItems": 1}).expression()
        for text in valid + others:
            assert bool(re.fullmatch(alone, f'"{text}"')) == bool(re.fullmatch(inside, f'["{text}"]')) == (text in valid), (name, text)
    named = {"type": "object", "properties": {"format": {"const": {"format": "time"}}}, "required": ["format"]}
    assert re.fullmatch(Specification.schema(named).expression(), '{"format": {"format": "time"}}')


def accepts(automaton: Automaton, tokenizer, text: str) -> bool:
    """Whether the automaton takes a text, spelled byte by byte."""
    ids = [i for byte in text.encode() for i, token in enumerate(token_bytes(tokenizer)) if token == bytes([byte])]
    state = 0
    for token in ids:
        state = automaton.step(state, token)
        if state < 0:
            return False
    return automaton.least[state] == 0


def test_an_answer_may_begin_with_another_one(bundled):
    """Where both may be given, the longer one can be reached, at the root too."""
    model, tokenizer = bundled
    asked = {
        Specification.choice(["yes", "yes please", "red", "red and blue"]): ["yes", "yes please", "red", "red and blue"],
        Specification.schema({"type": "number"}): ["1", "1.5", "-20.25"],
        Specification.schema({"enum": [1, 12]}): ["1", "12"],
        Specification.regex(r"^[a-z]+( [a-z]+)*$"): ["amber", "amber coral lantern"],
    }
    for grammar, texts in zip(compile_all(tokenizer, model.config.stop_ids, *asked), asked.values(), strict=True):
        assert all(accepts(grammar, tokenizer, text) for text in texts), texts
        assert not accepts(grammar, tokenizer, texts[0] + "\x03")
        assert not accepts(grammar, tokenizer, texts[-1] + "?")


def test_references_are_written_out_and_circles_refused():
    """However deep: what a library passes over below some depth would not parse."""
    deep = {f"D{i}": {"type": "object", "properties": {"x": {"$ref": f"#/$defs/D{i + 1}"}}, "required": ["x"]} for i in range(7)}
    schema = {"$ref": "#/$defs/D0", "$defs": deep | {"D7": {"type": "string", "format": "time"}}}
    expression = Specification.schema(schema).expression()
    assert re.fullmatch(expression, '{"x":' * 7 + '"10:00:00Z"' + "}" * 7)
    assert not re.fullmatch(expression, '{"x":' * 6 + "{}" + "}" * 6)
    named = {"type": "object", "properties": {"default": {"type": "string", "format": "time"}}, "required": ["default"]}
    assert not re.fullmatch(Specification.schema(named).expression(), '{"default":"10:00:00\\\\x5"}')
    node = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}}
    long = {f"D{i}": {"type": "array", "items": {"$ref": f"#/$defs/D{i + 1}"}} for i in range(900)}
    twice = {f"D{i}": {"anyOf": [{"$ref": f"#/$defs/D{i + 1}"}] * 2} for i in range(14)}
    for wrong, reason in (
        ({"$ref": "#/$defs/node", "$defs": {"node": node}}, "recursive"),
        ({"type": "array", "items": {"$ref": "#"}}, "'#' is not supported"),
        ({"$ref": "#/$defs/gone"}, "names that are there"),
        ({"$ref": "#/$defs/D0", "$defs": long | {"D900": {"type": "null"}}}, "each inside the one before"),
        (
            {"$ref": "#/$defs/D0", "$defs": twice | {"D14": {"type": "null"}}},
            "parts once",
        ),
    ):
        with pytest.raises(GrammarError, match=re.escape(reason)):
            Specification.schema(wrong)


def test_what_cannot_be_enforced_is_refused(bundled):
    model, tokenizer = bundled
    for schema, named in (
        ({"type": "integer", "minimum": 3}, "schema.minimum"),
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": ".*"}}}, "schema.properties.a.pattern"),
        ({"type": "array", "items": {"type": "null"}, "uniqueItems": True}, "schema.uniqueItems"),
        ({"oneOf": [{"type": "null"}]}, "anything"),
        ({"type": "object"}, "without properties"),
        ({}, "anything"),
        ({"type": "text"}, "'text' is unknown"),
        ({"type": "string", "format": "email"}, "format='email'"),
        ({"type": "integer", "enum": ["x"]}, "not of type integer"),
        ({"type": "string", "maxLength": 10**9}, "maxLength"),
        ({"type": "string", "maxLength": True}, "maxLength=True"),
        ({"type": "string", "format": ["date"]}, "format=['date']"),
        ({"type": []}, "type=[]"),
        ({"enum": []}, "schema.enum"),
        ({"anyOf": []}, "schema.anyOf"),
        ({"enum": [float("nan")]}, "number that JSON does not know"),
        ({"type": "object", "properties": {"a": {"type": "null"}}, "required": ["b"]}, "required=['b']"),
        ({"type": "object", "properties": {"a": {"type": "null"}}, "required": "a"}, "required='a'"),
        ({"type": "object", "properties": {"a": {"type": "null"}}, "required": [[]]}, "required=[[]]"),
        ({"type": "object", "properties": 5}, "schema.properties must be an object"),
        ({"type": "object", "properties": {'a"b': {"type": "null"}}}, "escapes"),
    ):
        with pytest.raises(GrammarError, match=re.escape(named)):
            Specification.schema(schema)
    for expression in ("(", "[^\\x00-\\x{10FFFF}]", "(?=a)b", "(a{500}){500}"):
        with pytest.raises(GrammarError, match=r"cannot be compiled|longer than"):
            compile_all(tokenizer, model.config.stop_ids, Specification.regex(expression), seconds=8.0)
