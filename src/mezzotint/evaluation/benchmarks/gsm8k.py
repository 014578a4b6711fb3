"""GSM8K (arXiv 2110.14168): grade-school word problems, scored strictly (the number after `####`) and flexibly (the last number)."""

import re
from typing import Any

from mezzotint.evaluation.item import Benchmark, Item, Question, Settings
from mezzotint.evaluation.sources import examples, field, place, rows, split_of

HUB, CONFIG, SHOTS = "openai/gsm8k", "main", 4
STRICT = re.compile(r"#### (-?[0-9.,]+)")
FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")


def items(settings: Settings, *_: Any) -> list[Item]:
    """The prompt of lm-evaluation-harness; the worked examples are the first of the train split."""
    data = settings.data or HUB
    shots = SHOTS if settings.shots is None else settings.shots
    split = split_of(data, settings.split)
    shown = examples(data, "train", split, shots, config=CONFIG)[:shots]
    if len(shown) < shots:
        raise ValueError(f"shots={shots} is more than the {len(shown)} rows of the train split")
    solved = (pair(row, place(data, "train", i)) for i, row in enumerate(shown))
    before = "".join(f"Question: {question}\nAnswer: {answer}\n\n" for question, answer in solved)
    found: list[Item] = []
    for i, row in enumerate(rows(data, split, config=CONFIG)[: settings.count]):
        question, answer = pair(row, place(data, split, i))
        prompt = f"{before}Question: {question}\nAnswer:"
        found.append(
            Question(
                f"{i:05d}", facts={"answer": answer.rsplit("####", 1)[-1].strip()}, prompt=prompt, until=("Question:", "</s>", "<|im_end|>"), chat=settings.chat
            )
        )
    return found


def pair(row: dict[str, Any], where: str) -> tuple[str, str]:
    return field(row, ("question",), str, where), field(row, ("answer",), str, where)


def plain(number: str) -> str:
    """A number without thousands separators, currency and a final full stop."""
    return re.sub(r"\.$", "", number.replace(",", "").replace("$", "")).strip().lower()


def score(facts: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """exact_match is the flexible one, as the papers on diffusion models report; strict beside it."""
    wanted = plain(facts["answer"])
    strict, numbers = STRICT.search(said["text"]), FLEXIBLE.findall(said["text"])
    return {"exact_match": bool(numbers) and plain(numbers[-1]) == wanted, "strict": strict is not None and plain(strict[1]) == wanted}


GSM8K = Benchmark("grade-school word problems, flexible and strict match", items, score, uses=("data", "split", "shots", "count", "chat"))
