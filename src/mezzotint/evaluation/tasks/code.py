"""Gaps in small Python functions, filled from both sides and checked by running the function."""

import random

from mezzotint.evaluation.tasks.example import Example

COMPARE = {"above": ">", "below": "<", "at least": ">=", "at most": "<=", "equal to": "=="}
NAMES = ("values", "numbers", "items", "data", "row")
ELEMENTS = ("x", "n", "v", "item", "e")
TOTALS = ("total", "result", "count", "out", "acc")


def function(rng: random.Random) -> tuple[str, list[str], list[str]]:
    """A function's text, the lines or expressions in it that a gap may cover, and calls that check it."""
    xs, x, acc = rng.choice(NAMES), rng.choice(ELEMENTS), rng.choice(TOTALS)
    k = rng.randint(2, 9)
    word, op = rng.choice(sorted(COMPARE.items()))
    lists = [[rng.randint(0, 9) for _ in range(rng.randint(3, 6))] for _ in range(3)]
    on_lists = [f"({values})" for values in lists]
    on_numbers = [f"({rng.randint(0, 20)})" for _ in range(4)]
    kind = rng.randint(0, 13)
    if kind == 0:
        body = f"    {acc} = 0\n    for {x} in {xs}:\n        if {x} {op} {k}:\n            {acc} += 1\n    return {acc}\n"
        return f'def count_values({xs}):\n    """Count the values {word} {k}."""\n{body}', [f"if {x} {op} {k}:", f"{acc} += 1", f"for {x} in {xs}:"], on_lists
    if kind == 1:
        body = f"    return [{x} for {x} in {xs} if {x} {op} {k}]\n"
        return f'def keep_values({xs}):\n    """Keep the values {word} {k}."""\n{body}', [f"if {x} {op} {k}", f"for {x} in {xs}"], on_lists
    if kind == 2:
        sign = rng.choice(("+", "*"))
        begin = 0 if sign == "+" else 1
        name = "sum" if sign == "+" else "product"
        body = f"    {acc} = {begin}\n    for {x} in {xs}:\n        {acc} {sign}= {x}\n    return {acc}\n"
        return (
            f'def {name}_of({xs}):\n    """Return the {name} of all values."""\n{body}',
            [f"{acc} = {begin}", f"{acc} {sign}= {x}", f"return {acc}"],
            on_lists,
        )
    if kind == 3:
        name, sign = rng.choice((("largest", ">"), ("smallest", "<")))
        body = f"    best = {xs}[0]\n    for {x} in {xs}:\n        if {x} {sign} best:\n            best = {x}\n    return best\n"
        return f'def {name}({xs}):\n    """Return the {name} value."""\n{body}', [f"if {x} {sign} best:", f"best = {x}", f"best = {xs}[0]"], on_lists
    if kind == 4:
        sign, verb = rng.choice((("+", "Add"), ("*", "Multiply by")))
        body = f"    return [{x} {sign} {k} for {x} in {xs}]\n"
        return f'def change_all({xs}):\n    """{verb} {k} for every value."""\n{body}', [f"{x} {sign} {k}", f"for {x} in {xs}"], on_lists
    if kind == 5:
        rest = rng.choice((0, 1))
        word = "even" if rest == 0 else "odd"
        body = f"    return [{x} for {x} in {xs} if {x} % 2 == {rest}]\n"
        return f'def only_{word}({xs}):\n    """Keep the {word} values."""\n{body}', [f"if {x} % 2 == {rest}", f"{x} % 2"], on_lists
    if kind == 6:
        body = f"    if {x} {op} {k}:\n        return True\n    return False\n"
        return f'def check({x}):\n    """True if {x} is {word} {k}."""\n{body}', [f"if {x} {op} {k}:", "return True", "return False"], on_numbers
    if kind == 7:
        low, high = sorted(rng.sample(range(1, 19), 2))
        body = f"    if {x} < {low}:\n        return {low}\n    if {x} > {high}:\n        return {high}\n    return {x}\n"
        return (
            f'def clamp({x}):\n    """Keep {x} between {low} and {high}."""\n{body}',
            [f"if {x} < {low}:", f"return {low}", f"if {x} > {high}:", f"return {high}"],
            on_numbers,
        )
    if kind == 8:
        body = f"    return {xs}[::-1]\n"
        return f'def backwards({xs}):\n    """Return the values in reverse order."""\n{body}', [f"{xs}[::-1]", "[::-1]"], on_lists
    if kind == 9:
        name, part = rng.choice((("first", f"[:{k % 3 + 1}]"), ("last", f"[-{k % 3 + 1}:]")))
        body = f"    return {xs}{part}\n"
        return f'def {name}_few({xs}):\n    """Return the {name} {k % 3 + 1} values."""\n{body}', [f"{xs}{part}", part], on_lists
    if kind == 10:
        body = f"    {acc} = 1\n    for {x} in range({k}):\n        {acc} *= base\n    return {acc}\n"
        return f'def power(base):\n    """Return base to the power {k}."""\n{body}', [f"{acc} = 1", f"{acc} *= base", f"range({k})"], on_numbers
    if kind == 11:
        sign = rng.choice("+-*")
        names = {"+": "sum", "-": "difference", "*": "product"}
        a, b = rng.sample("abcmnpqst", 2)
        calls = [f"({rng.randint(0, 9)}, {rng.randint(0, 9)})" for _ in range(4)]
        return (
            f'def combine({a}, {b}):\n    """Return the {names[sign]} of {a} and {b}."""\n    return {a} {sign} {b}\n',
            [f"{a} {sign} {b}", f"return {a} {sign} {b}"],
            calls,
        )
    if kind == 12:
        body = f"    {acc} = []\n    for {x} in {xs}:\n        if {x} not in {acc}:\n            {acc}.append({x})\n    return {acc}\n"
        return f'def unique({xs}):\n    """Keep the first of equal values."""\n{body}', [f"if {x} not in {acc}:", f"{acc}.append({x})", f"{acc} = []"], on_lists
    body = f"    for {x} in {xs}:\n        if {x} == {k}:\n            return True\n    return False\n"
    return f'def contains({xs}):\n    """True if {k} is among the values."""\n{body}', [f"if {x} == {k}:", f"for {x} in {xs}:", "return False"], on_lists


def make(rng: random.Random, hard: bool) -> Example:
    """One gap of one line or expression; hard: everything from the first gap's place to the function's end."""
    text, parts, calls = function(rng)
    name = text[len("def ") : text.index("(")]
    part = rng.choice(parts)
    start = text.index(part, text.index('"""\n'))
    gap = (start, len(text) - 1) if hard else (start, start + len(part))
    return Example("code", "", text[gap[0] : gap[1]], hard, {"name": name, "calls": calls}, text, gap)


def score(example: Example, text: str) -> bool:
    """The filled function returns what the reference returns, on every call. `text` is what stands in the gap."""
    from mezzotint.evaluation.sandbox import run

    start, end = example.gap
    filled = example.document[:start] + text + example.document[end:]
    calls = f"print([{', '.join(example.facts['name'] + call for call in example.facts['calls'])}])"
    return run(f"{filled}\n{calls}") == run(f"{example.document}\n{calls}") is not None
