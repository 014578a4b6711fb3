"""What SparseD rests on, measured: heads look at different places, each looks at the same places step after step, and the first steps matter most.

python benchmarks/attention_observations.py --keep observed.jsonl --json
python benchmarks/attention_observations.py --keep observed.jsonl --plot docs/attention_observations.svg

A pattern (the `select` most attended tiles of every tile of rows) is made at one step and scored by the share of attention mass it holds: of its own head and
of the next one at the same step, and of its own at other steps. For the third, attention is sparse in a quarter of the steps only, each step with a pattern of
its own, and the answer's tokens are compared with those of the dense run. With --keep, questions that are done are not asked again.
"""

import argparse
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lines import Lines
from machine import stamp
from sparsed_quality import IMPL, EveryStep, tile
from torch import Tensor

import mezzotint as mz
from mezzotint.attention.budget import apart
from mezzotint.evaluation.predictions import weights_digest
from mezzotint.evaluation.suite import questions
from mezzotint.generation import encode
from mezzotint.kernels.block_mass import Mass, block_mass
from mezzotint.kernels.tiles import Grid, Tiled
from mezzotint.models.transformer import Attend, Transformer, dense
from mezzotint.types import Moment

STEPS = 64
MOMENTS = (0, 3, 6, 12, 24, 36, 48, 63)
MIDDLE = 24


@dataclass(frozen=True)
class Observed:
    """Dense attention that writes down the mass per pair of tiles at some steps."""

    size: int
    seen: dict[int, list[Mass]] = field(default_factory=dict)

    def begin(self, canvas: mz.Canvas) -> Callable[[Moment], Attend]:
        grid = Grid(canvas.start, self.size)

        def ask(moment: Moment) -> Attend:
            if moment.step not in MOMENTS:
                return dense
            layers = self.seen.setdefault(moment.step, [])

            def attend(layer, q, k, v, scope):
                tiled = Tiled.of(scope.at, grid, q.device)
                layers.append(block_mass(q, k, tiled, tiled, self.size, int((tiled.tiles < grid.prompt_tiles).sum())))
                return dense(layer, q, k, v, scope)

            return attend

        return ask


@dataclass(frozen=True)
class InOneQuarter(EveryStep):
    """Sparse attention in one quarter of the steps, dense in the others."""

    quarter: int = 0

    def begin(self, canvas: mz.Canvas) -> Callable[[Moment], Attend]:
        ask = super().begin(canvas)
        return lambda moment: ask(moment) if moment.step * 4 // STEPS == self.quarter else dense


