"""What SparseD rests on, measured: heads look at different places, each looks at the same places step after step, and the first steps matter most.

python benchmarks/attention_observations.py --json
python benchmarks/attention_observations.py --plot docs/attention_observations.svg

A pattern (the `select` most attended tiles of every tile of rows) is made at one step and scored by the share of attention mass it holds at others.
"""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from machine import stamp

import mezzotint as mz
from mezzotint.attention.budget import apart
from mezzotint.evaluation.suite import questions
from mezzotint.generation import encode
from mezzotint.kernels.block_mass import Mass, block_mass
from mezzotint.kernels.tiles import Grid, Tiled
from mezzotint.models.transformer import dense


@dataclass(frozen=True)
class Observed:
    """Dense attention that writes down every step's mass per pair of tiles."""

    size: int
    seen: list = field(default_factory=list)

    def begin(self, canvas):
        grid = Grid(canvas.start, self.size)

        def ask(moment):
            layers = []
            self.seen.append(layers)

            def attend(layer, q, k, v, scope):
                tiled = Tiled.of(scope.at, grid, q.device)
                layers.append(block_mass(q, k, tiled, tiled, self.size, int((tiled.tiles < grid.prompt_tiles).sum())))
                return dense(layer, q, k, v, scope)

            return attend

        return ask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--count", type=int, default=10, help="questions")
    parser.add_argument("--select", type=float, default=0.3)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--plot", type=Path, help="write the curves as SVG")
    parser.add_argument("--quick", action="store_true", help="3 questions")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    model, tokenizer = mz.load(args.model)
    moments = (0, 3, 6, 12, 24, 36, 48, 63)
    own, other, later = [], [], []
    for example in questions("math", 3 if args.quick else args.count):
        observed = Observed(args.block_size)
        recipe = mz.Recipe(gen_length=64, block_length=32, attention=observed, early_stop="off")
        mz.denoise_all(model, torch.tensor([encode(tokenizer, example.prompt)]), recipe)
        steps = [Mass(*(torch.stack([getattr(m, part)[0] for m in layers]) for part in ("total", "within"))) for layers in observed.seen]
        chosen = [apart(mass, args.select).float() for mass in steps]
        middle = 24
        own.append((chosen[middle] * steps[middle].total).sum(-1).mean().item())
        other.append((chosen[middle].roll(1, dims=1) * steps[middle].total).sum(-1).mean().item())
        later.append([[(chosen[made] * steps[used].total).sum(-1).mean().item() for used in moments] for made in moments])
    held = torch.tensor(later).mean(0)
    report = {
        "recall_own_head": sum(own) / len(own),
        "recall_neighbour_head": sum(other) / len(other),
        "moments": moments,
        "recall_made_used": held.tolist(),
        "select": args.select,
        "block_size": args.block_size,
        "questions": len(own),
        "model": args.model or "bundled",
        **stamp(),
    }
    if args.plot:
        args.plot.write_text(drawing(moments, held.tolist(), report))
    print(json.dumps(report))


def drawing(moments: tuple[int, ...], held: list[list[float]], report: dict) -> str:
    """Recall over steps, one line per step at which the pattern was made."""
    wide, high, left, top = 560, 300, 60, 30
    x = [left + (wide - left - 130) * m / moments[-1] for m in moments]
    y = lambda value: top + (high - top - 45) * (1 - value)  # noqa: E731
    shades = [f"hsl(215 60% {25 + 6 * i}%)" for i in range(len(moments))]
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="sans-serif" font-size="11">']
    lines.append(f'<rect width="{wide}" height="{high}" fill="white"/>')
    lines.append(f'<text x="{left}" y="18">attention mass held by the {report["select"]:.0%} of tiles chosen at one step, used at another</text>')
    for value in (0, 0.25, 0.5, 0.75, 1):
        lines.append(f'<line x1="{left}" x2="{x[-1]:.0f}" y1="{y(value):.0f}" y2="{y(value):.0f}" stroke="#ddd"/>')
        lines.append(f'<text x="{left - 8}" y="{y(value) + 4:.0f}" text-anchor="end">{value:g}</text>')
    for made, (row, shade) in enumerate(zip(held, shades, strict=True)):
        points = " ".join(f"{a:.1f},{y(b):.1f}" for a, b in zip(x, row, strict=True))
        lines.append(f'<polyline points="{points}" fill="none" stroke="{shade}" stroke-width="1.6"/>')
        lines.append(f'<text x="{x[-1] + 10:.0f}" y="{top + 12 + 14 * made}" fill="{shade}">made at step {moments[made]}</text>')
    lines += [f'<text x="{a:.0f}" y="{high - 25}" text-anchor="middle">{m}</text>' for a, m in zip(x, moments, strict=True)]
    lines.append(f'<text x="{(x[0] + x[-1]) / 2:.0f}" y="{high - 8}" text-anchor="middle">step</text></svg>')
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
