"""Word problems with worked steps; the last line is `#### ANSWER`, as in GSM8K."""

import random
import re

from mezzotint.evaluation.tasks.example import Example
from mezzotint.evaluation.tasks.words import ITEMS, NAMES

LARGEST = 60
"""The largest number in a story; shopping and products may end above it."""


def operate(a: int, op: str, b: int) -> int:
    return {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[op]


def worked(steps: list[tuple[int, str, int]]) -> str:
    lines = [f"{a}{op}{b}={operate(a, op, b)}" for a, op, b in steps]
    return "\n".join([*lines, f"#### {operate(*steps[-1])}"])


def story(rng: random.Random, count: int) -> tuple[str, list[tuple[int, str, int]]]:
    """One quantity that changes `count` times."""
    name, other = rng.sample(NAMES, 2)
    item = rng.choice(ITEMS)
    steps: list[tuple[int, str, int]] = []
    if rng.random() < 0.35:
        boxes = rng.randint(2, 9)
        each = rng.randint(2, min(9, LARGEST // boxes))
        text = [f"{name} has {boxes} bags with {each} {item} each."]
        steps.append((boxes, "*", each))
        total = boxes * each
    else:
        total = rng.randint(3, LARGEST)
        text = [f"{name} has {total} {item}."]
    while len(steps) < count:
        kinds = ["gain", "gain", "lose", "lose"]
        if total * 2 <= LARGEST:
            kinds.append("times")
        divisors = [d for d in range(2, 10) if total % d == 0 and total > d]
        if divisors:
            kinds.append("share")
        kind = rng.choice(kinds)
        if kind == "gain" and total + 2 <= LARGEST:
            n = rng.randint(2, min(20, LARGEST - total))
            text.append(rng.choice([f"{name} buys {n} more.", f"{other} brings {n} more.", f"{name} finds {n} {item}."]))
            steps.append((total, "+", n))
        elif kind == "lose" and total > 3:
            n = rng.randint(2, min(20, total - 1))
            text.append(rng.choice([f"{name} loses {n}.", f"{name} gives {n} to {other}.", f"{name} sells {n} {item}."]))
            steps.append((total, "-", n))
        elif kind == "times":
            n = rng.randint(2, min(5, LARGEST // total))
            text.append({2: "The number doubles.", 3: "The number triples."}.get(n, f"The number grows {n} times."))
            steps.append((total, "*", n))
        elif kind == "share" and divisors:
            n = rng.choice(divisors)
            text.append(f"{name} shares them among {n} friends and looks at one share.")
            steps.append((total, "/", n))
        else:
            continue
        total = operate(*steps[-1])
    text.append(f"How many {item} are there now?")
    return " ".join(text), steps


def shopping(rng: random.Random, count: int) -> tuple[str, list[tuple[int, str, int]]]:
    """Several things at a price each; products first, then their sum."""
    name = rng.choice(NAMES)
    kinds = max(2, (count + 1) // 2)
    things = rng.sample(ITEMS, kinds)
    prices = [rng.randint(2, 6) for _ in things]
    amounts = [rng.randint(2, 5) for _ in things]
    text = [f"{thing.capitalize()} cost {price} coins each." for thing, price in zip(things, prices, strict=True)]
    bought = [f"{amount} {thing}" for thing, amount in zip(things, amounts, strict=True)]
    text.append(f"{name} buys {', '.join(bought[:-1])} and {bought[-1]}. How many coins does {name} pay?")
    steps = [(amount, "*", price) for amount, price in zip(amounts, prices, strict=True)]
    total = operate(*steps[0])
    for i in range(1, kinds):
        product = amounts[i] * prices[i]
        steps.append((total, "+", product))
        total += product
    return " ".join(text), steps


def comparison(rng: random.Random, count: int) -> tuple[str, list[tuple[int, str, int]]]:
    """People compared with one another, asked for the last one."""
    people = rng.sample(NAMES, count + 1)
    item = rng.choice(ITEMS)
    total = rng.randint(3, 40)
    text, steps = [f"{people[0]} has {total} {item}."], []
    for before, person in zip(people, people[1:], strict=False):
        kind = rng.choice("+-*") if total * 2 <= LARGEST else "-"
        if kind == "*":
            steps.append((total, "*", 2))
            text.append(f"{person} has twice as many as {before}.")
        elif kind == "+" or total < 4:
            n = rng.randint(2, 20)
            steps.append((total, "+", n))
            text.append(f"{person} has {n} more than {before}.")
        else:
            n = rng.randint(2, min(20, total - 1))
            steps.append((total, "-", n))
            text.append(f"{person} has {n} fewer than {before}.")
        total = operate(*steps[-1])
    text.append(f"How many {item} does {people[-1]} have?")
    return " ".join(text), steps


def make(rng: random.Random, hard: bool) -> Example:
    """1–4 steps; hard: 5–7."""
    count = rng.randint(5, 7) if hard else rng.choice((1, 2, 2, 3, 3, 4))
    text, steps = rng.choice((story, story, shopping, comparison))(rng, count)
    return Example("math", text, worked(steps), hard, {"result": operate(*steps[-1])})


def sum_of(rng: random.Random, small: bool) -> tuple[int, str, int]:
    """One sum of the sizes that the problems need; small: single digits."""
    op = rng.choice("+-*" if small else "++--*/")
    if small:
        a, b = rng.randint(1, 9), rng.randint(1, 9)
        return (a + b if op == "-" else a), op, b
    if op in "*/":
        b = rng.randint(2, 9)
        a = rng.randint(2, LARGEST // b)
        return (a if op == "*" else a * b), op, b
    if op == "+":
        return rng.randint(2, LARGEST), op, rng.randint(2, 20 if rng.random() < 0.7 else 30)
    a = rng.randint(4, LARGEST)
    return a, op, rng.randint(2, min(20, a - 1))


def drill(rng: random.Random) -> Example:
    """Bare sums as a question, for training only."""
    small = rng.random() < 0.2
    steps = [sum_of(rng, small) for _ in range(rng.randint(4, 8))]
    return Example("drill", "Compute: " + ", ".join(f"{a}{op}{b}" for a, op, b in steps), worked(steps).rsplit("\n", 1)[0])


def table(rng: random.Random) -> Example:
    """A document of worked sums, for training only: the dense way to learn the arithmetic that the problems need."""
    small = rng.random() < 0.15
    steps = [sum_of(rng, small) for _ in range(rng.randint(9, 15))]
    return Example("table", "", "", document=worked(steps).rsplit("\n", 1)[0] + "\n")


def score(example: Example, text: str) -> bool:
    """The number after the last `####` is the result."""
    found = re.findall(r"####\s*(-?\d+)", text)
    return bool(found) and int(found[-1]) == example.facts["result"]
