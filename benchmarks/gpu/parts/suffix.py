"""DPad's headline row by row on LLaDA-8B's shape (arXiv 2508.14148: 61.4 times vanilla at gen_length 1,024, 1-shot GSM8K), and what goes beyond it.

Random weights answer nothing, so what the model would be sure of is replayed: a wrapper makes it sure of as many of the next tokens per forward as the
published forwards say (2.8 within the answer), and of the stop id behind the answer. Samplers, rules, caches, suffix and early stop are the real ones.
The published answers have 197 tokens, with DPad 116; every combination is also timed with 197, since a shorter answer is not the method's speed.
"""

import statistics
from functools import partial

import measure
import torch
from settings import Cell, Settings, random_model

import mezzotint as mz
from mezzotint.models.transformer import Transformer

GOAL = "the published 61.4 times row by row, and the strongest combination beyond it; host time per step at most 5 %"
MINUTES = 5.0
PACE, ANSWER, SHORT_ANSWER = 2.8, 197, 116
PUBLISHED = {"vanilla": 1.0, "+early stop": 4.8, "+DPad +early stop": 20.3, "parallel": 10.9, "parallel +DPad +early stop": 56.0, "parallel +prefix": 11.8}
PUBLISHED |= {"parallel +prefix +DPad +early stop": 61.4}
"""Times vanilla at gen_length 1,024 on an A100, with DPad's shorter answers."""


class Replayed(torch.nn.Module):
    """The model, sure of `pace` further tokens of the answer per forward and of the stop id from `end` on. One run each."""

    def __init__(self, model: Transformer, end: int, pace: float):
        super().__init__()
        self.model, self.config, self.device, self.memory = model, model.config, model.device, model.memory
        self.end, self.pace, self.owed = end, pace, 0.0

    def forward(self, tokens, at, *, predict, **rest):
        logits = self.model(tokens, at, predict=predict, **rest)
        answer = int((predict < self.end).sum())
        self.owed += self.pace
        told = min(answer, int(self.owed))
        self.owed -= int(self.owed)
        if told:
            logits[:, :told, 7] = 1e4
        if answer < len(predict):
            logits[:, answer:, self.config.stop_ids[0]] = 1e4
        return logits


def recipes(gen_length: int) -> dict[str, mz.Recipe]:
    vanilla = mz.Recipe(gen_length=gen_length, block_length=32, early_stop="off")
    stop = vanilla.with_(early_stop="step")
    parallel = stop.with_(commit=mz.Threshold(0.9))
    dpad = mz.DPad(min(256, gen_length), 3.0, 1.6)
    prefix, dual = mz.PrefixCache(), mz.DualCache()
    return {
        "vanilla": vanilla,
        "+early stop": stop,
        "+DPad +early stop": stop.with_(suffix=dpad),
        "parallel": parallel.with_(early_stop="off"),
        "parallel +prefix": parallel.with_(cache=prefix, early_stop="off"),
        "parallel +early stop": parallel,
        "parallel +dual +early stop": parallel.with_(cache=dual),
        "parallel +DPad +early stop": parallel.with_(suffix=dpad),
        "parallel +prefix +DPad +early stop": parallel.with_(cache=prefix, suffix=dpad),
        "parallel +dual +DPad +early stop": parallel.with_(cache=dual, suffix=dpad),
        "parallel +dual, growing canvas": parallel.with_(cache=dual, gen_length=64, max_tokens=gen_length),
    }


def cells(settings: Settings) -> list[Cell]:
    lengths = (64,) if settings.quick else (1024, 256, 512, 2048)
    made = [Cell("a cached forward is the whole one", partial(check, settings))]
    return made + [Cell(f"llada-8b gen {length}", partial(rows, settings, length), 280) for length in lengths]


def check(settings: Settings) -> dict:
    """Rows computed with the rest read from memory have the logits of a forward that computes everything."""
    model = random_model(settings.shape("llada-8b"), settings.device, settings.dtype)
    length, block = 500, torch.arange(300, 332)
    at = torch.arange(length)
    tokens = torch.randint(0, 500, (1, length), device=settings.device)
    memory = model.memory(1, length)
    with torch.inference_mode():
        wanted = model(tokens, at, memory=memory, predict=block)
        found = model(tokens[:, block.to(settings.device)], block, over=at, memory=memory, predict=block)
    error = measure.error(found, wanted)
    assert error < 2 * measure.allowed(settings.dtype), f"cached rows differ by {error}"
    return {"error": error}


