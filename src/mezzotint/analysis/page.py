"""An inspection as one HTML page that needs nothing else: no script, no network, pictures inside."""

import base64
import html
import math
import struct
import zlib
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mezzotint.analysis.dynamics import Dynamics
from mezzotint.analysis.figures import layer_variances
from mezzotint.analysis.inspection import KEPT, Inspection
from mezzotint.analysis.recording import Recording

STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --paper: #fbfaf7; --faint: #8a8780; --line: #dedad0; }
@media (prefers-color-scheme: dark) { :root { --ink: #ece9e2; --paper: #17171a; --faint: #98958d; --line: #35353a; } }
body { font: 16px/1.55 Georgia, serif; color: var(--ink); background: var(--paper); max-width: 62rem; margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.9rem; margin-bottom: .2rem; } h2 { font-size: 1.25rem; margin-top: 2.6rem; } p.lead { color: var(--faint); margin-top: 0; }
figure { margin: 1.2rem 0; } figcaption { font-size: .88rem; color: var(--faint); margin-top: .4rem; }
img.map { image-rendering: pixelated; width: 100%; border: 1px solid var(--line); } 
svg { width: 100%; height: auto; } svg text { font: 12px sans-serif; fill: var(--faint); }
.row { display: flex; gap: 1rem; flex-wrap: wrap; } .row figure { flex: 1 1 14rem; } .heads figure { flex: 0 1 7rem; margin: .2rem 0; }
table { border-collapse: collapse; font: 14px sans-serif; } td, th { padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); text-align: left; }
pre { white-space: pre-wrap; font-size: .85rem; background: color-mix(in srgb, var(--ink) 6%, transparent); padding: .8rem; }
"""
SCALE = ((12, 8, 38), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
"""Dark to light, even in brightness, so that it also reads in grey."""
LINES = ("#3366aa", "#cc6633", "#2f9e6e", "#9955bb", "#b8860b", "#d14d72", "#5b8a8a", "#777777")


def colour(share: Float[Tensor, "h w"]) -> Tensor:
    """(h, w, 3) bytes for values in [0, 1]; NaN is grey."""
    anchors = torch.tensor(SCALE, dtype=torch.float32)
    place = share.nan_to_num(0).clamp(0, 1).float() * (len(anchors) - 1)
    low = place.floor().long().clamp(max=len(anchors) - 2)
    rgb = anchors[low] + (anchors[low + 1] - anchors[low]) * (place - low)[..., None]
    return torch.where(share.isnan()[..., None], torch.full_like(rgb, 128), rgb).round().byte()


def png(pixels: Tensor) -> bytes:
    """An image file from (h, w, 3) bytes."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + bytes(row.flatten().tolist()) for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def heatmap(values: Float[Tensor, "h w"], caption: str, *, height: str = "auto") -> str:
    """Values as a picture, the largest brightest."""
    most = float(values.nan_to_num(0).max())
    data = base64.b64encode(png(colour(values / max(most, 1e-12)))).decode()
    picture = f'<img class="map" style="height:{height}" alt="{html.escape(caption)}" src="data:image/png;base64,{data}">'
    return f"<figure>{picture}<figcaption>{html.escape(caption)}</figcaption></figure>"


def lines(series: Mapping[str, Sequence[float]], caption: str, *, x: Sequence[float], across: str, logarithmic: bool = False) -> str:
    """Lines over x; NaN breaks nothing, it is left out."""
    points = {name: [(a, v) for a, v in zip(x, values, strict=True) if math.isfinite(v) and (v > 0 or not logarithmic)] for name, values in series.items()}
    shown = [(a, math.log10(v) if logarithmic else v) for p in points.values() for a, v in p]
    if not shown:
        return ""
    left, right = min(a for a, _ in shown), max(a for a, _ in shown)
    low, high = min(v for _, v in shown), max(v for _, v in shown)
    if not logarithmic:
        low, high = min(low, 0.0), max(high, 1e-9)
    wide, tall, margin = 880, 260, 46

    def at(a: float, v: float) -> str:
        return f"{margin + (a - left) / max(right - left, 1e-9) * (wide - margin - 10):.1f},{tall - 28 - (v - low) / max(high - low, 1e-9) * (tall - 44):.1f}"

    drawn = [f'<line x1="{margin}" y1="{tall - 28}" x2="{wide - 10}" y2="{tall - 28}" stroke="currentColor" opacity=".3"/>']
    for number, (name, p) in enumerate(points.items()):
        stroke = LINES[number % len(LINES)]
        path = " ".join(at(a, math.log10(v) if logarithmic else v) for a, v in p)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="1.8"/>')
        drawn.append(f'<text x="{margin + 8 + 105 * (number % 8)}" y="14" style="fill:{stroke}">{html.escape(name)}</text>')
    for value in (low, high):
        y = at(left, value).split(",")[1]
        drawn.append(f'<text x="2" y="{float(y) + 4:.0f}">{10**value if logarithmic else value:.2g}</text>')
    drawn.append(
        f'<text x="{margin}" y="{tall - 8}">{left:g}</text><text x="{wide - 10}" y="{tall - 8}" text-anchor="end">{right:g} {html.escape(across)}</text>'
    )
    return f'<figure><svg viewBox="0 0 {wide} {tall}" role="img">{"".join(drawn)}</svg><figcaption>{caption}</figcaption></figure>'


def figures(dynamics: Dynamics) -> dict[str, float]:
    """The whole model's figures, mean over samples, in words."""
    return {
        "mean share of attention that sinks get": float(dynamics.dominance.mean()),
        "overlap of the sinks of consecutive steps (1 = they stay)": float(dynamics.persistence.mean()),
        "movement of the sinks' centre (1 = as a random position)": float(dynamics.temporal_variance_norm.mean()),
        "mass that moves from step to step": float(dynamics.movement.mean()),
        "unevenness over positions": float(dynamics.spatial_variance.mean()),
        "instability": float(dynamics.instability.mean()),
    }


def table(columns: dict[str, dict[str, float]]) -> str:
    names = list(next(iter(columns.values())))
    head = "".join(f"<th>{html.escape(title)}</th>" for title in columns)
    body = "".join(f"<tr><td>{html.escape(n)}</td>" + "".join(f"<td>{c[n]:.3f}</td>" for c in columns.values()) + "</tr>" for n in names)
    return f"<table><tr><th></th>{head}</tr>{body}</table>"


def sinks(recording: Recording, title: str, down: str) -> str:
    """Mass by position and step, the eye led by a square root."""
    return heatmap(
        recording.total()[0].sqrt().float(), f"{title}: attention received by each position (left to right), {down} (downwards); brighter is more, square root"
    )


def page(inspection: Inspection, *, title: str, text: str, settings: str, beside: tuple[str, Recording] | None = None) -> str:
    """The whole report. title: the model; text: the finished canvas; settings: the recipe in words; beside: an autoregressive model's name and recording."""
    recording = inspection.recording
    heads, whole = recording.heads(), recording.whole()
    steps = recording.levels.tolist()
    columns = {title: figures(whole)}
    pictures = sinks(recording, title, "by step of the run")
    if beside is not None:
        columns[beside[0]] = figures(beside[1].whole())
        pictures = f'<div class="row">{pictures}{sinks(beside[1], beside[0], "as the text grows")}</div>'
    instability = heads.instability.mean(0).float()
    reach = {f"layer {layer + 1}": inspection.suffix[layer].tolist() for layer in chosen(len(inspection.suffix))}
    kept = {f"layer {layer + 1}": inspection.overlap[:, layer].tolist() for layer in chosen(inspection.overlap.shape[1])}
    distances = list(range(1, inspection.suffix.shape[1] + 1))
    centre = {"centre of the sinks": whole.centroid[0].tolist(), "start of the active block": [float(b) for b in inspection.blocks]}
    body = [
        f"<h1>Where the attention goes</h1><p class='lead'>{html.escape(title)} · {html.escape(settings)}</p>",
        f"<pre>{html.escape(text)}</pre>",
        "<h2>Sinks over the run</h2><p>A sink is a position that many others attend to. In a diffusion model sinks may move from step to step, "
        "which is what sink-aware pruning uses.</p>",
        pictures,
        lines(centre, "Where the sinks stand, and where the run is at work", x=steps, across="step"),
        table(columns),
        *by_layer({title: recording} | ({} if beside is None else {beside[0]: beside[1]})),
        "<h2>Instability of each head</h2>"
        "<p>Attention that a head gives to sinks, times how much those move, in this run. <code>mezzotint prune --ranking instability</code> measures the same "
        "at levels of noise on its calibration text, and removes the bright heads first; <code>combined</code> does so only if they matter little to the "
        "output, and by default brightness does not count.</p>",
        heatmap(instability, f"layers downwards, heads to the right; brightest {float(instability.nan_to_num(0).max()):.3f}", height="12rem"),
        "<h2>Head patterns, and how long they last</h2>"
        "<p>Each picture is one head: tiles of rows downwards, tiles of keys to the right, first and last watched step. "
        "SparseD keeps the brightest tiles of the first and reuses them.</p>",
        *patterns(inspection, instability),
        lines(kept, f"Overlap of each head's most attended {KEPT:.0%} of tiles with those of the first step", x=steps, across="step"),
    ]
    if distances:
        body += [
            "<h2>Attention to the suffix</h2><p>What the active block pays to one undecided position behind it, by distance. "
            "Where this falls fast, DPad may drop the far ones.</p>",
            lines(reach, "mean share of attention per position, logarithmic", x=distances, across="positions behind the block", logarithmic=True),
        ]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}: attention</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en">{head}<body>{"".join(body)}</body></html>\n'


