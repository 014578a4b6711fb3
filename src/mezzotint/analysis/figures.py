"""What an inspection or a recording shows, as matplotlib figures (extra `plot`): for notebooks and papers, where `page` makes a report for a browser.

Every function returns a `Figure` that can be shown, changed and saved; the numbers behind it are the fields of what it is given.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mezzotint.analysis.dynamics import dynamics
from mezzotint.analysis.inspection import KEPT, Inspection
from mezzotint.analysis.recording import Recording

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOWN = {"noise": "share masked", "generation": "step", "prefixes": "length of the text"}
"""What a recording's levels are, by its source."""


def blank(wide: float, tall: float) -> "Figure":
    """An empty figure. Raises ValueError naming the extra if matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("figures need matplotlib; pip install 'mezzotint[plot]'") from None
    figure = Figure(figsize=(wide, tall), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def sink_map(recordings: Mapping[str, Recording], sample: int = 0) -> "Figure":
    """Attention that each position gets (across) at each step (down), one panel per model; square root, each panel on its own scale."""
    figure = blank(1 + 5 * len(recordings), 4)
    for axes, (name, recording) in zip(figure.subplots(1, len(recordings), squeeze=False)[0], recordings.items(), strict=True):
        share = recording.total()[sample]
        image = axes.imshow(share.sqrt().numpy(), aspect="auto", cmap="inferno", interpolation="nearest")
        marks = sorted({0, len(share) // 2, len(share) - 1})
        axes.set_yticks(marks, [f"{float(recording.levels[m]):g}" for m in marks])
        axes.set(title=name, xlabel="position", ylabel=DOWN.get(recording.source, "step"))
        figure.colorbar(image, ax=axes, label="√ share of attention")
    return figure


def sink_path(recordings: Mapping[str, Recording], sample: int = 0) -> "Figure":
    """Where the sinks stand over the run: the centre of their mass as a line, its spread (one standard deviation of their positions) as a band."""
    figure = blank(8, 4)
    axes = figure.subplots()
    for name, recording in recordings.items():
        found = recording.whole()
        weight = recording.total()[sample] * found.sink_set[sample]
        weight = weight / weight.sum(-1, keepdim=True)
        centre = found.centroid[sample]
        spread = (weight * (torch.arange(weight.shape[-1]) - centre[:, None]).square()).sum(-1).sqrt()
        steps = torch.linspace(0, 1, len(centre))
        line = axes.plot(steps.numpy(), centre.numpy(), label=name)[0]
        axes.fill_between(steps.numpy(), (centre - spread).numpy(), (centre + spread).numpy(), color=line.get_color(), alpha=0.2)
    axes.set(xlabel="part of the run", ylabel="position of the sinks")
    axes.legend()
    return figure


def instability_map(instability: Float[Tensor, "layers heads"]) -> "Figure":
    """Layers down, heads across; heads that are not there (NaN) stay white."""
    figure = blank(7, 0.8 + 0.35 * max(4, len(instability)))
    axes = figure.subplots()
    image = axes.imshow(instability.float().numpy(), aspect="auto", cmap="inferno", interpolation="nearest", vmin=0)
    axes.set_yticks(range(len(instability)), [str(layer + 1) for layer in range(len(instability))])
    axes.set_xticks(range(instability.shape[1]), [str(head + 1) for head in range(instability.shape[1])])
    axes.set(xlabel="head", ylabel="layer")
    figure.colorbar(image, ax=axes, label="instability")
    return figure


def layer_variances(recording: Recording) -> dict[str, Float[Tensor, " layers"]]:
    """Spatial and temporal variance of each layer's mass, all its heads together, mean over samples. spatial: over positions, high where the same few win;
    temporal: of the sinks' centre over the steps, 1 = as a position drawn at random."""
    found = dynamics(recording.share.double().nanmean(2))
    return {"spatial": found.spatial_variance.mean(0), "temporal": found.temporal_variance_norm.mean(0)}


def variances(recordings: Mapping[str, Recording]) -> "Figure":
    """Spatial and temporal variance per layer as bars, models side by side."""
    figure = blank(10, 3.6)
    for axes, kind in zip(figure.subplots(1, 2), ("spatial", "temporal"), strict=True):
        for number, (name, recording) in enumerate(recordings.items()):
            values = layer_variances(recording)[kind]
            width = 0.8 / len(recordings)
            axes.bar([layer + 1 + (number - (len(recordings) - 1) / 2) * width for layer in range(len(values))], values.tolist(), width, label=name)
        axes.set(title=f"{kind} variance of the sinks", xlabel="layer")
        axes.legend()
    return figure


def head_patterns(inspection: Inspection, heads: Sequence[tuple[int, int]]) -> "Figure":
    """Tiles that some heads, (layer, head) from 0, attend to: one row of panels each, one column per step in `inspection.pattern_steps`."""
    figure = blank(2.6 * len(inspection.pattern_steps), 2.6 * len(heads))
    panels = figure.subplots(len(heads), len(inspection.pattern_steps), squeeze=False)
    for row, (layer, head) in zip(panels, heads, strict=True):
        for axes, pattern, step in zip(row, inspection.patterns[:, layer, head], inspection.pattern_steps, strict=True):
            axes.imshow(pattern.sqrt().numpy(), cmap="inferno", interpolation="nearest")
            axes.set_title(f"layer {layer + 1}, head {head + 1}, step {step}", fontsize=8)
            axes.set(xticks=[], yticks=[])
    return figure


def pattern_overlap(inspection: Inspection) -> "Figure":
    """How much of the first watched step's most attended tiles are still so later, per layer: what SparseD rests on."""
    figure = blank(8, 4)
    axes = figure.subplots()
    for layer in range(inspection.overlap.shape[1]):
        axes.plot(inspection.recording.levels.numpy(), inspection.overlap[:, layer].numpy(), label=f"layer {layer + 1}")
    axes.set(xlabel="step", ylabel=f"overlap of the best {KEPT:.0%} of tiles", ylim=(0, 1.02))
    axes.legend(fontsize=8)
    return figure


def suffix_reach(inspection: Inspection) -> "Figure":
    """Attention that the active block pays to an undecided position behind it, by distance, per layer: what DPad rests on."""
    figure = blank(8, 4)
    axes = figure.subplots()
    for layer, values in enumerate(inspection.suffix):
        axes.plot(range(1, len(values) + 1), values.numpy(), label=f"layer {layer + 1}")
    axes.set(xlabel="positions behind the block", ylabel="share of attention per position", yscale="log")
    axes.legend(fontsize=8)
    return figure
