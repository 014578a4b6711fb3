"""Writes docs/benchmarks.md from benchmarks/results/*.json, so that no figure on that page is typed by hand.

python benchmarks/report.py            write the page
python benchmarks/report.py --check    exit with 1 if the page is not what the results say
"""

import argparse
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE, PLOTS = ROOT / "benchmarks" / "results", ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "plots"
sys.path.append(str(ROOT / "benchmarks" / "gpu"))  # the parts know their tables

INTRODUCTION = """<!-- Written by benchmarks/report.py from benchmarks/results/*.json; edits here are lost. -->

# Benchmarks

Every figure on this page was measured with Mezzotint, on the machine and with the command that stand above it where the result file names them; `make bench`
makes the short CPU tables anew, the commands above the others the full ones. Figures of papers are [elsewhere](reproduce.md). Of results measured again, only
the newest is shown. Times in one table were taken in turn in one run; times in different tables were not and cannot be compared. `a (b–c)` is a median with the
lowest and highest run, `b–c` alone such a range, `[a, b]` a 95 % interval. A verdict stands with the number of questions it rests on; where they leave it open,
it says so and why. Results of the bundled model name the weights it had, as far as they were recorded; where these are not those of `cpu bundled eval`, it has
been trained anew since, and they are called earlier weights.
"""

STAMP = ("machine", "device", "threads", "cores", "dtype", "weights", "mezzotint", "torch", "python", "date")
HIDDEN = {"command", *STAMP}
PROBABLE = ("ci", "_ci")
"""How the names of values end that are 95 % intervals."""
RANGES = ("spread", "range")
"""How the names of pairs end that are the lowest and highest of several values."""
FINDINGS = ("best_single", "best_composed")
"""The values whose null says something: none was good enough."""
AXIS = "moments"
"""The list that names the rows and columns of a result's matrices."""
MOST_ROWS = 80
WIDE = 6
"""An object of so many values, or more, is a table of one row."""
BUNDLED = "cpu-bundled-eval"
"""The part that was measured with the weights that the package has."""
EARLIER = "earlier weights of the bundled model"


def newest(folder: Path) -> dict[str, Path]:
    """Part -> its newest file. Names are YYYY-MM-DD-PART.json; PART-quick stands aside where PART itself was measured on that day or later."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.json")):
        match = re.fullmatch(r"\d{4}-\d\d-\d\d-(.+)", path.stem)
        if match is None:
            raise ValueError(f"{path.name}: results are named YYYY-MM-DD-PART.json")
        found[match[1]] = path
    for part in [name for name in found if name.endswith("-quick")]:
        whole = found.get(part.removesuffix("-quick"))
        if whole is not None and whole.name[:10] >= found[part].name[:10]:
            del found[part]
    return found


def stamped(result: dict[str, Any]) -> dict[str, Any]:
    """A result with what its settings say of the circumstances."""
    return {**(result["settings"] if isinstance(result.get("settings"), dict) else {}), **result}


def weights_of(result: dict[str, Any]) -> str | None:
    """The digest of the bundled model's weights that a result was measured with; None where it is about another model, or does not say."""
    said = stamped(result)
    known = re.fullmatch("[0-9a-f]{16}", str(said.get("weights"))) and said.get("model") in (None, "bundled")
    return said["weights"] if known else None


def earlier(found: dict[str, Path]) -> set[str]:
    """The parts whose weights of the bundled model are not those of its newest evaluation."""
    weights = {part: weights_of(json.loads(path.read_text(encoding="utf-8"))) for part, path in found.items()}
    return {part for part, digest in weights.items() if digest and weights.get(BUNDLED) not in (None, digest)}


def number(value: float) -> str:
    """Three significant digits, whole numbers whole."""
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def verdict(value: dict[str, Any]) -> str:
    """A verdict with what it rests on: {"verdict": ..., "questions": ..., "why": ...}, the verdict None where it is open."""
    said = "open" if value["verdict"] is None else cell(value["verdict"])
    return f"{said} (on {number(value['questions'])} question{'s' * (value['questions'] != 1)}{'; ' * bool(value['why'])}{value['why']})"


def cell(value: Any, name: str = "") -> str:
    """The value of that name as a table shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, list):
        pair = [number(v) for v in value] if len(value) == 2 and all(isinstance(v, (int, float)) for v in value) else None
        if pair and name.endswith(PROBABLE):
            return f"[{', '.join(pair)}]"
        if pair and name.endswith(RANGES):
            return "–".join(pair)
        return ("; " if any(isinstance(v, str) and " " in v for v in value) else " ").join(cell(v) for v in value)
    if isinstance(value, dict):
        if {"median", "low", "high"} <= set(value):
            return f"{number(value['median'])} ({number(value['low'])}–{number(value['high'])})"
        if "verdict" in value:
            return verdict(value)
        if "ci" in value and ("mean" in value or "difference" in value):
            return f"{value.get('mean', value.get('difference')):+.3g} {cell(value['ci'], 'ci')}".rstrip()
        if "ci" in value and "ratio" in value:
            return f"{number(value['ratio'])} {cell(value['ci'], 'ci')}".rstrip()
        if "mean" in value:
            return number(value["mean"])
        return ", ".join(f"{k} {cell(v, k)}" for k, v in value.items())
    return str(value).replace("|", "\\|")


def titled(name: str) -> str:
    return {"ci": "95 % interval", "name": ""}.get(name, name.replace("_", " "))


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of like objects as a Markdown table; columns in the order they first appear, one for each figure that a row has of several tasks."""
    rows = [{name: figure for key, value in row.items() for name, figure in columns_of(key, value).items()} for row in rows]
    columns = [c for c in dict.fromkeys(key for row in rows for key in row) if c not in HIDDEN]
    lines = ["| " + " | ".join(map(titled, columns)) + " |", "|" + "---|" * len(columns)]
    for row in rows[:MOST_ROWS]:
        lines.append("| " + " | ".join(f"`{row[c]}`" if c in ("recipe", "attention") and row.get(c) else cell(row.get(c), c) for c in columns) + " |")
    if len(rows) > MOST_ROWS:
        lines.append(f"\nand {len(rows) - MOST_ROWS} more rows in the file.")
    return "\n".join(lines)