def by_layer(recordings: Mapping[str, Recording]) -> list[str]:
    """Spatial and temporal variance of each layer, models beside each other."""
    found = {name: layer_variances(recording) for name, recording in recordings.items()}
    said = {
        "spatial": "Spatial variance of each layer: high where the same few positions win at every step",
        "temporal": "Temporal variance of each layer: how far the centre of the sinks moves over the steps (1 = as a position drawn at random)",
    }
    most = max(len(values["spatial"]) for values in found.values())
    pictures = []
    for kind, caption in said.items():
        series = {name: [*values[kind].tolist(), *[math.nan] * (most - len(values[kind]))] for name, values in found.items()}
        pictures.append(lines(series, caption, x=list(range(1, most + 1)), across="layer"))
    return pictures


def chosen(layers: int) -> list[int]:
    """At most six, evenly apart."""
    return sorted({round(i * (layers - 1) / 5) for i in range(6)}) if layers > 6 else list(range(layers))


def patterns(inspection: Inspection, instability: Float[Tensor, "layers heads"]) -> list[str]:
    """First and last step of the steadiest and the most unstable heads."""
    order = instability.nan_to_num(-1).flatten().argsort().tolist()
    there = [i for i in order if not instability.flatten()[i].isnan()]
    some = [*there[:3], *there[-3:]] if len(there) > 6 else there
    pictures = []
    for i in some:
        layer, head = divmod(i, instability.shape[1])
        for number in (0, len(inspection.pattern_steps) - 1):
            caption = f"layer {layer + 1}, head {head + 1}, step {inspection.pattern_steps[number]}"
            pictures.append(heatmap(inspection.patterns[number, layer, head].sqrt(), caption))
    return ['<div class="row heads">', *pictures, "</div>"]
