"""Records docs/canvas.svg: a real run of the bundled model, a few steps of its canvas one under the other.

python docs/record_canvas.py
"""

import sys
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

import mezzotint as mz
from mezzotint.cli.watch import Watch
from mezzotint.generation import encode

PROMPT = sys.argv[1] if len(sys.argv) > 1 else "Sue has 9 flags. Ada has 8 more than Sue. Yan has twice as many as Ada. How many flags does Yan have?"
RECIPE = mz.Recipe(gen_length=64, block_length=32, commit=mz.Threshold(0.9))

model, tokenizer = mz.load()
watch = Watch(tokenizer, len(encode(tokenizer, PROMPT)), model.config.stop_ids, console=Console(file=StringIO()))
frames: list[Text] = []


def record(step: mz.Step) -> None:
    watch(step)
    frames.append(watch.draw(step))


mz.generate(model, tokenizer, PROMPT, RECIPE, on_step=record)
screen = Console(record=True, width=96, file=StringIO())
screen.print(f"[bold]$ mezzotint generate --watch --gen-length 64 --commit threshold:tau=0.9[/] '{PROMPT}'\n", highlight=False)
for index in sorted({0, len(frames) // 4, len(frames) // 2, 3 * len(frames) // 4, len(frames) - 1}):
    screen.print(frames[index])
    screen.print()
screen.save_svg(str(Path(__file__).parent / "canvas.svg"), title="mezzotint")
