"""What a longer canvas costs when the answer stays the same: with suffix dropout and early stop nothing, without them everything.

python benchmarks/canvas_growth.py --json
python benchmarks/canvas_growth.py --plot growth.svg

The same questions are answered on canvases of 256 to 4,096 tokens, interleaved. `plain` decodes in parallel and stops early, as its rivals do, but sees and
computes the whole canvas; `growing` is the canvas that follows the answer (max_tokens). Vanilla decoding (one token per forward to the end of the canvas)
is timed on one question and only up to --vanilla tokens: it is what grows cubically.
"""

import argparse
import json
import statistics
from pathlib import Path

from machine import stamp

import mezzotint as mz
from mezzotint.evaluation.suite import questions


def recipes(gen_length: int) -> dict[str, mz.Recipe]:
    plain = mz.Recipe(gen_length=gen_length, block_length=32, commit=mz.Threshold(0.9))
    dpad = mz.DPad(64, 3.0, 1.6)
    return {
        "plain": plain,
        "prefix": plain.with_(cache=mz.PrefixCache()),
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
    axes.legend()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--count", type=int, default=8, help="questions")
    parser.add_argument("--vanilla", type=int, default=512, help="longest canvas on which vanilla decoding is timed; 0: none")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a plot there (.svg or .png; needs matplotlib)")
    parser.add_argument("--quick", action="store_true", help="two questions on canvases of 256 and 1,024")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    lengths, count, vanilla = ([256, 1024], 2, 256) if args.quick else (args.lengths, args.count, args.vanilla)
    model, tokenizer = mz.load(args.model)
    asked = questions("math", count)
    mz.generate(model, tokenizer, asked[0].prompt, recipes(64)["growing"])

    found: dict[tuple[str, int], list[mz.Generation]] = {}
    for example in asked:
        for gen_length in lengths:
            for name, recipe in recipes(gen_length).items():
                found.setdefault((name, gen_length), []).append(mz.generate(model, tokenizer, example.prompt, recipe))
    for gen_length in (n for n in lengths if n <= vanilla):
        recipe = mz.Recipe(gen_length=gen_length, block_length=32, early_stop="off")
        found["vanilla", gen_length] = [mz.generate(model, tokenizer, asked[0].prompt, recipe)]

    first = lengths[0]
    rows = []
    for (name, gen_length), runs in found.items():
        seconds = statistics.median(r.seconds for r in runs)
        rows.append(
            {
                "name": name,
                "gen_length": gen_length,
                "seconds": seconds,
                "growth": seconds / statistics.median(r.seconds for r in found[name, first]),
                "forwards": statistics.mean(r.forwards for r in runs),
                "positions_computed": statistics.mean(r.positions_computed for r in runs),
                "answer_tokens": statistics.mean(len(r.tokens) for r in runs),
                "same_answers": sum(a.text == b.text for a, b in zip(runs, found[name, first], strict=True)),
                "of": len(runs),
                "recipe": str(runs[0].recipe),
            }
        )
        if not args.json:
            print(f"{name:14} {gen_length:5} {seconds:8.3f} s  x{rows[-1]['growth']:.2f}  {rows[-1]['positions_computed']:10,.0f} positions")
    if args.plot:
        draw(rows, lengths, args.plot)
    print(json.dumps({"rows": rows, "lengths": lengths, "count": count, "model": args.model or "bundled", **stamp()}))


if __name__ == "__main__":
    main()
