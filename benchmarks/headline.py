"""DPad's headline taken apart (arXiv 2508.14148: 61.4 times vanilla): the same questions through every stage, interleaved, on the bundled model.

python benchmarks/headline.py --json --samples headline.jsonl
python benchmarks/headline.py --quick --json

1-shot word problems, a canvas of --gen-length. First --timed questions go through every stage in turn, vanilla included, and are timed: about two minutes
each on two cores, nearly all of it vanilla's. Then --count questions are judged, again in turn. Stages that decode the whole canvas (vanilla, parallel,
parallel +prefix) are judged by their twins with early stop, which are first checked to give the same answers on the timed questions. A question's number is its
seed, so that every one has a draw of DPad's of its own and the intervals contain the draw.

Every sample is written to --samples as it is taken, and a second call goes on from there. After --minutes no new question is begun; the result says how many
there are. --vanilla-steps N times only the first N of vanilla's forwards, which all have the same shape, and says so; its answers are then not checked.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from machine import stamp
from samples import Clock, Samples

import mezzotint as mz
from mezzotint.evaluation.suite import paired, questions
from mezzotint.evaluation.tasks import TASKS
from mezzotint.generation import encode
from mezzotint.recipes import RECIPES

SHOT = "Question: Kim has 4 bags with 6 coins each. Kim loses 5. How many coins are there now?\nAnswer:\n4*6=24\n24-5=19\n#### 19\n\nQuestion: "
TWINS = {"vanilla": "+early stop", "parallel": "parallel +early stop", "parallel +prefix": "parallel +prefix +early stop"}
"""Stages that go on to the end of the canvas -> the same with early stop."""
PUBLISHED = 61.4
SEEDS = "the question's number"


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
        **({"fast": RECIPES["fast"].recipe.with_(max_tokens=gen_length)} if "fast" in RECIPES else {}),
    }


def begun(model: Any, tokenizer: Any, prompt: str, recipe: mz.Recipe, steps: int) -> mz.Generation:
    """The first steps of a run whose forwards are all alike, with the seconds and counts that the whole run would have."""
    ids, whole = torch.tensor([encode(tokenizer, prompt)]), recipe.gen_length
    start, positions = time.perf_counter(), 0
    for step in mz.denoise(model, ids, recipe):
        positions += len(step.computed)
        if step.index + 1 == steps:
            break
    share = whole / steps
    return mz.Generation(ids[0, :0], whole, round(positions * share), (time.perf_counter() - start) * share, ("length",), recipe)


def enough(known: dict[str, Any] | None, timed: bool) -> bool:
    """Whether a sample need not be taken: one that was only judged took no turns with the other stages, so it is no timing."""
    return known is not None and (known["timed"] or not timed)


def row(name: str, recipe: mz.Recipe, timed: list[dict], vanilla: list[dict], judged: dict[str, list[bool]]) -> dict[str, Any]:
    """A stage's figures: means over the timed questions, the ratio of total seconds with the lowest and highest of the questions', verdicts over the judged."""
    seconds, tokens = statistics.mean(s["seconds"] for s in timed), statistics.mean(s["tokens"] for s in timed)
    ratios = sorted(v["seconds"] / s["seconds"] for s, v in zip(timed, vanilla, strict=True))
    verdicts, plain = judged[TWINS.get(name, name)], judged[TWINS["vanilla"]]
    return {
        "name": name,
        "seconds": seconds,
        "speedup": statistics.mean(v["seconds"] for v in vanilla) / seconds,
        "speedup_range": [ratios[0], ratios[-1]],
        "forwards": statistics.mean(s["forwards"] for s in timed),
        "positions_computed": statistics.mean(s["positions_computed"] for s in timed),
        "answer_tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "exact_match": statistics.mean(verdicts),
        "against_vanilla": paired(verdicts, plain),
        "recipe": str(recipe),
    }


def strongest(rows: list[dict], dropping: bool) -> dict | None:
    """The fastest stage that stops early and loses at most half a point, among those with or without suffix dropout."""
    fit = [r for r in rows if ("dpad" in r["recipe"]) == dropping and r["name"] not in TWINS and r["against_vanilla"]["difference"] >= -0.005]
    return min(fit, key=lambda r: r["seconds"], default=None)


def verdict(rows: list[dict]) -> dict[str, Any]:
    """What the table says about the published headline, and what DPad adds over the strongest stage without it."""
    with_, without = strongest(rows, True), strongest(rows, False)
    best = min((r for r in (with_, without) if r), key=lambda r: r["seconds"], default=None)
    found: dict[str, Any] = {"published": PUBLISHED, "best": best and best["name"], "best_speedup": best and best["speedup"]}
    judged = any(r["exact_match"] for r in rows if r["name"] == "vanilla")  # where vanilla answers nothing, nothing can be lost
    found["reached"] = bool(best and best["speedup"] >= PUBLISHED) if judged else None
    dual, dual_dpad = (next(r for r in rows if r["name"] == f"parallel +dual{dpad} +early stop") for dpad in ("", " +DPad"))
    found["dpad_over_parallel_dual_early_stop"] = dual["seconds"] / dual_dpad["seconds"]
    if with_ and without:
        found |= {"strongest_without_dpad": without["name"], "strongest_with_dpad": with_["name"], "dpad_adds": without["seconds"] / with_["seconds"]}
        found["dpad_adds_exact_match"] = with_["exact_match"] - without["exact_match"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--gen-length", type=int, default=1024)
    parser.add_argument("--window", type=int, default=256, help="DPad's window")
    parser.add_argument("--timed", type=int, default=10, help="questions that are timed")
    parser.add_argument("--count", type=int, default=200, help="questions whose answers are judged")
    parser.add_argument("--shots", type=int, choices=(0, 1), default=1)
    parser.add_argument("--samples", type=Path, metavar="FILE.jsonl", help="where samples are kept and taken up again (default: nowhere)")
    parser.add_argument("--minutes", type=float, help="begin no new question after so many minutes")
    parser.add_argument("--vanilla-steps", type=int, metavar="N", help="time only the first N forwards of vanilla and multiply")
    parser.add_argument("--quick", action="store_true", help="a canvas of 256, 2 timed questions, 8 forwards of vanilla, 4 judged questions")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    quick = (256, 2, 4, args.vanilla_steps or 8)
    gen_length, timed, count, few = quick if args.quick else (args.gen_length, args.timed, args.count, args.vanilla_steps)
    if few is not None and not 1 <= few <= gen_length:
        parser.error(f"argument --vanilla-steps: {few} must lie between 1 and the {gen_length} of the canvas")
    if not 1 <= timed <= count:
        parser.error(f"argument --timed: {timed} must lie between 1 and the {count} questions of --count")
    model, tokenizer = mz.load(args.model)
    stages, asked = recipes(gen_length, min(args.window, gen_length)), questions("math", count)
    settings = {"gen_length": gen_length, "shots": args.shots, "vanilla_steps": few, "recipes": {name: str(recipe) for name, recipe in stages.items()}}
    samples, clock = Samples(args.samples, model, seeds=SEEDS, **settings), Clock(args.minutes)
    names = list(stages)

    def answer(number: int, name: str, timed: bool) -> None:
        """One question through one stage, unless it was answered before."""
        if enough(samples.get(number, name), timed):
            return
        prompt = (SHOT if args.shots else "") + asked[number].prompt
        if name == "vanilla" and few is not None:
            result = begun(model, tokenizer, prompt, stages[name], few)
        else:
            result = mz.generate(model, tokenizer, prompt, stages[name], seed=number)
        samples.add(number, name, result=result, timed=timed, right=TASKS["math"].score(asked[number], result.text))
        if not args.json:
            print(f"{number:4} {name:36} {result.seconds:8.2f} s {result.forwards:5} forwards  {result.text!r}", flush=True)

    for name in names[1:]:  # warm-up
        mz.generate(model, tokenizer, (SHOT if args.shots else "") + asked[0].prompt, stages[name].with_(gen_length=64, max_tokens=None, early_stop="step"))
    done = 0
    while done < timed and (done == 0 or not clock.over):
        turn = done % len(names)
        for name in names[turn:] + names[:turn]:
            answer(done, name, True)
        done += 1
    judged = done
    while judged < count and not clock.over:
        for name in names:
            if name not in TWINS:
                answer(judged, name, False)
        judged += 1

    def of(name: str, number: int) -> dict[str, Any]:
        found = samples.get(number, name)
        assert found is not None
        return found

    same = {name: [of(name, n)["text"] == of(twin, n)["text"] for n in range(done)] for name, twin in TWINS.items() if name != "vanilla" or few is None}
    verdicts = {name: [of(name, n)["right"] for n in range(judged)] for name in names if name not in TWINS}
    if few is not None:  # its answers are its twin's
        for n in range(done):
            of("vanilla", n)["tokens"] = of(TWINS["vanilla"], n)["tokens"]
    taken = {name: [of(name, n) for n in range(done)] for name in names}
    rows = [row(name, recipe, taken[name], taken["vanilla"], verdicts) for name, recipe in stages.items()]
    if not args.json:
        for r in rows:
            print(f"{r['name']:36} {r['seconds']:8.3f} s x{r['speedup']:<8.1f} {r['forwards']:7.1f} {r['positions_computed']:11,.0f} {r['exact_match']:.3f}")
    found = {"rows": rows, "verdict": verdict(rows), "twins_give_the_same_answer": same, "timed": done, "count": judged, "gen_length": gen_length}
    found |= {"shots": args.shots, "vanilla": "timed in full" if few is None else f"first {few} forwards timed, multiplied", "model": args.model or "bundled"}
    print(json.dumps({**found, "seeds": SEEDS, **stamp(model)}))


if __name__ == "__main__":
    main()
