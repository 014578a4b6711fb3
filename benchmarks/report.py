"""Writes docs/benchmarks.md from benchmarks/results/*.json, so that no figure on that page is typed by hand.

python benchmarks/report.py            write the page
python benchmarks/report.py --check    exit with 1 if the page is not what the results say
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE, PLOTS = ROOT / "benchmarks" / "results", ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "plots"

INTRODUCTION = """<!-- Written by benchmarks/report.py from benchmarks/results/*.json; edits here are lost. -->

# Benchmarks

Every figure on this page was measured with Mezzotint, on the machine and with the command that stand above it where the result file names them; `make bench`
makes the short CPU tables anew, the commands above the others the full ones. Figures of papers are [elsewhere](reproduce.md). Of results measured again, only
the newest is shown. Times in one table were taken in turn in one run; times in different tables were not and cannot be compared. `a (b–c)` is a median with the
lowest and highest run, `b–c` alone such a range, `[a, b]` a 95 % interval. A verdict stands with the number of questions it rests on; where they leave it open,
it says so and why.
"""

STAMP = ("machine", "device", "threads", "cores", "dtype", "weights", "mezzotint", "torch", "python", "date")
HIDDEN = {"command", *STAMP}
PROBABLE = ("ci", "_ci")
"""How the names of values end that are 95 % intervals."""
RANGES = ("spread", "range")
"""How the names of pairs end that are the lowest and highest of several values."""
MOST_ROWS = 60


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
        return " ".join(cell(v) for v in value)
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
    """Rows of like objects as a Markdown table; columns in the order they first appear."""
    columns = [c for c in dict.fromkeys(key for row in rows for key in row) if c not in HIDDEN]
    lines = ["| " + " | ".join(map(titled, columns)) + " |", "|" + "---|" * len(columns)]
    for row in rows[:MOST_ROWS]:
        lines.append("| " + " | ".join(f"`{row[c]}`" if c == "recipe" and row.get(c) else cell(row.get(c), c) for c in columns) + " |")
    if len(rows) > MOST_ROWS:
        lines.append(f"\nand {len(rows) - MOST_ROWS} more rows in the file.")
    return "\n".join(lines)


def rows_of(value: Any) -> list[dict[str, Any]] | None:
    """A list of objects, or an object of objects (its keys become the first column; a `hard` part becomes a row of its own)."""
    if isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        return value
    if isinstance(value, dict) and value and all(isinstance(v, dict) for v in value.values()):
        rows = []
        for name, figures in value.items():
            rows.append({"name": name, **{k: v for k, v in figures.items() if k != "hard"}})
            if isinstance(figures.get("hard"), dict):
                rows.append({"name": f"{name} (hard)", **figures["hard"]})
        return rows
    return None


def section(part: str, path: Path) -> str:
    """One result file: where and how it was measured, its tables, and what else it says."""
    result = json.loads(path.read_text(encoding="utf-8"))
    lines = [f"## {part.replace('-', ' ')}", ""]
    where = [f"{titled(name)} {cell(result[name])}" for name in STAMP if name in result and name != "date"]
    where.append(f"date {result.get('date', path.stem[:10])}")
    lines += [" · ".join(where), ""]
    if "command" in result:
        lines += [f"    {result['command']}", ""]
    single = {}
    for name, value in result.items():
        if name in HIDDEN:
            continue
        rows = rows_of(value)
        if rows is not None:
            lines += [*([f"**{titled(name)}**", ""] if name not in ("rows", "tasks") else []), table(rows), ""]
        elif isinstance(value, dict) and name in ("recipe", "compared_with"):
            single[name] = " ".join(f"{k}={v}" for k, v in value.items() if v is not None)
        else:
            single[name] = value
    if single:
        lines += [" · ".join(f"{titled(k)} {cell(v, k)}" for k, v in single.items() if v is not None), ""]
    for plot in (part, f"{part}-pareto"):
        if (PLOTS / f"{plot}.svg").exists():
            lines += [f"![{plot.replace('-', ' ')}](plots/{plot}.svg)", ""]
    lines += [f"Source: `benchmarks/results/{path.name}`", ""]
    return "\n".join(lines)


def page(folder: Path = RESULTS) -> str:
    """The whole page."""
    return INTRODUCTION + "\n" + "\n".join(section(part, path) for part, path in newest(folder).items())


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