def observe(model: Transformer, prompt: Tensor, select: float) -> dict:
    """One question's figures; prompt: (1, n)."""
    size = tile(prompt.shape[1] + STEPS)
    observed = Observed(size)

    def run(attention) -> Tensor:
        recipe = mz.Recipe(gen_length=STEPS, block_length=None, steps=STEPS, attention=attention, early_stop="off")
        return mz.denoise_all(model, prompt, recipe).tokens[0, prompt.shape[1] :]

    said = run(observed)
    steps = {step: Mass(*(torch.stack([getattr(m, part)[0] for m in layers]) for part in ("total", "within"))) for step, layers in observed.seen.items()}
    chosen = {step: apart(mass, select).float() for step, mass in steps.items()}

    def held(pattern: Tensor, step: int) -> float:
        return (pattern * steps[step].total).sum(-1).mean().item()

    stops = torch.isin(said, torch.tensor(sorted(model.config.stop_ids))).nonzero()
    answered = int(stops[0]) + 1 if len(stops) else STEPS
    quarters = [InOneQuarter(skip=0.0, select=select, block_size=size, impl=IMPL, quarter=quarter) for quarter in range(4)]
    return {
        "own_head": held(chosen[MIDDLE], MIDDLE),
        "neighbour_head": held(chosen[MIDDLE].roll(1, dims=1), MIDDLE),
        "made_used": [[held(chosen[made], used) for used in MOMENTS] for made in MOMENTS],
        "same_tokens": [(run(attention) == said)[:answered].float().mean().item() for attention in quarters],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--tasks", nargs="+", default=["math", "lists", "retrieval"])
    parser.add_argument("--count", type=int, default=20, help="questions per task")
    parser.add_argument("--select", type=float, default=0.3)
    parser.add_argument("--keep", type=Path, help="file of questions that are done, read and added to")
    parser.add_argument("--plot", type=Path, help="write the curves as SVG")
    parser.add_argument("--quick", action="store_true", help="one question per task")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    model, tokenizer = mz.load(args.model)
    about = {"weights": weights_digest(model), "select": args.select}
    kept = Lines(args.keep)
    done = {(line["task"], line["nth"]): line for line in kept.found if line["about"] == about}
    found = []
    for task in args.tasks:
        for nth, example in enumerate(questions(task, 1 if args.quick else args.count)):
            if (task, nth) not in done:
                prompt = torch.tensor([encode(tokenizer, example.prompt)])
                done[task, nth] = {"task": task, "nth": nth, "about": about, **observe(model, prompt, args.select)}
                kept.add(done[task, nth])
                if not args.json:
                    print(task, nth, done[task, nth]["same_tokens"], flush=True)
            found.append(done[task, nth])

    def mean(name: str) -> Tensor:
        return torch.tensor([line[name] for line in found]).mean(0)

    report = {
        "recall_own_head": mean("own_head").item(),
        "recall_neighbour_head": mean("neighbour_head").item(),
        "moments": MOMENTS,
        "recall_made_used": mean("made_used").tolist(),
        "tokens_as_dense_by_sparse_quarter": mean("same_tokens").tolist(),
        "questions": len(found),
        "tasks": args.tasks,
        **about,
        "model": args.model or "bundled",
        **stamp(),
    }
    if args.plot:
        args.plot.write_text(drawing(MOMENTS, report["recall_made_used"], report))
    print(json.dumps(report))


def drawing(moments: tuple[int, ...], held: list[list[float]], report: dict) -> str:
    """Recall over steps, one line per step at which the pattern was made."""
    wide, high, left, top = 560, 300, 60, 30
    x = [left + (wide - left - 130) * m / moments[-1] for m in moments]
    y = lambda value: top + (high - top - 45) * (1 - value)  # noqa: E731
    shades = [f"hsl(215 60% {25 + 6 * i}%)" for i in range(len(moments))]
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high + 135}" font-family="sans-serif" font-size="11">']
    lines.append(f'<rect width="{wide}" height="{high + 135}" fill="white"/>')
    lines.append(f'<text x="{left}" y="18">attention mass held by the {report["select"]:.0%} of tiles chosen at one step, used at another</text>')
    for value in (0, 0.25, 0.5, 0.75, 1):
        lines.append(f'<line x1="{left}" x2="{x[-1]:.0f}" y1="{y(value):.0f}" y2="{y(value):.0f}" stroke="#ddd"/>')
        lines.append(f'<text x="{left - 8}" y="{y(value) + 4:.0f}" text-anchor="end">{value:g}</text>')
    for made, (row, shade) in enumerate(zip(held, shades, strict=True)):
        points = " ".join(f"{a:.1f},{y(b):.1f}" for a, b in zip(x, row, strict=True))
        lines.append(f'<polyline points="{points}" fill="none" stroke="{shade}" stroke-width="1.6"/>')
        lines.append(f'<text x="{x[-1] + 10:.0f}" y="{top + 12 + 14 * made}" fill="{shade}">made at step {moments[made]}</text>')
    lines += [f'<text x="{a:.0f}" y="{high - 25}" text-anchor="middle">{m}</text>' for a, m in zip(x, moments, strict=True)]
    lines.append(f'<text x="{(x[0] + x[-1]) / 2:.0f}" y="{high - 8}" text-anchor="middle">step</text>')
    lines.append(f'<text x="{left}" y="{high + 22}">tokens as in the dense run when attention is sparse in one quarter of the steps only</text>')
    for quarter, share in enumerate(report["tokens_as_dense_by_sparse_quarter"]):
        at = high + 34 + 18 * quarter
        lines.append(f'<text x="{left - 8}" y="{at + 10}" text-anchor="end">{("first", "second", "third", "last")[quarter]}</text>')
        lines.append(f'<rect x="{left}" y="{at}" width="{share * (x[-1] - left):.1f}" height="13" fill="{shades[0]}"/>')
        lines.append(f'<text x="{x[-1] + 10:.0f}" y="{at + 11}">{share:.3f}</text>')
    heads = f"the same budget holds {report['recall_own_head']:.3f} of a head's attention, its neighbour's pattern {report['recall_neighbour_head']:.3f}"
    lines.append(f'<text x="{left}" y="{high + 122}">{heads}</text></svg>')
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
