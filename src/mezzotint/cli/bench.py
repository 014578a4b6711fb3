"""Speed side by side: recipes at given prompt lengths, interleaved in one run after a warm-up; or, with --task, quality against seconds.

    mezzotint bench plain threshold dual --lengths 128 1024
    mezzotint bench plain threshold+suffix=dpad:window=64 my.json --task math retrieval --plot frontier.svg
    mezzotint bench plain threshold dual --shape llada-8b --device cuda --replay tokens_per_forward=3.2,answer=197

RECIPE is a name (see `mezzotint recipes`) or a recipe file, changed by fields behind plus signs. Speedups refer to the first.
Tokens per second count the answer before its stop id, not the canvas.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint.cli import options

if TYPE_CHECKING:
    from mezzotint.recipe import Recipe

RECIPES = ("plain", "threshold", "prefix", "dual")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"NAME or FILE.json, with +FIELD=VALUE changes (default: {' '.join(RECIPES)})")
    parser.add_argument("--lengths", type=int, nargs="+", metavar="N", help="prompt lengths in tokens (default: 128)")
    parser.add_argument("--batch", type=int, help="rows at once (default: 1)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="timed runs of each; with --task: passes over the questions, each with its own seed (default: 3)"
    )
    parser.add_argument(
        "--replay", action="append", metavar="[RECIPE:]tokens_per_forward=N[,answer=N]", help="pace and answer's length, for random weights; repeatable"
    )
    parser.add_argument("--shape", metavar="NAME", help="random weights in a checkpoint's shape: llada-8b, dream-7b, or a folder or hub id with a config.json")
    parser.add_argument("--layers", type=int, help="with --shape: only so many layers")
    parser.add_argument("--task", nargs="+", metavar="TASK|FILE", help="also judge answers: built-in tasks, or JSON Lines with prompt, answer and match")
    parser.add_argument("--count", type=int, help="with --task: questions of each (default: 20 of a built-in task, all of a file)")
    parser.add_argument("--out", metavar="FILE.json", help="write the result there as well")
    parser.add_argument("--plot", metavar="FILE", help="draw seconds by length, or quality against seconds (.png, .svg, .pdf; extra `plot`)")
    options.add_json(parser)
    options.add_model(parser)
    options.add_fields(parser.add_argument_group("recipe fields", "set in all recipes"))


def check(args: argparse.Namespace) -> None:
    """Refuse what cannot go together before anything is loaded."""
    for name in ("repeats", "batch", "layers", "count"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    for name in ("model", "rope_scaling", "weights", "mask_id", "block_causal"):
        if args.shape and getattr(args, name) is not None:
            raise ValueError(f"--shape has random weights and a configuration of its own; leave --{name.replace('_', '-')} out")
    if args.layers is not None and not args.shape:
        raise ValueError(f"layers={args.layers} needs --shape")
    if args.task:
        for name in ("shape", "lengths", "batch", "replay"):
            if getattr(args, name) is not None:
                raise ValueError(f"--{name} has no meaning with --task, which puts real questions to real weights, one at a time")
    elif args.count is not None:
        raise ValueError(f"count={args.count} needs --task")
    if args.out and Path(args.out).is_dir():
        raise ValueError(f"out={args.out!r} is a folder; give the name of a file")
    if args.out and not Path(args.out).absolute().parent.is_dir():
        raise ValueError(f"out={args.out!r}: the folder {str(Path(args.out).parent)!r} does not exist")


def run(args: argparse.Namespace) -> int:
    check(args)
    from mezzotint.bench.chosen import chosen
    from mezzotint.bench.plotting import check as check_plot
    from mezzotint.bench.plotting import draw
    from mezzotint.bench.shapes import shape_of
    from mezzotint.models.loading import config_of_checkpoint

    if args.plot:
        check_plot(args.plot)
    config = shape_of(args.shape) if args.shape else config_of_checkpoint(args.model, mask_id=args.mask_id, block_causal=args.block_causal)
    recipes = chosen(args.recipes or RECIPES, options.fields_of(args), config)
    found = judged(args, recipes) if args.task else timed(args, recipes)
    if args.out:
        Path(args.out).write_text(json.dumps(found) + "\n", encoding="utf-8")
    if args.plot:
        draw(found["rows"], args.plot, f"{found['model']} · {found['machine']} · {found['date']}")
    if args.json:
        options.print_json(found)
    else:
        show(found["rows"])
    return 0


def timed(args: argparse.Namespace, recipes: "dict[str, Recipe]") -> dict[str, Any]:
    """Figures by length."""
    from mezzotint.bench.machine import stamp
    from mezzotint.bench.measuring import check as check_replays
    from mezzotint.bench.measuring import compare
    from mezzotint.bench.prompts import prompts
    from mezzotint.bench.replay import parse
    from mezzotint.bench.shapes import random_model, shape_of
    from mezzotint.cli.progress import bar

    replays = parse(args.replay or ())
    tokenizer, lengths, batch = None, args.lengths or [128], args.batch or 1
    shape = shape_of(args.shape) if args.shape else None
    check_replays(recipes, replays, shape is not None)
    if shape is not None:
        model = random_model(shape, device=options.device_of(args), dtype=args.dtype, layers=args.layers)
    else:
        model, tokenizer = options.load(args)
    asked = prompts(lengths, batch, tokenizer=tokenizer, vocabulary=model.config.vocab_size)
    with bar() as progress:
        task = progress.add_task("warm-up", total=len(asked) * len(recipes) * (args.repeats + 1))

        def report(name: str, length: int) -> None:
            progress.update(task, description=f"{name} · {length}")
            progress.advance(task)

        rows = compare(model, recipes, asked, repeats=args.repeats, replays=replays, meaningless=bool(args.shape), report=report)
    dtype = str(model.dtype).removeprefix("torch.")
    name = f"random weights, {args.shape}" + (f", {args.layers} layers" if args.layers else "") if args.shape else args.model or "bundled"
    about = {"model": name, "dtype": dtype, "device": str(model.device), "repeats": args.repeats, "replay": args.replay}
    return {"rows": rows, **about, **(stamp(device=model.device) if args.shape else stamp(model))}


def judged(args: argparse.Namespace, recipes: "dict[str, Recipe]") -> dict[str, Any]:
    """Figures by recipe over the tasks' questions."""
    from mezzotint.bench.chosen import changed
    from mezzotint.bench.contest import contest
    from mezzotint.bench.machine import stamp
    from mezzotint.bench.questions import gather, refuse_unused
    from mezzotint.cli.progress import bar

    questions = gather(args.task, args.count)
    refuse_unused(questions, [*options.fields_of(args), *(field for text in args.recipes for field in changed(text))])
    model, tokenizer = options.load(args)
    with bar() as progress:
        task = progress.add_task("warm-up", total=len(recipes) * (len(questions) * args.repeats + 1))

        def report(name: str) -> None:
            progress.update(task, description=name)
            progress.advance(task)

        rows = contest(model, tokenizer, [questions] * args.repeats, recipes, report=report)
    dtype = str(model.dtype).removeprefix("torch.")
    about = {"model": args.model or "bundled", "dtype": dtype, "device": str(model.device), "tasks": args.task, "seeds": args.repeats}
    return {"rows": rows, **about, **stamp(model)}