def run(settings: Settings, recipe: mz.Recipe, prompt: torch.Tensor, answer: int, limit: int | None = None) -> dict:
    """One generation, or its first `limit` forwards."""
    model = random_model(settings.shape("llada-8b"), settings.device, settings.dtype)
    replayed = Replayed(model, prompt.shape[1] + answer, PACE if isinstance(recipe.commit, mz.Threshold) else 1.0)
    measure.wait(settings.device)
    forwards = positions = 0

    def go() -> None:
        nonlocal forwards, positions
        for step in mz.denoise(replayed, prompt, recipe):  # pyright: ignore[reportArgumentType]
            forwards += bool(len(step.computed))
            positions += len(step.computed)
            if limit is not None and forwards >= limit:
                return

    seconds = measure.once(go, settings.device)
    return {"seconds": seconds, "forwards": forwards, "positions": positions}


def rows(settings: Settings, gen_length: int) -> dict:
    prompt = torch.randint(0, 500, (1, 40 if settings.quick else 250), generator=torch.Generator().manual_seed(0))
    found: dict[str, dict] = {}
    for name, recipe in recipes(gen_length).items():
        answers = [min(ANSWER, gen_length * 3 // 4)] + ([min(SHORT_ANSWER, gen_length // 2)] if "DPad" in name else [])
        for answer in answers:
            label = f"{name}, answer {answer}"
            if name == "vanilla":
                few = 4 if settings.quick else 32
                run(settings, recipe, prompt, answer, 2)
                part = run(settings, recipe, prompt, answer, few)
                scale = gen_length / part["forwards"]
                found[label] = {
                    "seconds": part["seconds"] * scale,
                    "forwards": gen_length,
                    "positions": part["positions"] * scale,
                    "composed_from": part["forwards"],
                    "answer": answer,
                }
                continue
            run(settings, recipe, prompt, answer, 4)
            samples = [run(settings, recipe, prompt, answer)]
            while len(samples) < 3 and samples[0]["seconds"] < 3 and not settings.quick:
                samples.append(run(settings, recipe, prompt, answer))
            seconds = [s["seconds"] for s in samples]
            found[label] = samples[0] | {"seconds": statistics.median(seconds), "samples": seconds, "answer": answer}
    vanilla = found[next(iter(found))]["seconds"]
    for label, row in found.items():
        row["speedup"] = vanilla / row["seconds"]
        row["tokens_per_second"] = row["answer"] / row["seconds"]
        if gen_length == 1024:
            row["published"] = PUBLISHED.get(label.split(", answer")[0])
    return {"gen_length": gen_length, "rows": found, "idle_share": idle(settings, recipes(gen_length)["parallel +dual +DPad +early stop"], prompt)}


def idle(settings: Settings, recipe: mz.Recipe, prompt: torch.Tensor) -> float | None:
    """The share of a run's first 16 forwards in which the device had nothing to do: host time that could not be hidden."""
    taken = run(settings, recipe, prompt, ANSWER, 16)["seconds"]
    busy = measure.busy(lambda: run(settings, recipe, prompt, ANSWER, 16), settings.device)
    return None if busy is None else max(0.0, 1 - busy / taken)


def table(cells: dict[str, dict]) -> list[list[str]]:
    table = [["suffix", "seconds", "forwards", "times vanilla", "published", "ms a forward"]]
    for key, cell in cells.items():
        for name, row in cell.get("rows", {}).items():
            each = f"{row['seconds'] / row['forwards'] * 1e3:.3g}"
            published = f"{row['published']:g}" if row.get("published") else ""
            table.append([f"{key} {name}", f"{row['seconds']:.3g}", f"{row['forwards']}", f"{row['speedup']:.1f}", published, each])
        if cell.get("idle_share") is not None:
            table.append([f"{key} device idle", f"{100 * cell['idle_share']:.0f} %", "", "", "", ""])
    return table
