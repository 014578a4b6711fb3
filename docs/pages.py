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


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages that the program writes."""
    for uri, content in (("methods/index.md", methods()), ("recipes.md", recipes()), ("commands.md", commands())):
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Where a page says so, what the results have on the strategies that its front matter names."""
    return markdown.replace(MEASURED, measured(page.meta.get("strategies", []), page.meta.get("results", [])))


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


def measured(strategies: list[str], results: list[str]) -> str:
    """The rows of the newest results whose recipe has one of the strategies (`cache=dual`), and links to the results named."""
    newest = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "report.py"))["newest"]
    lines: list[str] = []
    for part, path in newest(ROOT / "benchmarks" / "results").items():
        found = json.loads(path.read_text(encoding="utf-8"))
        link = f"[{part.replace('-', ' ')}](../benchmarks.md#{part})"
        if any(name in part for name in results):
            lines.append(f"* {link}" + (f": speedup {found['speedup']:.2f}" if isinstance(found.get("speedup"), float) else ""))
        rows = [row for row in found.get("rows", ()) if has(row, strategies)]
        simplest = sorted(rows, key=lambda row: row["recipe"].count("--"))[:MOST_ROWS]
        lines += [f"* {link}: {described(row)}" for row in rows if row in simplest]
        lines += [f"* {link}: {len(rows) - MOST_ROWS} more rows that compose it with others"] * (len(rows) > MOST_ROWS)
    if not lines:
        return "Nothing in `benchmarks/results` has it yet; the command below asks your own machine."
    return "\n".join(lines)


def has(row: dict[str, Any], strategies: list[str]) -> bool:
    """Whether a row's recipe names one of the strategies."""
    words = f" {row.get('recipe', '')} "
    return any(re.search(rf" --{kind} {re.escape(name)}[ :]", words) for kind, _, name in (s.partition("=") for s in strategies))


def described(row: dict[str, Any]) -> str:
    """One row in words."""
    speedup = row.get("speedup")
    times = speedup["median"] if isinstance(speedup, dict) else speedup
    facts = [f"`{row.get('name', row['recipe'])}`"]
    if "length" in row:
        facts.append(f"prompt of {row['length']:,} tokens")
    if "exact_match" in row:
        facts.append(f"{100 * row['exact_match']:.1f} % right")
    if times is not None:
        facts.append(f"{times:.2f} times the speed of the table's first row")
    return ", ".join(facts)
