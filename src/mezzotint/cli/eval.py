"""Quality of a model under a recipe: built-in tasks, public benchmarks, perplexity, long contexts, or lm-evaluation-harness.

Built-in tasks (--all) need no data and are compared with plain decoding on the same questions when the recipe is another. `mezzotint eval --list` names
everything. With --out, predictions are kept in FOLDER/predictions.jsonl, a killed run resumes from there, and --score computes the figures anew.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint.cli import options
from mezzotint.evaluation.item import OF_ANSWERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from mezzotint.evaluation.item import Benchmark, Settings
    from mezzotint.evaluation.predictions import Conditions
    from mezzotint.recipe import Recipe

COUNT, HARD_COUNT = 16, 4
"""Questions per built-in task unless told otherwise."""

ASKED = ("count", "hard_count", "data", "split", "shots", "samples", "lengths", "window", "context", "cfg_scale", "chat", "batch")
"""Options that only some tasks take."""

MEANT = {
    "all": ("recipe", "against", *options.RECIPE_FIELDS),
    "gaps": ("recipe", "against", *(name for name in options.RECIPE_FIELDS if name not in OF_ANSWERS)),
    "suffix": ("recipe", "against", "gen_length", "block_length", "suffix"),
    "nothing": (),
}
"""What a benchmark depends on of a recipe -> the options that choose it."""

WHY = {"gaps": "fill gaps, whose sizes are given", "suffix": "ask a recipe only for its canvas and suffix", "nothing": "measure the model whatever the recipe"}
"""Why the other options mean nothing to it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="math, retrieval, lists, code, tools, prose, gsm8k, humaneval, ... (see --list)")
    parser.add_argument("--all", action="store_true", help="every built-in task")
    parser.add_argument("--list", action="store_true", help="name every task and preset and leave")
    parser.add_argument("--count", type=int, help=f"questions per task, built-in: {COUNT}, others: all they have (ruler: of each kind and length, 20)")
    parser.add_argument("--hard-count", type=int, help=f"harder questions per built-in task (default: a quarter of --count, {HARD_COUNT} of {COUNT})")
    parser.add_argument("--batch", type=int, help="questions at once (default: 16, on a CPU 1: a row that has ended still costs until its batch ends)")
    parser.add_argument("--seed", type=options.seed, default=0, help="of every random draw (default: 0)")
    parser.add_argument("--examples", type=int, default=0, metavar="N", help="also print the first N answers of each task")
    parser.add_argument("--against", metavar="RECIPE", help="compare with this recipe on the same questions: a name, a JSON file or none (built-in: plain)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep predictions.jsonl and report.json there; a killed run resumes")
    parser.add_argument(
        "--score", nargs="+", type=Path, metavar="FILE", help="score predictions files instead of running a model; several runs of a task are paired"
    )
    group = parser.add_argument_group("benchmarks", "what the public benchmarks take; not every one takes each")
    group.add_argument("--preset", metavar="NAME", help="published settings for the task: llada-base, llada-instruct, dream-base, ... (see --list)")
    group.add_argument("--data", metavar="PATH|HUB_ID", help="a file, a folder with one file per split, or a hub id (default: the benchmark's own on the hub)")
    group.add_argument("--split", help="which part of the data (default: test)")
    group.add_argument("--shots", type=int, help="worked examples in the prompt")
    group.add_argument("--chat", choices=("yes", "no"), help="put the prompt into a user turn (default: if the tokenizer has a template; with --harness: no)")
    group.add_argument("--samples", type=int, help="Monte-Carlo draws per likelihood (default: 32)")
    group.add_argument("--lengths", metavar="N,N", help="ruler: total lengths in tokens (default: 4096, or the model's context if that is shorter)")
    group.add_argument("--window", type=int, help="wikitext: tokens scored together")
    group.add_argument("--context", type=int, help="wikitext: tokens of context before them")
    group.add_argument("--harness", metavar="TASKS", help="run tasks of lm-evaluation-harness instead, comma-separated (extra: eval)")
    group.add_argument("--include-path", type=Path, metavar="FOLDER", help="with --harness: a folder of further task files")
    group.add_argument("--unsafe-code", action="store_true", help="with --harness: allow its tasks that run generated code, outside our sandbox")
    options.add_json(parser)
    options.add_model(parser)
    options.add_recipe(parser)


