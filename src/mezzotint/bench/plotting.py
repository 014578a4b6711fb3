"""Plots of what was measured: quality against seconds with its frontier, or seconds against the prompt's length."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

FORMATS = (".png", ".svg", ".pdf")
OFFSETS = (5, -12, 14, -21)
"""Points above a point at which its number stands, in turn, so that neighbours' numbers do not cover each other."""


def check(path: str) -> None:
    """Refuse, before anything is measured, a file that could not be drawn. Raises ValueError naming the extra or the accepted endings."""
    if Path(path).suffix not in FORMATS:
        raise ValueError(f"plot={path!r} must end in {', '.join(FORMATS)}")
    if not Path(path).absolute().parent.is_dir():
        raise ValueError(f"plot={path!r}: the folder {str(Path(path).parent)!r} does not exist")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ValueError(f"plot={path!r} needs matplotlib; pip install 'mezzotint[plot]'") from None


def draw(rows: Sequence[dict[str, Any]], path: str, caption: str) -> None:
    """Rows of `contest` (they have exact_match) or of `compare` as a figure; the file's ending names the format."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    judged = "exact_match" in rows[0]
    figure = Figure(figsize=(11 if judged else 8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    if judged:
        quality(axes, rows)
    else:
        lengths(axes, rows)
    axes.grid(alpha=0.3)
    axes.set_title(caption, fontsize=9)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "mezzotint"}):  # text stays text, and the same figure is the same file
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.endswith(".svg") else None)


def quality(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    """One numbered point per recipe, named beside the plot; a line through those that nobody beats in both."""
    from matplotlib.lines import Line2D

    best = sorted((r["seconds"]["mean"], 100 * r["exact_match"]) for r in rows if r["on_frontier"])
    axes.plot(*zip(*best, strict=True), color="tab:blue", linewidth=1, drawstyle="steps-post", zorder=1)
    names = []
    for number, r in enumerate(sorted(rows, key=lambda r: r["seconds"]["mean"]), 1):
        x, y = r["seconds"]["mean"], 100 * r["exact_match"]
        color = "tab:blue" if r["on_frontier"] else "tab:gray"
        axes.scatter([x], [y], color=color, zorder=2)
        axes.annotate(str(number), (x, y), xytext=(0, OFFSETS[number % len(OFFSETS)]), textcoords="offset points", fontsize=7, ha="center", color=color)
        names.append(Line2D([], [], linestyle="none", marker="o", markersize=3, color=color, label=f"{number}  {r['name']}"))
    axes.legend(handles=names, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=7, frameon=False)
    axes.margins(y=0.12)
    axes.set_xscale("log")
    axes.set_xlabel("seconds per question (log)")
    axes.set_ylabel("exact match, %")


def lengths(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    """One line per recipe: the median, and the range of the repeats as bars."""
    for name in dict.fromkeys(r["name"] for r in rows):
        mine = [r for r in rows if r["name"] == name]
        middle = [r["seconds"]["median"] for r in mine]
        below = [m - r["seconds"]["low"] for m, r in zip(middle, mine, strict=True)]
        above = [r["seconds"]["high"] - m for m, r in zip(middle, mine, strict=True)]
        axes.errorbar([r["prompt_tokens"] for r in mine], middle, yerr=(below, above), marker="o", capsize=3, label=name)
    axes.set_xscale("log", base=2)
    ticks = sorted({r["prompt_tokens"] for r in rows})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_yscale("log")
    axes.set_xlabel("prompt, tokens")
    axes.set_ylabel("seconds per run (log)")
    axes.legend(fontsize=8)
