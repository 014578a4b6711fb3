"""What a longer canvas costs when the answer stays the same: with suffix dropout and early stop nothing, without them everything.

python benchmarks/canvas_growth.py --json --samples growth.jsonl --plot growth.svg
python benchmarks/canvas_growth.py --quick

The same word problems are answered on canvases of 256 to 4,096 tokens, interleaved; runs of less than a second are taken three times, and the median counts.
`plain` decodes in parallel and stops early, as its rivals do, but sees and computes the whole canvas; `growing` is the canvas that follows the answer
(max_tokens). Growth is the ratio of seconds to those on the shortest canvas over the questions that got the same answer on both. Vanilla decoding (one token
per forward to the end of the canvas) is timed on one question and only up to --vanilla tokens: it is what grows cubically.

Samples are written to --samples as they are taken and taken up again; no new question is begun after --minutes. About eight minutes on two quiet cores.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from machine import stamp
from samples import Clock, Samples

import mezzotint as mz
from mezzotint.evaluation.suite import questions

GOAL = 1.10
"""At most this, from the shortest canvas to the longest, with suffix dropout and early stop."""
SHORT = 1.0
"""Runs of fewer seconds are repeated."""


def recipes(gen_length: int) -> dict[str, mz.Recipe]:
    plain = mz.Recipe(gen_length=gen_length, block_length=32, commit=mz.Threshold(0.9))
    dpad = mz.DPad(64, 3.0, 1.6)
    return {
        "plain": plain,
        "prefix": plain.with_(cache=mz.PrefixCache()),
        "dual": plain.with_(cache=mz.DualCache()),
        "DPad": plain.with_(suffix=dpad),
        "prefix + DPad": plain.with_(cache=mz.PrefixCache(), suffix=dpad),
        "dual + DPad": plain.with_(cache=mz.DualCache(), suffix=dpad),
        "growing": plain.with_(gen_length=64, max_tokens=gen_length),
    }


def draw(rows: list[dict], lengths: list[int], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for name in dict.fromkeys(row["name"] for row in rows):
        mine = [row for row in rows if row["name"] == name]
        axes.plot([row["gen_length"] for row in mine], [row["seconds"] for row in mine], marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="gen_length (tokens)", ylabel="seconds per answer")
    axes.set_xticks(lengths, [f"{n:,}" for n in lengths])
    axes.minorticks_off()
    axes.legend(fontsize=8)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mezzotint"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def growth(mine: list[dict[str, Any]], first: list[dict[str, Any]]) -> float | None:
    """Seconds over those on the shortest canvas, for the questions whose answer is the same on both; None if there are none."""
    same = [(a["seconds"], b["seconds"]) for a, b in zip(mine, first, strict=True) if a["text"] == b["text"]]
    return sum(a for a, _ in same) / sum(b for _, b in same) if same else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--count", type=int, default=8, help="questions")
    parser.add_argument("--vanilla", type=int, default=512, help="longest canvas on which vanilla decoding is timed; 0: none")
    parser.add_argument("--samples", type=Path, metavar="FILE.jsonl", help="where samples are kept and taken up again (default: nowhere)")
    parser.add_argument("--minutes", type=float, help="begin no new question after so many minutes")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a plot there (.svg or .png; needs matplotlib)")
    parser.add_argument("--quick", action="store_true", help="two questions on canvases of 64 and 256")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    lengths, count, vanilla = ([64, 256], 2, 64) if args.quick else (sorted(set(args.lengths)), args.count, args.vanilla)
    if any(n < 32 or n % 32 for n in lengths):
        parser.error(f"argument --lengths: {lengths} must be multiples of the block of 32")
    model, tokenizer = mz.load(args.model)
    asked = questions("math", count)
    samples, clock = Samples(args.samples, model, recipes={name: str(recipe) for name, recipe in recipes(max(lengths)).items()}), Clock(args.minutes)
    mz.generate(model, tokenizer, asked[0].prompt, recipes(64)["growing"])

    def answer(number: int, gen_length: int, name: str, recipe: mz.Recipe) -> dict[str, Any]:
        known = samples.get(number, gen_length, name)
        if known is not None:
            return known
        runs = [mz.generate(model, tokenizer, asked[number].prompt, recipe)]
        while runs[0].seconds < SHORT and len(runs) < 3:
            runs.append(mz.generate(model, tokenizer, asked[number].prompt, recipe))
        return samples.add(number, gen_length, name, result=sorted(runs, key=lambda r: r.seconds)[len(runs) // 2])

    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for number in range(count):
        if number and clock.over:
            break
        for gen_length in lengths:
            for name, recipe in recipes(gen_length).items():
                found.setdefault((name, gen_length), []).append(answer(number, gen_length, name, recipe))
    for gen_length in (n for n in lengths if n <= vanilla and not clock.over):
        recipe = mz.Recipe(gen_length=gen_length, block_length=32, early_stop="off")
        found["vanilla", gen_length] = [answer(0, gen_length, "vanilla", recipe)]

    rows = []
    for (name, gen_length), runs in found.items():
        first = found[name, lengths[0]]
        rows.append(
            {
                "name": name,
                "gen_length": gen_length,
                "seconds": statistics.mean(r["seconds"] for r in runs),
                "growth": growth(runs, first),
                "same_answers": sum(a["text"] == b["text"] for a, b in zip(runs, first, strict=True)),
                "forwards": statistics.mean(r["forwards"] for r in runs),
                "positions_computed": statistics.mean(r["positions_computed"] for r in runs),
                "answer_tokens": statistics.mean(r["tokens"] for r in runs),
                "recipe": str(recipes(gen_length)[name]) if name != "vanilla" else "--early-stop off",
            }
        )
        if not args.json:
            factor = "" if rows[-1]["growth"] is None else f"x{rows[-1]['growth']:.2f}"
            print(f"{name:14} {gen_length:5} {rows[-1]['seconds']:8.3f} s  {factor:8} {rows[-1]['positions_computed']:10,.0f} positions")
    if args.plot:
        draw(rows, lengths, args.plot)
    last = {r["name"]: r["growth"] for r in rows if r["gen_length"] == lengths[-1] and r["growth"] is not None}
    kept = {name: factor for name, factor in last.items() if "DPad" in name}
    settings = {"lengths": lengths, "count": len(found["plain", lengths[0]]), "growth": last, "goal": GOAL}
    settings["goal_reached"] = bool(kept) and max(kept.values()) <= GOAL
    print(json.dumps({"rows": rows, **settings, "model": args.model or "bundled", **stamp(model)}))


if __name__ == "__main__":
    main()
