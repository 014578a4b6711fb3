"""Questions whose answers can be judged: the built-in held-out ones, or a file of the user's own."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mezzotint.denoising import Step
from mezzotint.evaluation.item import OF_ANSWERS, gapped
from mezzotint.evaluation.suite import questions
from mezzotint.evaluation.tasks import TASKS
from mezzotint.evaluation.tasks.example import Example
from mezzotint.generation import generate, infill
from mezzotint.models.transformer import Transformer
from mezzotint.recipe import Recipe

MATCHES = ("exact", "contains", "number")
COUNT = 20
"""Questions of each built-in task unless told otherwise."""

NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")


@dataclass(frozen=True)
class Question:
    """A prompt (text or a chat) and its reference answer.

    match: "exact": the same words; "contains": the reference stands in the answer; "number": the answer's last number is the reference's last.
    example: a question of the built-in tasks, which is judged, and filled where it is a gap, as its task says.
    """

    prompt: Any
    answer: str
    match: str = "exact"
    example: Example | None = None

    def right(self, text: str) -> bool:
        """Whether an answer counts."""
        if self.example is not None:
            return TASKS[self.example.task].score(self.example, text)
        if self.match == "contains":
            return self.answer.strip() in text
        if self.match == "number":
            return last_number(text) is not None and last_number(text) == last_number(self.answer)
        return text.split() == self.answer.split()


@dataclass(frozen=True)
class Answer:
    """One question answered by one recipe: what was said, whether it is right, and what it cost.

    decided: tokens that the forwards committed; tokens: those of them that are answer, before the stop id.
    """

    text: str
    right: bool
    seconds: float
    forwards: int
    positions: int
    decided: int
    tokens: int


def last_number(text: str) -> float | None:
    found = NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def gather(tasks: Sequence[str], count: int | None = None, usual: int = COUNT) -> list[Question]:
    """`count` questions of each built-in task, and at most as many of a JSON Lines file, the tasks in turn. None: `usual` of a task, all of a file.

    A line of a file is an object with `prompt` (text, or messages with role and content), `answer` and, if wanted, `match`. Raises ValueError naming
    the file and line that is not accepted.
    """
    groups: list[list[Question]] = []
    for task in tasks:
        if task in TASKS:
            groups.append([Question(e.prompt, e.answer, example=e) for e in questions(task, count or usual)])
        elif Path(task).is_file():
            groups.append([line(text, f"task={task!r} line {n}") for n, text in enumerate(read(task), 1) if text.strip()][:count])
            if not groups[-1]:
                raise ValueError(f"task={task!r} has no questions; give one JSON object with prompt and answer per line")
        else:
            raise ValueError(f"task={task!r} is neither a built-in task nor a file; accepted: {', '.join(TASKS)}, or a JSON Lines file")
    longest = max(map(len, groups), default=0)
    return [group[i] for i in range(longest) for group in groups if i < len(group)]


def refuse_unused(questions: Sequence[Question], given: Iterable[str]) -> None:
    """Raises ValueError for a recipe field that was given although all questions are gaps, to which it means nothing."""
    unused = [field for field in given if field in OF_ANSWERS]
    if unused and all(q.example is not None and q.example.document for q in questions):
        raise ValueError(f"--{unused[0].replace('_', '-')} means nothing to these tasks, which fill gaps, whose sizes are given; leave it out")


def read(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"task={path!r} is not UTF-8 text") from None


def line(text: str, where: str) -> Question:
    """One line of a file."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON: {error}") from None
    if not isinstance(values, dict) or not {"prompt", "answer"} <= set(values) <= {"prompt", "answer", "match"}:
        raise ValueError(f"{where} must be an object with prompt, answer and, if wanted, match")
    prompt, answer, match = values["prompt"], values["answer"], values.get("match", "exact")
    chat = isinstance(prompt, list) and bool(prompt) and all(isinstance(m, dict) and set(m) == {"role", "content"} for m in prompt)
    if not chat and not (isinstance(prompt, str) and prompt.strip()):
        raise ValueError(f"{where}: prompt must be text, or a list of messages with role and content")
    if not isinstance(answer, str) or not answer.strip():
        raise ValueError(f"{where}: answer={answer!r} must be text")
    if match not in MATCHES:
        raise ValueError(f"{where}: match={match!r} is unknown; accepted: {', '.join(MATCHES)}")
    if match == "number" and last_number(answer) is None:
        raise ValueError(f"{where}: answer={answer!r} holds no number")
    return Question(prompt, answer, match)


def put(model: Transformer, tokenizer: Any, question: Question, recipe: Recipe, seed: int = 0) -> Answer:
    """Answer one question by itself. A gap gets as many masks as its reference has tokens."""
    decided = 0

    def count(step: Step) -> None:
        nonlocal decided
        decided += int(step.accepted.sum())

    example = question.example
    if example is not None and example.document:
        text, masks = gapped(tokenizer, example.document, example.gap)
        filled = infill(model, tokenizer, text, recipe.with_(steps=None, max_tokens=None), seed=seed, on_step=count)
        return Answer(filled.fills[0], question.right(filled.fills[0]), filled.seconds, filled.forwards, filled.positions_computed, decided, masks)
    result = generate(model, tokenizer, question.prompt, recipe, seed=seed, on_step=count)
    return Answer(result.text, question.right(result.text), result.seconds, result.forwards, result.positions_computed, decided, len(result.tokens))
