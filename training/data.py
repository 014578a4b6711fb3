"""What the bundled model is trained on: the tasks' training side, sums, and prose, as (tokens, span) items in length buckets."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from mezzotint.evaluation.tasks import code, lists, math, retrieval, tools
from mezzotint.evaluation.tasks.example import Example
from mezzotint.evaluation.tasks.prose import held_out, paragraphs
from mezzotint.evaluation.tasks.words import KEYS

BUCKETS = (48, 64, 80, 96, 128, 192, 256, 384, 512, 1024, 2048, 4096)
LONG_CANVASES = (128, 256, 512, 1024)
MIX = {
    "repeat": 0.005,
    "recall": 0.10,
    "retrieval": 0.18,
    "lists": 0.13,
    "count": 0.06,
    "table": 0.03,
    "drill": 0.005,
    "math": 0.34,
    "tools": 0.08,
    "code": 0.05,
    "prose": 0.02,
}
GROUPED = 0.15
"""The share of word problems of which only results are masked."""
SHOWN = 0.15
"""The share of word problems that follow a worked example."""

WHOLE = ("code", "prose", "repeat", "table")
"""Tasks that are documents rather than answers: what follows them is padding that noise leaves alone."""


@dataclass(frozen=True)
class Item:
    """Token ids, and the span [start, end) that noise may mask. Answers end with EOS at `closed` and are padded with more of it, which noise may mask too.

    groups: if not empty, all that noise may mask, group by group: a result and its copies, so that none can be had by copying.
    hidden: for every group what is masked with it and not asked for, so that the gap does not say how many digits a result has.
    """

    task: str
    ids: list[int]
    start: int
    end: int
    closed: int
    groups: tuple[tuple[int, ...], ...] = ()
    hidden: tuple[tuple[int, ...], ...] = ()


def results(text: str, chained: bool) -> list[list[tuple[int, int]]]:
    """Characters of every result in worked sums, one list a sum; chained: with the later operands and the answer that repeat it."""
    found: dict[str, list[list[tuple[int, int]]]] = {}
    groups: list[list[tuple[int, int]]] = []
    for number in re.finditer(r"(=?)(\d+)", text):
        span, value = number.span(2), number[2]
        if number[1]:
            groups.append([span])
            found.setdefault(value, []).append(groups[-1])
        elif chained and value in found:
            found[value][-1].append(span)
    return groups


def prose_texts(path: Path | None) -> list[str]:
    """Paragraphs to train on: the Python topics' training side and, if given, a WikiText-style file (one paragraph a line)."""
    texts = list(paragraphs())
    if path is not None:
        for line in path.read_text(encoding="utf-8").splitlines():
            text = re.sub(r" @(.)@ ", r"\1", line.strip())
            text = re.sub(r" ([,.;:!?)])", r"\1", text).replace("( ", "(")
            if len(text) > 100 and "<unk>" not in text and not held_out(text):
                texts.append(text)
    return texts


