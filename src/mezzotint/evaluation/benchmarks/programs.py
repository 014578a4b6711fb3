"""HumanEval (arXiv 2107.03374) and MBPP (arXiv 2108.07732): programs written from a description and run against tests in the sandbox."""

import re
import textwrap
from typing import Any

from mezzotint.evaluation.item import Benchmark, Item, Question, Settings, cut
from mezzotint.evaluation.sandbox import execute
from mezzotint.evaluation.sources import field, place, rows, split_of

ENDS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
FENCED = re.compile(r"^(?:(?!```)[^\n])*```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL | re.MULTILINE)
"""A fenced block, whatever stands behind the backticks that open it; code between backticks within a line is none."""

FIRST_TEST, LAST_TEST, SHOWN = 11, 510, (2, 3, 4)
"""MBPP's test problems, and the three that lm-evaluation-harness shows as worked examples, by task id."""


def in_chat(settings: Settings, tokenizer: Any) -> bool:
    return bool(tokenizer.chat_template) if settings.chat is None else settings.chat


def humaneval(settings: Settings, tokenizer: Any, *_: Any) -> list[Item]:
    """In a chat the function is asked for in words; otherwise the model continues the prompt, as lm-evaluation-harness has it."""
    chat = in_chat(settings, tokenizer)
    data = settings.data or "openai/openai_humaneval"
    split = split_of(data, settings.split)
    found: list[Item] = []
    for i, row in enumerate(rows(data, split)[: settings.count]):
        task, prompt, test, name = (field(row, (key,), str, place(data, split, i)) for key in ("task_id", "prompt", "test", "entry_point"))
        asked = f"Complete this Python function so that it does what its docstring says. Answer with the whole function.\n```python\n{prompt}\n```\n"
        facts = {"prompt": prompt, "test": f"{test}\ncheck({name})", "name": name, "chat": chat}
        found.append(Question(task, facts=facts, prompt=asked if chat else prompt, until=() if chat else ENDS, chat=chat))
    return found


def mbpp(settings: Settings, tokenizer: Any, *_: Any) -> list[Item]:
    """The prompt of lm-evaluation-harness: three worked examples, each description followed by its tests."""
    chat = in_chat(settings, tokenizer)
    data = settings.data or "google-research-datasets/mbpp"
    shots = len(SHOWN) if settings.shots is None else settings.shots
    if shots > len(SHOWN):
        raise ValueError(f"shots={shots} is more than the {len(SHOWN)} worked examples that mbpp has")
    problems = numbered(data, split_of(data, settings.split))
    known = problems if all(i in problems for i in SHOWN[:shots]) else problems | numbered(data, "prompt")
    if missing := [i for i in SHOWN[:shots] if i not in known]:
        raise ValueError(f"shots={shots} needs the problem of task_id {missing[0]}, which data={data!r} does not have; give --shots 0")
    shown = (known[i] for i in SHOWN[:shots])
    before = "".join(f"{described(row, where)}{field(row, ('code',), str, where)}\n[DONE]\n\n" for row, where in shown)
    found: list[Item] = []
    for number, (row, where) in problems.items():
        if FIRST_TEST <= number <= LAST_TEST:
            setup = "" if row.get("test_setup_code") is None else field(row, ("test_setup_code",), str, where)
            tests = "\n".join(filter(None, [setup, *tests_of(row, where)]))
            found.append(Question(f"{number:03d}", facts={"test": tests, "chat": chat}, prompt=before + described(row, where), until=("[DONE]",), chat=chat))
    return found[: settings.count]


def numbered(data: str, split: str) -> dict[int, tuple[dict[str, Any], str]]:
    """MBPP's problems by task id, each with how errors name it."""
    named = [(row, place(data, split, i)) for i, row in enumerate(rows(data, split, config="full"))]
    return {field(row, ("task_id",), int, where): (row, where) for row, where in named}


def tests_of(row: dict[str, Any], where: str) -> list[str]:
    tests = field(row, ("test_list",), list, where)
    if not all(isinstance(test, str) for test in tests):
        raise ValueError(f"{where}: `test_list` must be a list of texts, not {str(tests)[:80]!r}")
    return tests


def described(row: dict[str, Any], where: str) -> str:
    text, listed = field(row, ("text", "prompt"), str, where), "\n".join(tests_of(row, where)[:3])
    return f"You are an expert Python programmer, and here is your task: {text} Your code should pass these tests:\n\n{listed}\n[BEGIN]\n"


def written(text: str, name: str = "") -> str | None:
    """The code in an answer of a chat: the first fenced block that defines the function, moved to the margin (or the first at all, as it stands), or None
    without a fence."""
    blocks = FENCED.findall(text)
    defines = re.compile(rf"^[ \t]*(?:async[ \t]+)?def[ \t]+{re.escape(name)}\b", re.MULTILINE)
    whole = next(filter(defines.search, blocks), None)
    return textwrap.dedent(whole) if whole is not None else blocks[0] if blocks else None


def program(facts: dict[str, Any], text: str) -> str:
    """What is to be run: for HumanEval the prompt continued by the answer, or followed by it where the answer repeats the function."""
    code = written(text, facts.get("name", "")) if facts["chat"] else None
    if "prompt" not in facts:
        return f"{cut(text, ('[DONE]',)) if code is None else code}\n{facts['test']}"
    answer = text if code is None else code
    repeats = facts["chat"] and re.search(rf"^def {re.escape(facts['name'])}\b", answer, re.MULTILINE)
    return f"{facts['prompt']}{chr(10) if repeats else ''}{answer}\n{facts['test']}"


def score(facts: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """Right if the program and its tests reach their end in the sandbox (pass@1)."""
    done = execute(program(facts, said["text"]), strict=True)
    return {"exact_match": done.finished, **({} if done.finished else {"reason": done.reason})}


HUMANEVAL = Benchmark("functions from docstrings, pass@1", humaneval, score, uses=("data", "split", "count", "chat"), runs_code=True)
MBPP = Benchmark("functions from a sentence and three tests, pass@1", mbpp, score, uses=("data", "split", "shots", "count", "chat"), runs_code=True)