def show(rows: list[dict[str, Any]]) -> None:
    """One table of the recipes, or one per length."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    if "exact_match" in rows[0]:
        figures = ("against the first", "seconds", "speedup", "forwards", "positions", "tokens/forward", "tokens/s", "frontier")
        table = Table("recipe", "questions", "exact match", *figures)
        for r in rows:
            low, high = r["against_first"]["ci"]
            table.add_row(
                r["name"],
                str(r["questions"]),
                f"{r['exact_match']:.3f}",
                f"{r['against_first']['mean']:+.3f} [{low:+.3f}, {high:+.3f}]",
                f"{r['seconds']['mean']:.3f}",
                f"{r['speedup']:.2f}",
                f"{r['forwards']:.1f}",
                f"{r['positions_computed']:,.0f}",
                f"{r['tokens_per_forward']:.2f}",
                f"{r['effective_tokens_per_second']:.1f}",
                "•" if r["on_frontier"] else "",
            )
        console.print(table)
        return
    for length in dict.fromkeys(r["length"] for r in rows):
        mine = [r for r in rows if r["length"] == length]
        title = f"prompt of {mine[0]['prompt_tokens']} tokens" + (f", {mine[0]['batch']} rows" if mine[0]["batch"] > 1 else "")
        table = Table("recipe", "seconds", "speedup", "forwards", "positions", "tokens/forward", "tokens/s", "TFLOP", "peak GiB", title=title)
        for r in mine:
            table.add_row(
                r["name"],
                ranged(r["seconds"], 3),
                ranged(r["speedup"], 2),
                f"{r['forwards']:.0f}",
                f"{r['positions_computed']:,.0f}",
                f"{r['tokens_per_forward']:.2f}",
                f"{r['effective_tokens_per_second']:.1f}",
                "" if r["flops"] is None else f"{r['flops'] / 1e12:,.3g}",
                "" if r["peak_bytes"] is None else f"{r['peak_bytes'] / 2**30:.2f}",
            )
        console.print(table)


def ranged(values: dict[str, Any], digits: int) -> str:
    """Median, and lowest to highest."""
    return f"{values['median']:.{digits}f} ({values['low']:.{digits}f}–{values['high']:.{digits}f})"
