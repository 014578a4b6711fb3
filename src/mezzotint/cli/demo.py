"""The bundled model answers held-out questions with plain decoding and with faster recipes, side by side."""

import argparse

from mezzotint.cli import options

RECIPES = ("plain", "threshold", "dual", "fast")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--questions", type=int, default=12, metavar="N", help="how many questions (default: 12)")
    parser.add_argument(
        "--recipes", default=",".join(RECIPES), metavar="NAMES", help=f"recipes (names or files), comma-separated (default: {','.join(RECIPES)})"
    )
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    names = [name for name in args.recipes.split(",") if name]
    if not names:
        raise ValueError("recipes is empty; give at least one named recipe, e.g. --recipes plain,threshold")
    if args.questions < 1:
        raise ValueError(f"questions={args.questions} must be at least 1")
    import mezzotint as mz
    from mezzotint.cli.progress import bar
    from mezzotint.evaluation.suite import answer, questions
    from mezzotint.evaluation.tasks import TASKS
    from mezzotint.recipes import named_or_file

    recipes = {name: named_or_file(name).recipe for name in names}
    model, tokenizer = mz.load()
    each = -(-args.questions // len(TASKS))
    asked = [q for group in zip(*(questions(task, each) for task in TASKS), strict=True) for q in group][: args.questions]
    mz.generate(model, tokenizer, "Copy these words: amber coral", mz.Recipe(gen_length=32))  # warm-up, not counted
    outcomes = {name: [] for name in recipes}
    with bar() as progress:
        task = progress.add_task("answering", total=len(asked) * len(recipes))
        for question in asked:
            for name, recipe in recipes.items():
                progress.update(task, description=f"{question.task} · {name}")
                outcomes[name] += answer(model, tokenizer, [question], recipe)
                progress.advance(task)
    totals = {
        name: {
            "right": sum(o.right for o in found),
            "total": len(found),
            "seconds": sum(o.seconds for o in found),
            "forwards": sum(o.forwards for o in found),
            "positions_computed": sum(o.positions for o in found),
        }
        for name, found in outcomes.items()
    }
    if args.json:
        options.print_json({"recipes": totals})
        return 0
    show(outcomes, totals)
    return 0


def show(outcomes: dict, totals: dict) -> None:
    """The table of questions and answers, and under it what each recipe cost."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table("question", "answer", *(f"{name}\nforwards" for name in outcomes), title="Held-out questions, answered by the bundled model")
    first = next(iter(outcomes.values()))
    for row, outcome in enumerate(first):
        example = outcome.example
        asked = example.document[: example.gap[0]] + "▁▁▁" + example.document[example.gap[1] :] if example.document else example.prompt
        shown = asked if len(asked) <= 160 else "… " + asked[-158:]
        marks = [Text(f"{'✓' if o[row].right else '✗'} {o[row].forwards}", "green" if o[row].right else "red") for o in outcomes.values()]
        table.add_row(Text(shown.strip()), Text(outcome.text.strip()), *marks)
    console.print(table)
    totals_table = Table("recipe", "right", "forwards", "positions computed", "seconds")
    for name, t in totals.items():
        totals_table.add_row(name, f"{t['right']}/{t['total']}", str(t["forwards"]), f"{t['positions_computed']:,}", f"{t['seconds']:.2f}")
    console.print(totals_table)