def columns_of(key: str, value: Any) -> dict[str, Any]:
    """A value as the columns it takes: an object of figures has one for each."""
    return {f"{key}: {name}": figure for name, figure in value.items()} if isinstance(value, dict) and nested(value) else {key: value}


def rows_of(value: Any) -> list[dict[str, Any]] | None:
    """A list of objects, or an object of objects (its keys become the first column; a `hard` part becomes a row of its own).

    An object of objects of objects (tasks, arms) becomes a row for each of the innermost; an object of many values the only row.
    """
    if isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        return value
    if not isinstance(value, dict) or not value or "verdict" in value:
        return None
    if nested(value):
        if all(nested(figures) for figures in value.values()):
            return [{"name": name, "arm": arm, **figures} for name, arms in value.items() for arm, figures in arms.items()]
        rows = []
        for name, figures in value.items():
            rows.append({"name": name, **{k: v for k, v in figures.items() if k != "hard"}})
            if isinstance(figures.get("hard"), dict):
                rows.append({"name": f"{name} (hard)", **figures["hard"]})
        return rows
    return [value] if len(value) >= WIDE else None


def nested(value: dict[str, Any]) -> bool:
    """Whether all values of an object are objects."""
    return bool(value) and all(isinstance(v, dict) for v in value.values())


def matrix(value: Any, names: list[Any] | None) -> list[dict[str, Any]] | None:
    """The rows of a matrix, numbered where no names fit."""
    if not isinstance(value, list) or not value or not all(isinstance(row, list) and len(row) == len(value[0]) for row in value):
        return None
    down, across = (names if names and len(names) == size else list(range(1, size + 1)) for size in (len(value), len(value[0])))
    return [{"name": cell(name), **dict(zip(map(cell, across), row, strict=True))} for name, row in zip(down, value, strict=True)]


def gpu_section(part: str, path: Path, result: dict[str, Any]) -> str:
    """A file of benchmarks/gpu/run.py: the table that the part itself prints, its goal, and what failed."""
    from record import failures, state

    head, *rows = importlib.import_module(f"parts.{result['part']}").table(result["cells"])
    where = [f"{titled(name)} {result[name]}" for name in ("machine", "driver", "cuda", "torch", "triton", "python") if result.get(name)]
    failed = failures(result["cells"])
    lines = [f"## {part.replace('-', ' ')}", "", " · ".join([*where, f"date {path.stem[:10]}"]), "", *(f"    {command}" for command in result["commands"]), ""]
    lines += [f"Goal: {result['goal']} ({state(result)}).", "", table([dict(zip(head, row, strict=False)) for row in rows]), ""]
    lines += [f"Not measured: {len(failed)}, such as {failed[0][:200]}", ""] if failed else []
    return "\n".join([*lines, f"Source: `benchmarks/results/{path.name}`", ""])


def section(part: str, path: Path, old: bool) -> str:
    """One result file: where and how it was measured, its tables, and what else it says. old: with earlier weights of the bundled model."""
    result = json.loads(path.read_text(encoding="utf-8"))
    if {"part", "cells", "commands"} <= set(result):
        return gpu_section(part, path, result)
    lines = [f"## {part.replace('-', ' ')}", ""]
    said = stamped(result)
    where = [f"{titled(name)} {cell(said[name])}" for name in STAMP if name in said and name != "date"]
    where += [EARLIER] * old
    where.append(f"date {result.get('date', path.stem[:10])}")
    where += ["command not recorded"] * ("command" not in result)
    lines += [" · ".join(where), ""]
    if "command" in result:
        lines += [f"    {result['command']}", ""]
    single = {}
    for name, value in result.items():
        if name in HIDDEN:
            continue
        if isinstance(value, dict) and name in ("recipe", "compared_with"):
            single[name] = " ".join(f"{k}={v}" for k, v in value.items() if v is not None)
        elif (rows := rows_of(value) or matrix(value, result.get(AXIS))) is not None:
            lines += [*([f"**{titled(name)}**", ""] if name not in ("rows", "tasks") else []), table(rows), ""]
        else:
            single[name] = value
    if single:
        told = {k: "none" if v is None else cell(v, k) for k, v in single.items() if v is not None or k in FINDINGS}
        lines += [" · ".join(f"{titled(k)} {v}" for k, v in told.items()), ""]
    for plot in (part, f"{part}-pareto"):
        if (PLOTS / f"{plot}.svg").exists():
            lines += [f"![{plot.replace('-', ' ')}](plots/{plot}.svg)", ""]
    lines += [f"Source: `benchmarks/results/{path.name}`", ""]
    return "\n".join(lines)


def page(folder: Path = RESULTS) -> str:
    """The whole page."""
    found = newest(folder)
    old = earlier(found)
    return INTRODUCTION + "\n" + "\n".join(section(part, path, part in old) for part, path in found.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; say whether the page is current")
    args = parser.parse_args()
    wanted = page()
    if not args.check:
        PAGE.write_text(wanted, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == wanted:
        return 0
    print("docs/benchmarks.md is not what benchmarks/results say; run `python benchmarks/report.py`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
