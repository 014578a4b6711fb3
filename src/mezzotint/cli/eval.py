"""Quality on the built-in tasks: exact match with its 95 % interval, on held-out questions and on harder ones.

A recipe other than plain decoding is compared with it on the same questions (paired, bootstrap interval).
"""

import argparse
from typing import TYPE_CHECKING, Any

from mezzotint.cli import options

if TYPE_CHECKING:
    from mezzotint.models.transformer import Transformer
    from mezzotint.recipe import Recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="math, retrieval, lists, code, tools, prose")
    parser.add_argument("--all", action="store_true", help="every task")
    parser.add_argument("--count", type=int, default=100, help="questions per task (default: 100)")
    parser.add_argument("--hard-count", type=int, help="harder questions per task (default: a quarter of --count)")
    parser.add_argument("--batch", type=int, default=16, help="questions at once (default: 16)")
    parser.add_argument("--examples", type=int, default=0, metavar="N", help="also print the first N answers of each task")
    options.add_json(parser)
    options.add_model(parser)
    options.add_recipe(parser)


def run(args: argparse.Namespace) -> int:
    from mezzotint.evaluation.tasks import TASKS

    known = [*TASKS, "prose"]
    unknown = [t for t in args.tasks if t not in known]
    if unknown:
        raise ValueError(f"task={unknown[0]!r} is unknown; accepted: {', '.join(known)}")
    if not args.tasks and not args.all:
        raise ValueError(f"name at least one task ({', '.join(known)}) or give --all")
    for name in ("count", "batch"):
        if getattr(args, name) < 1:
            raise ValueError(f"{name}={getattr(args, name)} must be at least 1")
    if args.hard_count is not None and args.hard_count < 0:
        raise ValueError(f"hard_count={args.hard_count} must be 0 or more")
    from mezzotint.cli.progress import bar
    from mezzotint.generation import default_recipe

    model, tokenizer = options.load(args)
    plain = default_recipe(model)
    recipe = options.recipe_of(args, plain)
    same = {"gen_length": recipe.gen_length, "block_length": recipe.block_length, "max_tokens": recipe.max_tokens, "early_stop": recipe.early_stop}
    baseline = plain.with_(**same)
    hard = max(1, args.count // 4) if args.hard_count is None else args.hard_count
    found: dict[str, Any] = {}
    with bar() as progress:
        for task in known if args.all else args.tasks:
            if task == "prose":
                found[task] = prose(model, tokenizer, progress)
            else:
                found[task] = measure(model, tokenizer, task, recipe, baseline, (args.count, hard), args.batch, progress)
    report = {"tasks": found, "recipe": recipe.to_dict(), "model": args.model or "bundled"}
    if recipe != baseline:
        report["compared_with"] = baseline.to_dict()
    if args.json:
        options.print_json(report | {"tasks": {t: {k: v for k, v in f.items() if k != "outcomes"} for t, f in found.items()}})
    else:
        show(found, args.examples)
    return 0


def measure(model: "Transformer", tokenizer: Any, task: str, recipe: "Recipe", baseline: "Recipe", counts: tuple[int, int], batch: int, progress: Any) -> dict:
    """One task's figures: in-length, hard, and against the baseline where the recipe is another."""
    from mezzotint.evaluation.suite import answer, paired, questions, summary

    result: dict[str, Any] = {}
    for hard, count in zip((False, True), counts, strict=True):
        if count == 0:
            continue
        asked = questions(task, count, hard=hard)
        bar = progress.add_task(f"{task}{' (hard)' if hard else ''}", total=count)
        mine = answer(model, tokenizer, asked, recipe, batch=batch, report=lambda done, bar=bar: progress.update(bar, completed=done))
        figures = summary(mine)
        if recipe != baseline:
            bar = progress.add_task(f"{task}, plain", total=count)
            theirs = answer(model, tokenizer, asked, baseline, batch=batch, report=lambda done, bar=bar: progress.update(bar, completed=done))
            figures["plain"] = summary(theirs)
            figures["paired"] = paired([o.right for o in mine], [o.right for o in theirs])
        if hard:
            result["hard"] = figures
        else:
            result = figures | {"outcomes": mine}
    return result


def prose(model: "Transformer", tokenizer: Any, progress: Any) -> dict:
    """Bits per byte of held-out English paragraphs, an upper bound by Monte Carlo."""
    import torch

    from mezzotint.evaluation.likelihood import bits_per_byte, bound
    from mezzotint.evaluation.tasks.prose import paragraphs
    from mezzotint.generation import opening

    texts = paragraphs(evaluation=True)
    first = opening(tokenizer)
    nats, size, tokens = 0.0, 0, 0
    bar = progress.add_task("prose", total=len(texts))
    for seed, text in enumerate(texts):
        ids = torch.tensor(first + tokenizer(text, add_special_tokens=False)["input_ids"])
        nats += bound(model, ids, len(first), seed=seed)
        size += len(text.encode())
        tokens += len(ids) - len(first)
        progress.advance(bar)
    return {"bits_per_byte": bits_per_byte(nats, size), "perplexity_per_token": float(torch.tensor(nats / tokens).exp()), "count": len(texts)}


def show(found: dict[str, Any], examples: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table("task", "exact match", "95 % interval", "questions", "forwards", "against plain")
    for task, figures in found.items():
        if task == "prose":
            table.add_row(task, f"{figures['bits_per_byte']:.3f} bits/byte", "", str(figures["count"]), "", "")
            continue
        for name, part in ((task, figures), (f"{task} (hard)", figures.get("hard"))):
            if part:
                against = part.get("paired")
                change = f"{against['difference']:+.3f} [{against['ci'][0]:+.3f}, {against['ci'][1]:+.3f}]" if against else ""
                low, high = part["ci"]
                table.add_row(name, f"{part['exact_match']:.3f}", f"{low:.3f} – {high:.3f}", str(part["count"]), str(part["forwards"]), change)
        for outcome in figures["outcomes"][:examples]:
            console.print(Text.assemble((f"{task} ", "green" if outcome.right else "red"), repr(outcome.example.prompt or outcome.example.document)))
            console.print(Text(f"    {outcome.text!r}"))
    console.print(table)