class Source(torch.utils.data.IterableDataset):
    """Endless batches: lists of items of one bucket, about `tokens` tokens each.

    `progress.value` in [0, 1] is the curriculum, shared with worker processes: short items first, long canvases and contexts later.
    long: the share of retrieval contexts of 150 to 2,000 words.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, prose: list[str], seed: int, tokens: int, progress, mix: dict[str, float], long: float = 0.005):
        self.tokenizer, self.prose, self.seed, self.tokens, self.progress, self.long = tokenizer, prose, seed, tokens, progress, long
        self.tasks, self.shares = list(mix), list(mix.values())
        self.rng = random.Random(seed)
        self.bos, self.eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.words = sorted({token for word in [*KEYS, *"0123456789"] for token in self.encode(f" {word}")})

    def encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def example(self, task: str, progress: float) -> Example:
        rng = self.rng
        drill = {"drill": math.drill, "table": math.table, "recall": retrieval.drill, "count": lists.drill}.get(task)
        module = {"math": math, "retrieval": retrieval, "lists": lists, "tools": tools, "code": code}.get(task)
        while True:
            if drill is not None:
                example = drill(rng)
            elif task == "retrieval" and progress > 0.4 and rng.random() < self.long:
                example = retrieval.make(rng, False, words=rng.choice((150, 150, 150, 300, 300, 600, 1200, 2000)))
            else:
                example = module.make(rng, False)
            if not example.held_out:
                return example

    def item(self, progress: float) -> Item:
        rng = self.rng
        task = rng.choices(self.tasks, self.shares)[0]
        if task == "repeat":
            return self.repeat()
        if task == "prose":
            length = rng.choice((96, 128, 192))
            ids = [self.bos]
            while len(ids) < length:
                ids += [*self.encode(rng.choice(self.prose)), self.eos]
            return Item(task, ids[:length], 1, length, length)
        example = self.example(task, progress)
        if task == "table":
            return self.table(example)
        if task == "code":
            start, end = example.gap
            before, gap, after = (self.encode(t) for t in (example.document[:start], example.answer, example.document[end:]))
            ids = [self.bos, *before, *gap, *after, self.eos]
            if rng.random() < 0.3:
                return Item(task, ids, 1, len(ids), len(ids))
            end = 1 + len(before) + len(gap)
            return Item(task, ids, 1 + len(before), end, end)
        question = example.prompt
        if task == "math" and rng.random() < SHOWN:
            worked = self.example("math", progress)
            question = f"Question: {worked.prompt}\nAnswer:\n{worked.answer}\n\nQuestion: {question}"
        chat = self.tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False)
        prompt = self.encode(chat)
        answer, groups = self.grouped(example.answer, len(prompt), chained=task == "math")
        asked = rng.random() < {"drill": 0.5, "math": GROUPED}.get(task, 0.0)
        ids = [*prompt, *answer, self.eos]
        return Item(task, ids, len(prompt), len(ids), len(ids), groups if asked else ())

    def table(self, example: Example) -> Item:
        """Worked sums, of which the results are asked: a hundred times as many digits to work out as random masks ask of answers.

        Of most tables every other result is asked, with the token that ends it, and the line after it is hidden.
        """
        ids, groups = self.grouped(example.document, 1, chained=False)
        end = 1 + len(ids)
        hidden: tuple[tuple[int, ...], ...] = ()
        if self.rng.random() < 0.7:
            first = self.rng.randrange(2)
            pairs = list(zip(groups[first::2], groups[first + 1 :: 2], strict=False))
            groups = tuple((*group, group[-1] + 1) for group, _ in pairs)
            hidden = tuple(tuple(range(group[-1] + 2, after[-1] + 1)) for group, after in pairs)
        return Item("table", [self.bos, *ids], 1, end, end, groups, hidden)

    def grouped(self, text: str, start: int, chained: bool) -> tuple[list[int], tuple[tuple[int, ...], ...]]:
        """A text's tokens, and where its results stand among them if its first token stands at `start`."""
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        places = encoded["offset_mapping"]
        groups = [
            tuple(start + i for i, (first, last) in enumerate(places) for low, high in group if low <= first and last <= high)
            for group in results(text, chained)
        ]
        return encoded["input_ids"], tuple(groups)

    def repeat(self) -> Item:
        """A few tokens of the tasks, over and over: the densest lesson in looking up what stood beside the same token elsewhere."""
        length = self.rng.randint(6, 15)
        ids = self.rng.choices(self.words, k=length) * max(2, min(4, 46 // length))
        return Item("repeat", [self.bos, *ids], 1, 1 + len(ids), 1 + len(ids))

    def fit(self, item: Item, progress: float) -> tuple[int, Item] | None:
        """The bucket for an item, with its answer padded to the bucket's end; None if it is too long for now."""
        least = len(item.ids)
        if item.task not in WHOLE and progress > 0.3 and self.rng.random() < 0.01:
            least = max(least, item.start + self.rng.choice(LONG_CANVASES))
        bucket = next((b for b in BUCKETS if b >= least), None)
        longest = 128 if progress < 0.1 else 256 if progress < 0.3 else BUCKETS[-1]
        if bucket is None or bucket > longest:
            return None
        padded = item.ids + [self.eos] * (bucket - len(item.ids))
        end = item.end if item.task in WHOLE else bucket
        return bucket, replace(item, ids=padded, end=end)

    def __iter__(self) -> Iterator[list[Item]]:
        worker = torch.utils.data.get_worker_info()
        if worker is not None:
            self.rng = random.Random(self.seed * 1009 + worker.id + 1)
        waiting: dict[int, list[Item]] = {}
        while True:
            progress = self.progress.value
            placed = self.fit(self.item(progress), progress)
            if placed is None:
                continue
            bucket, item = placed
            queue = waiting.setdefault(bucket, [])
            queue.append(item)
            if len(queue) * bucket >= self.tokens:
                yield waiting.pop(bucket)
