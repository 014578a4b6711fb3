"""DPad's headline taken apart (arXiv 2508.14148: 61.4 times vanilla): the same questions through every stage, interleaved, on the bundled model.

python benchmarks/headline.py --json
python benchmarks/headline.py --quick --json

1-shot word problems, a canvas of --gen-length. Seconds are medians over the timed questions, every row on the same ones in turn. Exact match is counted
over more questions; vanilla's comes from its twin with early stop, whose answers are first checked to be the same on the timed questions.
"""

import argparse
import json
import statistics
from typing import Any

import torch
from machine import stamp

import mezzotint as mz
from mezzotint.evaluation.suite import paired, questions
from mezzotint.evaluation.tasks import TASKS
from mezzotint.evaluation.tasks.example import Example

SHOT = "Question: Kim has 4 bags with 6 coins each. Kim loses 5. How many coins are there now?\nAnswer:\n4*6=24\n24-5=19\n#### 19\n\nQuestion: "


def recipes(gen_length: int, window: int) -> dict[str, mz.Recipe]:
    vanilla = mz.Recipe(gen_length=gen_length, block_length=32, early_stop="off")
    stop = vanilla.with_(early_stop="step")
    parallel = stop.with_(commit=mz.Threshold(0.9))
    dpad = mz.DPad(window, 3.0, 1.6)
    return {
        "vanilla": vanilla,
        "+early stop": stop,
        "+early stop +DPad": stop.with_(suffix=dpad),
        "parallel": parallel.with_(early_stop="off"),
        "parallel +prefix": parallel.with_(cache=mz.PrefixCache(), early_stop="off"),
        "parallel +early stop": parallel,
        "parallel +prefix +early stop": parallel.with_(cache=mz.PrefixCache()),
        "parallel +dual +early stop": parallel.with_(cache=mz.DualCache()),
        "parallel +prefix +DPad +early stop": parallel.with_(cache=mz.PrefixCache(), suffix=dpad),
        "parallel +dual +DPad +early stop": parallel.with_(cache=mz.DualCache(), suffix=dpad),
        "parallel +dual, growing canvas": parallel.with_(cache=mz.DualCache(), gen_length=64, max_tokens=gen_length),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--gen-length", type=int, default=1024)
    parser.add_argument("--window", type=int, default=256, help="DPad's window")
    parser.add_argument("--timed", type=int, default=10, help="questions that are timed")
    parser.add_argument("--count", type=int, default=200, help="questions whose answers are judged")
    parser.add_argument("--shots", type=int, choices=(0, 1), default=1)
    parser.add_argument("--quick", action="store_true", help="a canvas of 256, 2 timed and 20 judged questions")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    gen_length, timed, count = (256, 2, 20) if args.quick else (args.gen_length, args.timed, args.count)
    model, tokenizer = mz.load(args.model)
    stages = recipes(gen_length, min(args.window, gen_length))
    asked = questions("math", count)

    def answer(example: Example, recipe: mz.Recipe) -> Any:
        return mz.generate(model, tokenizer, (SHOT if args.shots else "") + example.prompt, recipe)

    answer(asked[0], stages["parallel +early stop"])
    results: dict[str, list] = {name: [] for name in stages}
    for example in asked[:timed]:
        for name, recipe in stages.items():
            results[name].append(answer(example, recipe))
    same = [a.text == b.text for a, b in zip(results["vanilla"], results["+early stop"], strict=True)]
    verdicts: dict[str, list[bool]] = {}
    for name, recipe in stages.items():
        if name == "vanilla":
            continue
        told = [r.text for r in results[name]] + [answer(e, recipe).text for e in asked[timed:]]
        verdicts[name] = [TASKS["math"].score(e, text) for e, text in zip(asked, told, strict=True)]
    verdicts["vanilla"] = verdicts["+early stop"]
    rows = []
    for name in stages:
        found = results[name]
        seconds = statistics.median(r.seconds for r in found)
        tokens = statistics.mean(len(r.tokens) for r in found)
        rows.append(
            {
                "name": name,
                "seconds": seconds,
                "speedup": statistics.median(r.seconds for r in results["vanilla"]) / seconds,
                "forwards": statistics.mean(r.forwards for r in found),
                "positions_computed": statistics.mean(r.positions_computed for r in found),
                "answer_tokens": tokens,
                "tokens_per_second": tokens / seconds,
                "exact_match": sum(verdicts[name]) / count,
                "against_vanilla": paired(verdicts[name], verdicts["vanilla"]),
                "recipe": str(stages[name]),
            }
        )
        if not args.json:
            print(json.dumps(rows[-1]))
    settings = {"gen_length": gen_length, "timed": timed, "count": count, "shots": args.shots, "threads": torch.get_num_threads()}
    print(json.dumps({"rows": rows, "vanilla_equals_its_twin": same, **settings, "model": args.model or "bundled", **stamp()}))


if __name__ == "__main__":
    main()
