"""Multiple choice by likelihood: MMLU (arXiv 2009.03300), ARC (arXiv 1803.05457), and any file of questions with choices."""

from collections import defaultdict
from typing import Any

from mezzotint.evaluation.item import Benchmark, Choice, Item, Settings
from mezzotint.evaluation.sources import examples, field, place, rows, split_of, spread

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def options(row: dict[str, Any], where: str) -> tuple[str, list[str], int]:
    """Question, choices and the right one's index, from MMLU's, ARC's or a plain file's fields (question, choices, answer as index, letter or text)."""
    question = field(row, ("question",), str, where)
    listed = row.get("choices")
    labels: list[str] = []
    if isinstance(listed, dict):
        named, listed = listed.get("label"), listed.get("text")
        labels = [str(label) for label in named] if isinstance(named, list) else []
    if not isinstance(listed, list) or not 2 <= len(listed) <= len(LETTERS) or not all(isinstance(choice, str) for choice in listed):
        raise ValueError(f"{where}: `choices` must be a list of 2 to {len(LETTERS)} texts, not {str(row.get('choices'))[:80]!r}")
    labels = labels or list(LETTERS[: len(listed)])
    answer = field(row, ("answer", "answerKey"), (int, str), where)
    known = labels if answer in labels else listed
    right = answer if isinstance(answer, int) else known.index(answer) if answer in known else -1
    if not 0 <= right < len(listed):
        raise ValueError(f"{where}: answer={answer!r} is none of the {len(listed)} choices")
    return question.strip(), listed, right


def lettered(question: str, choices: list[str]) -> str:
    return f"{question}\n" + "".join(f"{letter}. {choice}\n" for letter, choice in zip(LETTERS, choices, strict=False)) + "Answer:"


def mmlu(settings: Settings, *_: Any) -> list[Item]:
    """Questions with lettered choices, the letter is what is scored; the worked examples are the subject's first of the `dev` split."""
    data, shots = settings.data or "cais/mmlu", 5 if settings.shots is None else settings.shots
    split = split_of(data, settings.split)
    shown: dict[str, list[str]] = defaultdict(list)
    for i, row in enumerate(examples(data, "dev", split, shots, config="all")):
        question, choices, right = options(row, place(data, "dev", i))
        shown[subject_of(row, place(data, "dev", i))].append(f"{lettered(question, choices)} {LETTERS[right]}\n\n")
    asked = rows(data, split, config="all")
    found: list[Item] = []
    for i in spread(settings.count, len(asked)):
        subject = subject_of(asked[i], place(data, split, i))
        question, choices, right = options(asked[i], place(data, split, i))
        if len(shown[subject]) < shots:
            raise ValueError(f"shots={shots} is more than the {len(shown[subject])} examples of subject {subject!r} in the dev split")
        title = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n" if subject else ""
        prompt = title + "".join(shown[subject][:shots]) + lettered(question, choices)
        letters = tuple(f" {letter}" for letter in LETTERS[: len(choices)])
        found.append(Choice(f"{i:05d}", subject, {"right": right, "characters": [1] * len(letters)}, prompt=prompt, choices=letters))
    return found


def subject_of(row: dict[str, Any], where: str) -> str:
    """A row's subject, "" for one that names none."""
    return "" if row.get("subject") is None else field(row, ("subject",), str, where)


def texts(settings: Settings, *_: Any) -> list[Item]:
    """Questions whose choices' own texts are scored."""
    if not settings.data:
        raise ValueError("choice needs --data: a file of rows with question, choices and answer")
    return questions(settings.data, settings)


def arc(settings: Settings, *_: Any) -> list[Item]:
    return questions(settings.data or "allenai/ai2_arc", settings, "ARC-Challenge")


def questions(data: str, settings: Settings, config: str | None = None) -> list[Item]:
    split = split_of(data, settings.split)
    asked = rows(data, split, config=config)
    found: list[Item] = []
    for i in spread(settings.count, len(asked)):
        question, choices, right = options(asked[i], place(data, split, i))
        facts = {"right": right, "characters": [len(choice) for choice in choices]}
        found.append(Choice(f"{i:05d}", facts=facts, prompt=f"Question: {question}\nAnswer:", choices=tuple(f" {choice}" for choice in choices)))
    return found


def score(facts: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """exact_match: the likeliest choice is right; by_character: the likeliest per character is (lm-evaluation-harness: acc and acc_norm)."""
    likely, sizes = said["log_likelihoods"], facts["characters"]
    per_character = [value / max(1, size) for value, size in zip(likely, sizes, strict=True)]
    return {
        "exact_match": max(range(len(likely)), key=likely.__getitem__) == facts["right"],
        "by_character": max(range(len(likely)), key=per_character.__getitem__) == facts["right"],
    }


LIKELY = ("data", "split", "count", "samples", "cfg_scale")
MMLU = Benchmark("57 subjects, the letter of the right choice by likelihood", mmlu, score, uses=(*LIKELY, "shots"), recipe="nothing")
ARC = Benchmark("science questions (ARC-Challenge), the right choice by likelihood", arc, score, uses=LIKELY, recipe="nothing")
CHOICE = Benchmark("your own file of question, choices, answer, by likelihood", texts, score, uses=LIKELY, recipe="nothing")
