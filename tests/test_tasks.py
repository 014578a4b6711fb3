"""The built-in tasks: the same questions everywhere, answers that follow from them, and a split that holds."""

import hashlib
import random
import re
from collections import Counter

import pytest

from mezzotint.evaluation.suite import questions
from mezzotint.evaluation.tasks import TASKS, lists, prose, retrieval

DIGESTS = {"math": "b8d53d9ff5301e88", "retrieval": "2d9f7d84b4314c7a", "lists": "54c426145a2bab88", "code": "04afdc75a9919c46", "tools": "eaba50bc08a5dad4"}


def digest(task):
    asked = questions(task, 16) + questions(task, 4, hard=True)
    return hashlib.sha256("\x00".join(e.prompt + e.document + e.answer for e in asked).encode()).hexdigest()[:16]


@pytest.mark.parametrize("task", DIGESTS)
def test_questions_are_the_same_on_every_machine(task):
    """Figures of the bundled model can only be compared if everybody asks the same: change these only together with the weights."""
    assert digest(task) == DIGESTS[task]


def test_prose_is_split_by_paragraph():
    shown, kept = prose.paragraphs(), prose.paragraphs(evaluation=True)
    assert len(shown) == 823
    assert len(kept) == 57
    assert not set(shown) & set(kept)


def test_chains_are_answered_by_following_the_text():
    rng = random.Random(0)
    for hard in (False, True):
        for _ in range(20):
            example = retrieval.tracking(rng, hard, 40)
            said = dict(re.findall(r"Let (\w+) = (\w+)\.", example.prompt))
            value = re.search(r"Which words are (\d+)\?", example.prompt)[1]

            def end(name, said=said):
                return end(said[name]) if said[name] in said else said[name]

            assert example.answer.removeprefix("Answer: ").split() == [name for name in said if end(name) == value]


def test_counts_are_of_the_list():
    rng = random.Random(0)
    for _ in range(20):
        for example in (lists.count(rng), lists.drill(rng)):
            words = Counter(example.prompt.split("occur? ")[1].split())
            said = re.findall(r"(\w+) (\d+)", example.answer)
            assert said
            assert all(words[word] == int(number) for word, number in said)


def test_drills_of_several_values_ask_for_all_of_them_in_their_order():
    rng = random.Random(0)
    for _ in range(30):
        example = retrieval.drill(rng)
        if example.facts["kind"] == "tracking":
            continue
        stated = re.findall(r"The code of (\w+) is (\d+)\.", example.prompt)
        answered = re.findall(r"The code of (\w+) is (\d+)\.", example.answer)
        assert sorted(stated) == sorted(answered)
        assert all([v for k, v in stated if k == key] == [v for k, v in answered if k == key] for key, _ in stated)


def test_the_reference_answer_is_right_and_less_is_not():
    for name, task in TASKS.items():
        if name == "code":
            continue
        for example in questions(name, 5):
            assert task.score(example, example.answer), name
            assert not task.score(example, example.answer[: len(example.answer) // 3]), name
