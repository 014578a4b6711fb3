"""Draws the canvas while it is uncovered: masks as dots, new text bright, older text plain."""

from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from mezzotint.denoising import Step

FRESH = ("bold black on bright_yellow", "bright_yellow", "yellow")


class Watch:
    """Use as a context manager and as `on_step`. Leaves the terminal as it was, also after Ctrl-C.

    start: the first canvas position drawn (None: the first generated one); given: ids that stand after it from the beginning, by position.
    """

    def __init__(self, tokenizer: Any, start: int | None, stop_ids: tuple[int, ...], given: dict[int, int] | None = None, console: Console | None = None):
        self.tokenizer, self.start, self.stop_ids = tokenizer, start, stop_ids
        self.console = console or Console(stderr=True)
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        self.ids = dict(given or {})
        self.age = dict.fromkeys(self.ids, -len(FRESH))
        self.forwards = 0

    def __enter__(self) -> "Watch":
        self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.stop()

    def __call__(self, step: Step) -> None:
        self.forwards += bool(len(step.computed))
        for position, (accepted, token) in enumerate(zip(step.accepted[0].tolist(), step.ids[0].tolist(), strict=True), step.block.start):
            if accepted:
                self.ids[position] = token
                self.age[position] = step.index
        self.live.update(self.draw(step), refresh=True)

    def draw(self, step: Step) -> Text:
        """The generated part of the canvas as coloured text."""
        drawn = Text()
        visible = set(step.visible.tolist())
        for position in range(step.begins[0] if self.start is None else self.start, step.tokens.shape[1]):
            if position in self.ids:
                token = self.ids[position]
                age = step.index - self.age[position]
                style = FRESH[age] if age < len(FRESH) else "default"
                drawn.append("" if token in self.stop_ids else self.tokenizer.decode([token]), style)
            elif step.finished[0] is None:
                inside = step.block.start <= position < step.block.end
                drawn.append("·" if position in visible else " ", "cyan" if inside else "bright_black")
        drawn.append(f"\n\nstep {step.index + 1}   forwards {self.forwards}   block {step.block.index + 1}   computed {len(step.computed)}", "bright_black")
        return drawn
