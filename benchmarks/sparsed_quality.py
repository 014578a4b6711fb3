"""Quality of SparseD and of fixed patterns at an equal budget, against dense attention on the same questions
(the paper's table 1, on the bundled model). Tiles are cut on padded batches; --batch 1 has none.

python benchmarks/sparsed_quality.py --json
python benchmarks/sparsed_quality.py --ablations --json     skip, select, block size, sharing, and how often it is made
"""

import argparse
import json
import random

from machine import stamp

import mezzotint as mz
from mezzotint.attention import Dense, SlidingWindow, SparseD, StreamingLLM
from mezzotint.evaluation.suite import answer, paired, questions, summary
from mezzotint.evaluation.tasks import retrieval
from mezzotint.evaluation.tasks.example import Example, draw
from mezzotint.generation import encode

SIZE = 16
"""Positions per tile: short prompts need small ones."""


def fixed(length: int, select: float) -> dict:
    """The patterns to compare on canvases of about `length` tokens, each keeping about the share `select` of the tiles."""
    kept = max(2, round(select * length / SIZE))
    return {
        "dense": Dense(),
        "sparsed": SparseD(select=select, block_size=SIZE, impl="reference"),
        "window": SlidingWindow(window=(kept - 1) * SIZE, block_size=SIZE, impl="reference"),
        "streaming": StreamingLLM(window=(kept - 2) * SIZE, block_size=SIZE, first=SIZE, impl="reference"),
    }


ABLATIONS = {
    "dense": Dense(),
    **{f"skip {s}": SparseD(skip=s, block_size=16, impl="reference") for s in (0.0, 0.1, 0.2, 0.5)},
    **{f"select {s}": SparseD(select=s, block_size=16, impl="reference") for s in (0.1, 0.2, 0.3, 0.4, 0.5)},
    **{f"block size {b}": SparseD(block_size=b, impl="reference") for b in (8, 16, 32, 64)},
    "made anew every other step": SparseD(block_size=16, rebuild=2, impl="reference"),
    "shared in a group (GQA)": SparseD(block_size=16, share="group", impl="reference"),
    "mass 0.95": SparseD(select="mass:0.95", block_size=16, impl="reference"),
}


def long_questions(words: int, count: int) -> list[Example]:
    """Held-out retrieval questions with about `words` words of hay."""
    stream = draw(lambda rng, hard: retrieval.make(rng, hard, words=words), random.Random(words), held_out=True)
    return [next(stream) for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--tasks", nargs="+", default=["math", "lists", "retrieval", "code", "tools"])
    parser.add_argument("--count", type=int, default=200, help="questions per task")
    parser.add_argument("--select", type=float, default=0.3, help="share of the tiles kept by SparseD and by the fixed patterns")
    parser.add_argument("--words", type=int, nargs="*", default=[450, 900, 1800], help="words of hay for long retrieval: about 1k, 2k, 4k tokens")
    parser.add_argument("--long-count", type=int, default=100, help="questions per long retrieval length")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--ablations", action="store_true")
    parser.add_argument("--quick", action="store_true", help="20 questions per task, no long retrieval")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    count, words = (20, []) if args.quick else (args.count, args.words)
    model, tokenizer = mz.load(args.model)
    asked = {task: questions(task, count) for task in args.tasks}
    asked |= {f"retrieval {w} words": long_questions(w, args.long_count) for w in words}
    found: dict[str, dict] = {}
    verdicts: dict[str, list[bool]] = {}
    for task, examples in asked.items():
        found[task] = {}
        length = 64 + max(len(encode(tokenizer, e.prompt or e.document)) for e in examples)
        arms = ABLATIONS if args.ablations else fixed(length, args.select)
        for arm, attention in arms.items():
            recipe = mz.Recipe(gen_length=64, block_length=32, commit=mz.Threshold(0.9), attention=attention)
            right = answer(model, tokenizer, examples, recipe, batch=args.batch if task in args.tasks else 1)
            mine = [o.right for o in right]
            verdicts.setdefault(arm, []).extend(mine)
            found[task][arm] = summary(right) | {"against_dense": paired(mine, [bool(b) for b in verdicts["dense"][-len(mine) :]])}
            if not args.json:
                print(task, arm, json.dumps(found[task][arm]), flush=True)
    whole = {arm: {"exact_match": sum(v) / len(v), "count": len(v), "against_dense": paired(v, verdicts["dense"])} for arm, v in verdicts.items()}
    print(json.dumps({"all": whole, "tasks": found, "select": args.select, "block_size": SIZE, "model": args.model or "bundled", **stamp()}))


if __name__ == "__main__":
    main()