def run(args: argparse.Namespace) -> int:
    for name, least in (("count", 1), ("batch", 1), ("samples", 1), ("hard_count", 0), ("examples", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise ValueError(f"{name}={value} must be {'at least 1' if least else '0 or more'}")
    if args.list:
        return listing(args.json)
    if args.score:
        refuse(args, [name for name in given(args) if name not in ("score", "json")], "with --score, which needs predictions files alone")
        return score(args)
    if args.harness:
        return harness(args)
    for name in ("include_path", "unsafe_code"):
        if getattr(args, name):
            raise ValueError(f"--{name.replace('_', '-')} belongs to --harness; leave it out")
    return evaluate(args)


def given(args: argparse.Namespace) -> list[str]:
    """The options whose values are not the usual ones."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return [name for name, usual in vars(parser.parse_args([])).items() if getattr(args, name) != usual]


def takes(benchmark: "Benchmark", option: str) -> bool:
    """Whether an option of `ASKED` means something to a benchmark. Only questions are asked several at once."""
    return option in benchmark.uses or benchmark.recipe in {"cfg_scale": ("all", "gaps"), "batch": ("all",)}.get(option, ())


def refuse(args: argparse.Namespace, names: list[str], why: str) -> None:
    """Raises ValueError for the first of the options, if there is one."""
    if names:
        raise ValueError(f"{names[0]}={getattr(args, names[0])!r} means nothing {why}; leave it out")


def evaluate(args: argparse.Namespace) -> int:
    import dataclasses

    from mezzotint.evaluation.benchmarks import BENCHMARKS
    from mezzotint.evaluation.scoring import benchmark_of
    from mezzotint.evaluation.tasks import TASKS

    names = list(dict.fromkeys(args.tasks + ([*TASKS, "prose"] if args.all else [])))
    if not names:
        raise ValueError(f"name at least one task ({', '.join([*TASKS, *BENCHMARKS])}) or give --all")
    chosen = {task: benchmark_of(task) for task in names}
    for option in ASKED:
        if getattr(args, option, None) is not None and not any(takes(b, option) for b in chosen.values()):
            takers = ", ".join(n for n in [*TASKS, *BENCHMARKS] if takes(benchmark_of(n), option))
            raise ValueError(f"{option}={getattr(args, option)!r} means nothing to {', '.join(names)}; it is for {takers}")
    meant = {field for benchmark in chosen.values() for field in MEANT[benchmark.recipe]}
    for field in MEANT["all"]:
        if getattr(args, field) is not None and field not in meant and field != "cfg_scale":
            why = " or ".join(reason for kind, reason in WHY.items() if any(b.recipe == kind for b in chosen.values()))
            raise ValueError(f"--{field.replace('_', '-')} means nothing to {', '.join(names)}, which {why}; leave it out")
    from mezzotint.cli.progress import bar
    from mezzotint.evaluation.evaluating import Evaluation, refuse_unconfined
    from mezzotint.evaluation.predictions import Store

    for task, benchmark in chosen.items():
        refuse_unconfined(task, benchmark)
    if args.preset:
        from mezzotint.evaluation.presets import preset

        for task in names:
            preset(args.preset, task)
    model, tokenizer = options.load(args)
    found: dict[str, Any] = {}
    examples: dict[str, list[tuple[str, str, bool]]] = {}
    with Store(args.out / "predictions.jsonl" if args.out else None) as store, bar() as progress:
        evaluations: dict[str, Evaluation] = {}
        for task in names:
            recipe, settings = asked(args, task, model)
            hard = max(1, settings.count // 4) if args.hard_count is None and settings.count else args.hard_count or 0
            other = rival(args, task, recipe, model)
            batch = batch_of(args.batch if takes(chosen[task], "batch") else None, model)
            evaluations[task] = Evaluation(model, tokenizer, recipe, settings, store, args.model or "bundled", other, hard, batch)
        items = {task: evaluation.items(task) for task, evaluation in evaluations.items()}  # of all before the first is answered, which may take hours
        for task, evaluation in evaluations.items():
            figures, said, scored = evaluation.run(task, lambda what, total: watch(progress, what, total), items[task])
            found[task] = figures
            right = [bool(next(iter(s.values()))) for s in scored]
            examples[task] = [(p.id, str(p.said.get("text", p.said)), r) for p, r in zip(said, right, strict=True)][: args.examples]
    report: dict[str, Any] = {"tasks": found, "recipe": common({task: e.recipe.to_dict() for task, e in evaluations.items()})}
    report["settings"] = common({task: dataclasses.asdict(e.settings) for task, e in evaluations.items()})
    if against := {task: e.against.to_dict() for task, e in evaluations.items() if e.against is not None}:
        report["compared_with"] = common(against)
    report |= about(args, model)
    keep(args.out, report)
    if args.json:
        options.print_json(report)
    else:
        show(found, examples)
    return 0


def common(of: dict[str, Any]) -> Any:
    """What all tasks have in common, or else each task's own by its name."""
    first, *rest = of.values()
    return first if all(value == first for value in rest) else of


def about(args: argparse.Namespace, model: Any) -> dict[str, Any]:
    """What a report says of the model and of where its figures were made."""
    from mezzotint.bench.machine import stamp
    from mezzotint.evaluation.predictions import versions

    held = {"dtype": str(model.dtype).removeprefix("torch."), "device": str(model.device)}
    return {"model": args.model or "bundled", "seed": args.seed, "batch": batch_of(args.batch, model), **held, **stamp(model), **versions()}


def keep(out: Path | None, report: dict[str, Any]) -> None:
    """Write report.json beside the predictions."""
    import json

    if out:
        (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def batch_of(given: int | None, model: Any) -> int:
    """Questions at once; None: as many as suit the device."""
    return given or (1 if model.device.type == "cpu" else 16)


def asked(args: argparse.Namespace, task: str, model: Any) -> "tuple[Recipe, Settings]":
    """The recipe and the settings of one task: the preset's, changed by what was given, of `ASKED` only by what the task takes."""
    import dataclasses

    from mezzotint.evaluation.item import Settings
    from mezzotint.evaluation.presets import preset
    from mezzotint.evaluation.scoring import benchmark_of
    from mezzotint.evaluation.tasks import TASKS
    from mezzotint.generation import default_recipe

    given = {name: getattr(args, name) for name in ASKED if getattr(args, name) is not None and takes(benchmark_of(task), name)}
    published = preset(args.preset, task) if args.preset else None
    recipe = options.recipe_of(args, published.recipe if published else default_recipe(model), model.config)
    settings = Settings(seed=args.seed, count=given.get("count", COUNT if task in TASKS else None), lengths=(min(4096, model.config.max_length),))
    changes = dict(published.settings) if published else {}
    changes |= {name: given[name] for name in ("data", "split", "shots", "samples", "window", "context") if name in given}
    if "chat" in given:
        changes["chat"] = args.chat == "yes"
    if "cfg_scale" in given:
        changes["cfg_scale"] = recipe.cfg_scale
    if "lengths" in given:
        try:
            changes["lengths"] = tuple(int(part) for part in args.lengths.split(","))
        except ValueError:
            raise ValueError(f"lengths={args.lengths!r} must be numbers of tokens with commas between them, such as 4096,8192") from None
    return recipe, dataclasses.replace(settings, **changes)


def rival(args: argparse.Namespace, task: str, recipe: "Recipe", model: Any) -> "Recipe | None":
    """What the recipe is compared with, decoded at the same lengths; None for nothing."""
    from mezzotint.evaluation.tasks import TASKS
    from mezzotint.generation import default_recipe

    if args.against == "none" or (args.against is None and task not in TASKS):
        return None
    if args.against is None:
        other = default_recipe(model)
    else:
        empty = argparse.Namespace(recipe=args.against, **dict.fromkeys(options.RECIPE_FIELDS))
        other = options.recipe_of(empty, recipe)
    same = {name: getattr(recipe, name) for name in ("gen_length", "block_length", "max_tokens", "early_stop")}
    other = other.with_(**same)
    return other if other != recipe or args.against is not None else None


def watch(progress: Any, what: str, total: int) -> "Callable[[int], None]":
    bar = progress.add_task(what, total=total)
    return lambda done: progress.update(bar, completed=done)


def score(args: argparse.Namespace) -> int:
    """Figures from predictions files alone."""
    from mezzotint.cli.progress import bar
    from mezzotint.evaluation.evaluating import rescore

    with bar() as progress:
        found = rescore(args.score, lambda what, total: watch(progress, what, total))
    if args.json:
        runs = [{"task": c.task, "run": c.run, "model": c.model, "recipe": c.recipe, "settings": c.settings, "figures": figures} for c, figures in found]
        options.print_json({"runs": runs})
    else:
        labels = {c.run: f"{c.task} · {c.model['name']} · {c.run[:6]}" for c, _ in found}
        show({labels[c.run]: figures for c, figures in found}, {}, {labels[c.run]: apart(c, [other for other, _ in found]) for c, _ in found})
    return 0


def apart(run: "Conditions", runs: "list[Conditions]") -> list[str]:
    """What tells a run from the others of its task; of one that is alone, what its recipe has changed of the plain one."""
    from mezzotint.evaluation.scoring import benchmark_of
    from mezzotint.recipe import Recipe

    alike = [flat(other) for other in runs if other.task == run.task]
    if len(alike) > 1:
        return [f"{name}={value}" for name, value in flat(run).items() if any(other.get(name) != value for other in alike)]
    if benchmark_of(run.task).recipe == "nothing":
        return []
    usual = Recipe().to_dict()
    return [f"{name}={value}" for name, value in run.recipe.items() if value != usual.get(name)] or ["the plain recipe"]


def flat(run: "Conditions") -> dict[str, Any]:
    """The conditions of a run under the names of their fields, the recipe's first."""
    return {name: value for part in (run.recipe, run.settings, run.model, run.versions, {"batch": run.batch}) for name, value in part.items()}


def harness(args: argparse.Namespace) -> int:
    """Tasks of lm-evaluation-harness under our models and recipes."""
    from mezzotint.cli.progress import bar
    from mezzotint.evaluation.predictions import Store
    from mezzotint.evaluation.presets import PRESETS
    from mezzotint.generation import default_recipe

    tasks = [name for name in args.harness.split(",") if name]
    for task in tasks:
        if published := PRESETS.get(args.preset, {}).get(task):
            raise ValueError(f"preset={args.preset!r} is for the built-in {task}; with --harness give the options it stands for: {published.options}")
    own = ("tasks", "all", "preset", "data", "split", "lengths", "window", "context", "hard_count", "against", "examples")
    refuse(args, [name for name in given(args) if name in own], "with --harness, whose tasks bring their own")
    from mezzotint.evaluation.harness import refuse_synthetic, run_harness

    refuse_synthetic(tasks)
    model, tokenizer = options.load(args)
    recipe = options.recipe_of(args, default_recipe(model), model.config)
    with Store(args.out / "predictions.jsonl" if args.out else None) as store, bar() as progress:
        report = run_harness(
            tasks,
            model,
            tokenizer,
            recipe,
            store,
            name=args.model or "bundled",
            samples=32 if args.samples is None else args.samples,
            batch=batch_of(args.batch, model),
            seed=args.seed,
            limit=args.count,
            shots=args.shots,
            chat=args.chat == "yes",
            include_path=args.include_path,
            unsafe_code=args.unsafe_code,
            given=[name for name in MEANT["all"] if getattr(args, name) is not None],
            watch=lambda what, total: watch(progress, what, total),
        )
    report |= {"recipe": recipe.to_dict(), **about(args, model)}
    keep(args.out, report)
    if args.json:
        options.print_json(report)
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table("task", "metric", "value", "standard error", "questions")
        for task, metrics in report["harness"].items():
            for metric, value in metrics.items():
                if isinstance(value, (int, float)) and "_stderr" not in metric and metric != "count":
                    name, _, chain = metric.partition(",")
                    error = metrics.get(f"{name}_stderr,{chain}")
                    table.add_row(task, metric, f"{value:.4f}", f"{error:.4f}" if isinstance(error, float) else "", str(metrics.get("count", "")))
        Console().print(table)
    return 0


def listing(json: bool) -> int:
    """Every task with what it is, and the presets."""
    from mezzotint.evaluation.benchmarks import BENCHMARKS
    from mezzotint.evaluation.presets import PRESETS
    from mezzotint.evaluation.scoring import benchmark_of
    from mezzotint.evaluation.tasks import TASKS

    about = {task: (module.__doc__ or "").splitlines()[0] for task, module in TASKS.items()} | {name: b.about for name, b in BENCHMARKS.items()}
    if json:
        presets = {
            name: {task: {"recipe": p.recipe.to_dict(), "settings": p.settings, "published": p.published, "source": p.source} for task, p in tasks.items()}
            for name, tasks in PRESETS.items()
        }
        options.print_json({"tasks": about, "presets": presets})
        return 0
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("task", "what it is", "options of its own")
    for name, text in about.items():
        table.add_row(name, text, ", ".join(f"--{use.replace('_', '-')}" for use in benchmark_of(name).uses))
    console.print(table)
    table = Table("preset", "task", "recipe and settings", "published", "source")
    for name, tasks in PRESETS.items():
        for task, p in tasks.items():
            table.add_row(name, task, p.options, p.published, p.source)
    console.print(table)
    return 0


def show(found: dict[str, Any], examples: dict[str, list[tuple[str, str, bool]]], about: "dict[str, list[str]] | None" = None) -> None:
    """The table of all figures. about: lines under a task's own."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    console = Console()
    whole = [Column(name, no_wrap=True) for name in ("task", "figure", "95 % interval", "n", "forwards")]
    table = Table(*whole, "compared")
    for task, figures in found.items():
        for name, part in [(task, figures), (f"{task} (hard)", figures.get("hard")), *((f"  {n}", p) for n, p in figures.get("parts", {}).items())]:
            if part:
                rows(table, name, part)
            for text in (about or {}).get(task, []) if part is figures else ():
                table.add_row(f"  {text}")
        for id, text, right in examples.get(task, []):
            console.print(Text.assemble((f"{task} {id} ", "green" if right else "red"), repr(text)))
    console.print(table)


def rows(table: Any, name: str, part: dict[str, Any]) -> None:
    """The chief figure with its interval and the comparison; the other figures on lines of their own."""
    skipped = ("ci", "count", "forwards", "positions_computed", "seconds", "tokens", "hard", "parts", "compared", "paired", "unpaired")
    chief, *others = [(figure, value) for figure, value in part.items() if figure not in skipped]
    low, high = part.get("ci") or (None, None)
    against = part.get("paired")
    change = part.get("unpaired", "")
    if against:
        other = f"with {against['against'][:6]}: " if "against" in against else ""
        change = f"{other}{against['figure'].replace('_', ' ')} {against['difference']:+.3f} "
        change += "[{:+.3f}, {:+.3f}]".format(*against["ci"]) if against["ci"] else "(one question: no interval)"
        change += f", {against['changed']} {'verdicts' if against['figure'] == 'exact_match' else 'figures'} and {against['answers_changed']} answers changed"
    label = name if chief[0] == "exact_match" else f"{name} {chief[0].replace('_', ' ')}"
    table.add_row(label, f"{chief[1]:.3f}", f"{low:.3f} – {high:.3f}" if low is not None else "", str(part["count"]), str(part["forwards"] or ""), change)
    for figure, value in others:
        table.add_row(f"    {figure.replace('_', ' ')}", f"{value:.3f}")
