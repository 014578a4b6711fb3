"""Pages that the site takes from the program itself while it is built: the overview of methods, the named recipes, the commands, and what was measured."""

import argparse
import dataclasses
import inspect
import json
import re
import runpy
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
KINDS = {
    "commit": "Which predictions become tokens",
    "suffix": "Which masks ahead may be seen",
    "cache": "What is computed anew",
    "attention": "Who looks at whom",
}
MEASURED = "<!-- measured -->"
MOST_ROWS = 5
"""Of one result on one method's page: those that change least beside the method."""
FEWEST_QUESTIONS = 20
"""A row that rests on fewer is counted, not quoted."""


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages that the program writes."""
    for uri, content in (("methods/index.md", methods()), ("recipes.md", recipes()), ("commands.md", commands())):
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Where a page says so, what the results have on the strategies, results and rows that its front matter names."""
    return markdown.replace(MEASURED, measured(*(page.meta.get(name, []) for name in ("strategies", "results", "rows"))))


def first_sentence(text: str | None) -> str:
    """A docstring's first sentence, on one line."""
    opening = " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())
    return re.split(r"(?<=\.)\s(?=[A-Z])", opening, maxsplit=1)[0]


def documented() -> dict[str, str]:
    """Class -> the page that has it."""
    found = {}
    for path in sorted((ROOT / "docs" / "methods").glob("*.md")):
        for name in re.findall(r"^::: mezzotint\.(?:\w+\.)*(\w+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
            found[name] = path.name
    return found


def methods() -> str:
    """Every registered strategy with its fields, linked to its page; those without one are described at the end."""
    from mezzotint.strategies import KINDS as registries

    pages, lines, orphans = documented(), ["# Methods", ""], []
    lines += ["A recipe names one strategy of each kind. As text they are `name:field=value,field=value`; what is left out has the default shown.", ""]
    for kind, registry in registries.items():
        lines += [f"## {KINDS.get(kind, kind)}: `{kind}`", "", "| as text | what it does |", "|---|---|"]
        for name, cls in registry.items():
            fields = ",".join(f"{f.name}={f.default}" for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING)
            text = f"`{name}:{fields}`" if fields else f"`{name}`"
            if cls.__name__ not in pages:
                orphans.append(cls)
            link = f"[{cls.__name__}]({pages[cls.__name__]})" if cls.__name__ in pages else f"[{cls.__name__}][{cls.__module__}.{cls.__name__}]"
            lines.append(f"| {text} | {link}: {first_sentence(cls.__doc__)} |")
        lines.append("")
    if orphans:
        lines += ["## Without a page of their own", ""]
        lines += [line for cls in orphans for line in (f"::: {cls.__module__}.{cls.__name__}", "")]
    return "\n".join(lines)


def recipes() -> str:
    """The named recipes with their sources."""
    from mezzotint.recipes import RECIPES

    lines = ["# Named recipes", ""]
    lines += [
        "`--recipe NAME` where a command decodes (`generate`, `infill`, `eval`, `tune`, `serve`; `bench` takes the names themselves), `mz.named(NAME)` in"
    ]
    lines += ["Python; fields given beside it override it.", ""]
    lines += ["| name | sets | source |", "|---|---|---|"]
    lines += [f"| `{name}` | {f'`{entry.recipe}`' if str(entry.recipe) else 'the defaults'} | {entry.source} |" for name, entry in RECIPES.items()]
    lines += [
        "",
        "A recipe file stands wherever a name does on the command line. It is a JSON object: `name`, `source` and `recipe` (the fields), or the fields alone.",
        "",
    ]
    lines += [
        "```json",
        json.dumps({"name": "swift", "source": "measured at home", "recipe": {"commit": "threshold:tau=0.8", "cache": "dual"}}, indent=1),
        "```",
    ]
    return "\n".join(lines)


def commands() -> str:
    """Every command with its options, as the parser has them."""
    from mezzotint.cli import parser

    top = parser()
    subs = next(action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    lines = ["# Commands", "", "Bad input is one line on stderr and exit code 2. With `--json` stdout holds one JSON object and nothing else.", ""]
    for name, sub in subs.choices.items():
        lines += [f"## mezzotint {name}", "", inspect.cleandoc(sub.description or ""), "", "| option | what it does |", "|---|---|"]
        for action in sub._actions:
            if isinstance(action, argparse._HelpAction):
                continue
            metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
            option = ", ".join(action.option_strings) if action.option_strings else metavar
            value = f" {metavar}" if action.option_strings and action.nargs != 0 else ""
            help = (action.help or "").replace("%%", "%")
            lines.append(f"| `{option}{value}` | {escaped(help)} |")
        lines.append("")
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Text whose brackets and bars Markdown leaves alone."""
    return re.sub(r"([\[\]|<>*])", r"\\\1", text)


def measured(strategies: list[str], results: list[str], names: list[str]) -> str:
    """A table of the newest results' rows whose recipe has one of the strategies (`cache=dual`) or that bear one of the names, and links to all results that
    have such rows or are named."""
    report = runpy.run_path(str(ROOT / "benchmarks" / "report.py"))
    parts = report["newest"](ROOT / "benchmarks" / "results")
    old, lines, links = report["earlier"](parts), [], []
    for part, path in parts.items():
        found = json.loads(path.read_text(encoding="utf-8"))
        link = f"[{part.replace('-', ' ')}](../benchmarks.md#{part})" + " (earlier weights)" * (part in old)
        rows = [row for row in rows_of(found) if has(row, strategies) or row.get("name") in names]
        telling = [(row, cells) for row in rows if (cells := described(row, found))]
        shown = sorted(telling, key=lambda pair: pair[0].get("recipe", "").count("--"))[:MOST_ROWS]
        lines += [f"| {' | '.join([link, *cells])} |" for row, cells in telling if (row, cells) in shown]
        left, named = len(rows) - len(shown), any(name in part for name in results)
        notes = [f"{left} {'more ' * bool(shown)}row{'s' * (left != 1)}"] * bool(left) + (facts(found) if named else [])
        links += ["* " + ": ".join([link, "; ".join(notes)] if notes else [link])] * bool(notes or (named and not shown))
    if lines:
        lines = ["| result | row | right | against the result's first row | speed |", "|---|---|---|---|---|", *lines, ""]
    return "\n".join([*lines, *links]).rstrip() or "Nothing measured here is about it alone yet; the command below asks your own machine."


def rows_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    """A result's rows; of one that compares arms by task (`sparsed_quality.py`) a row per arm over all tasks, with what some task says of its recipe."""
    arms = found.get("all", {})
    by_task = {name: figures for task in found["tasks"].values() for name, figures in task.items()} if arms else {}
    return [*found.get("rows", ()), *({**by_task[name], "name": name, **figures} for name, figures in arms.items())]


def has(row: dict[str, Any], strategies: list[str]) -> bool:
    """Whether a row's recipe names one of the strategies, or its arm has that attention."""
    from mezzotint.attention import ATTENTIONS

    words, pairs = f" {row.get('recipe', '')} ", [strategy.split("=", 1) for strategy in strategies]
    classes = {ATTENTIONS[name].__name__ for kind, name in pairs if kind == "attention"}
    return row.get("attention", "").split("(")[0] in classes or any(re.search(rf" --{kind} {re.escape(name)}[ :]", words) for kind, name in pairs)


def described(row: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """One row of a result as cells: its name, how much of how many questions is right, the difference from the first row, the speed; empty where there is
    neither a verdict nor a speed, or where the questions are few."""
    from mezzotint.evaluation.intervals import wilson

    questions = next((source[name] for source in (row, found) for name in ("questions", "count") if name in source), 0)
    right, speedup = row.get("exact_match"), row.get("speedup")
    against = next((value for name, value in row.items() if name.startswith("against_")), None)
    if (right is None and speedup is None) or (right is not None and questions < FEWEST_QUESTIONS):
        return []
    cells = [f"`{row.get('name', row.get('recipe'))}`".replace("|", "\\|") + (f", prompt of {row['length']:,} tokens" if "length" in row else ""), "", "", ""]
    if right is not None:
        ends = wilson(round(right * questions), questions)
        cells[1] = "{:.1f} % of {:,} [{:.1f}, {:.1f}]".format(100 * right, questions, *(100 * end for end in ends))
    if against is not None:
        difference = against.get("difference", against.get("mean"))
        cells[2] = "{:+.1f} [{:+.1f}, {:+.1f}] points".format(*(100 * value for value in (difference, *against["ci"])))
    if speedup is not None:
        cells[3] = f"{speedup['median'] if isinstance(speedup, dict) else speedup:,.2f} times"
    return cells


def facts(found: dict[str, Any]) -> list[str]:
    """What a result as a whole says."""
    speedup, growth = found.get("speedup"), found.get("growth")
    said = [f"speedup {speedup:.2f}"] if isinstance(speedup, float) else []
    if growth:
        each = ", ".join(f"{name} {times:.2f}" for name, times in growth.items() if times is not None)
        said.append(f"seconds on the longest canvas over those on the shortest: {each}")
    return said
