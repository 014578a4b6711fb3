"""Find the fastest recipe that keeps the quality on your questions, and write it as a recipe file.

    mezzotint tune GSAI-ML/LLaDA-8B-Instruct --task questions.jsonl --max-loss 0.5 --out swift.json
    mezzotint generate "..." --model GSAI-ML/LLaDA-8B-Instruct --recipe swift.json

Combinations of commit rule, cache, suffix and (for long prompts) sparse attention compete by successive halving with the recipe given (default: the family's
plain decoding), on two thirds of the questions; what is found must keep the quality on the last third as well, which chooses among the last few. The named
recipes' strategies are among the combinations. The canvas and the sampling stay.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from mezzotint.cli import options

COUNT = 60
"""Questions of a built-in task unless told otherwise."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--task", nargs="+", required=True, metavar="TASK|FILE", help="built-in tasks, or JSON Lines with prompt, answer and match")
    parser.add_argument("--count", type=int, help=f"questions of each task (default: {COUNT} of a built-in task, all of a file)")
    parser.add_argument("--max-loss", type=float, default=0.5, metavar="POINTS", help="points of exact match that may be lost (default: 0.5)")
    parser.add_argument("--by", default="seconds", metavar="WHAT", help="what is to be small: seconds, positions or forwards (default: seconds)")
    parser.add_argument("--minutes", type=float, metavar="M", help="how long the search may take; each rung gets an equal share (default: no limit)")
    parser.add_argument("--out", default="tuned.json", metavar="FILE.json", help="where the recipe is written (default: tuned.json); its name is the recipe's")
    options.add_json(parser)
    options.add_place(parser.add_argument_group("model"))
    options.add_recipe(parser)


def run(args: argparse.Namespace) -> int:
    out = Path(args.out)
    if out.suffix != ".json":
        raise ValueError(f"out={args.out!r} must end in .json")
    if out.exists():
        raise ValueError(f"out={args.out!r} exists; give another name")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"out={args.out!r}: the folder {str(out.parent)!r} does not exist")
    if args.count is not None and args.count < 1:
        raise ValueError(f"count={args.count} must be at least 1")
    if args.minutes is not None and not 0 < args.minutes < float("inf"):
        raise ValueError(f"minutes={args.minutes} must be above 0")
    if not 0 <= args.max_loss <= 100:
        raise ValueError(f"max_loss={args.max_loss} must lie between 0 and 100 points")
    from mezzotint.bench.machine import stamp
    from mezzotint.bench.questions import gather, refuse_unused
    from mezzotint.bench.tuning import MEASURES, space, tune, work
    from mezzotint.cli.progress import bar
    from mezzotint.generation import default_recipe, encode
    from mezzotint.recipes import Named

    if args.by not in MEASURES:
        raise ValueError(f"by={args.by!r} is unknown; accepted: {', '.join(MEASURES)}")
    questions = gather(args.task, args.count, COUNT)
    refuse_unused(questions, options.fields_of(args))
    model, tokenizer = options.load(args)
    reference = options.recipe_of(args, default_recipe(model), model.config)
    longest = max((len(encode(tokenizer, q.prompt)) for q in questions if q.prompt), default=0)
    candidates = space(reference, longest, model.device.type)
    with bar() as progress:
        task = progress.add_task("reference", total=work(len(candidates), len(questions)))

        def report(name: str) -> None:
            progress.update(task, description=name[:60])
            progress.advance(task)

        seconds = None if args.minutes is None else 60 * args.minutes
        found = tune(model, tokenizer, questions, reference, candidates, max_loss=args.max_loss, measure=args.by, seconds=seconds, report=report)
    here = stamp(device=model.device)
    check = found.check
    source = (
        f"mezzotint tune {args.model or 'bundled'} on {' '.join(args.task)} --max-loss {args.max_loss:g}: {lost(check)}, {check['exact_match']:.3f} against "
        f"{check['reference']:.3f}, and {check['speedup']:.1f} times as fast on {check['questions']} questions kept out of the search "
        f"except for its last choice, among {found.finalists} ({here['machine']}, {here['date']})"
    )
    named = Named(found.recipe, source, out.stem)
    out.write_text(json.dumps(named.to_dict(), indent=1) + "\n", encoding="utf-8")
    if args.json:
        options.print_json({**dataclasses.asdict(found), "recipe": found.recipe.to_dict(), "out": args.out, "reference": reference.to_dict(), **here})
    else:
        show(found, args.out)
    return 0


def lost(check: dict[str, Any]) -> str:
    """The loss as it was seen, and how much it may be."""
    low, high = check["ci"]
    return f"{check['loss']:.1f} points lost (95 % interval {low:.1f} to {high:.1f})"


def show(found: Any, out: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    steps = ", ".join(f"{rung['recipes']} on {rung['questions']} questions" for rung in found.rungs)
    table = Table("recipe", "exact match", "points lost", "95 % interval", "speedup", "forwards", title=f"nobody beats these in both ({steps})")
    for row in found.frontier:
        low, high = row["ci"]
        table.add_row(
            row["name"], f"{row['exact_match']:.3f}", f"{row['loss']:.1f}", f"{low:.1f} to {high:.1f}", f"{row['speedup']:.2f}", f"{row['forwards']:.1f}"
        )
    console.print(table)
    check = found.check
    console.print(f"chosen: {found.name}", highlight=False)
    console.print(
        f"on {check['questions']} questions kept out of the search except for its last choice, among {found.finalists}: "
        f"{check['exact_match']:.3f} against {check['reference']:.3f}, "
        f"{lost(check)}, {check['speedup']:.2f} times as fast",
        highlight=False,
    )
    console.print(f"written: {out}", highlight=False)
