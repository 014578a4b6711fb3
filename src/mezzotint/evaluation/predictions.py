"""What a model said, one line of JSON per item, only ever added to: the bridge between answering and scoring, and what a killed run resumes from."""

import hashlib
import json
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import torch

from mezzotint import __version__
from mezzotint.appending import append, open_to_append
from mezzotint.evaluation.item import Item, Settings
from mezzotint.models.quantised import packed
from mezzotint.models.transformer import Transformer
from mezzotint.recipe import Recipe

SAMPLED = 64


@dataclass(frozen=True)
class Prediction:
    """What was said to one item. said: the text, log-likelihoods or nats; forwards and positions_computed are 0 for likelihoods."""

    id: str
    part: str
    facts: dict[str, Any]
    asked: str
    said: dict[str, Any]
    forwards: int = 0
    positions_computed: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Conditions:
    """Everything a prediction depends on. Two runs with equal conditions may share their predictions, others never do."""

    task: str
    model: dict[str, Any]
    recipe: dict[str, Any]
    settings: dict[str, Any]
    batch: int
    versions: dict[str, str]

    @property
    def run(self) -> str:
        """A short name for the conditions."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def conditions(task: str, name: str, model: Transformer, recipe: Recipe, settings: Settings, batch: int, tokenizer: Any = None) -> Conditions:
    """The conditions of a run as it would take place here and now. The number of items is left out, so a longer run continues a shorter one."""
    chosen = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(settings).items() if k != "count"}
    about = {"name": name, "weights": weights_digest(model), "dtype": str(model.dtype).removeprefix("torch."), "device": model.device.type}
    about |= {"mask_id": model.config.mask_id, "block_length": model.config.block_length}
    about["config"] = digest_of(repr(model.config))
    if tokenizer is not None:
        special = sorted((key, str(value)) for key, value in tokenizer.special_tokens_map.items())
        about["tokenizer"] = digest_of(repr((tokenizer.chat_template, len(tokenizer), special)))
    if model.config.rope_scaling is not None:
        about["rope_scaling"] = str(model.config.rope_scaling)
    return Conditions(task, about, recipe.to_dict(), chosen, batch, versions())


def versions() -> dict[str, str]:
    """Of everything that text passes through on its way to a prediction."""
    found = {"mezzotint": __version__, "torch": torch.__version__, "python": platform.python_version()}
    return found | {name: version(name) for name in ("transformers", "tokenizers")}


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def weights_digest(model: Transformer) -> str:
    """Tells one set of weights from another by a few values of every tensor, spread over it."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        weight = weight.detach()
        if packed(weight):  # with the same values they may compute differently
            digest.update(type(weight.data).__name__.encode() + repr(weight.data.__tensor_flatten__()).encode())  # type: ignore[attr-defined]
            weight = weight.dequantize()
        flat = weight.flatten()
        places = torch.linspace(0, len(flat) - 1, min(SAMPLED, len(flat)), device=flat.device).long()
        picked = flat[places.clamp(max=len(flat) - 1)]  # float32 rounds the last place up from 2**24 elements on
        digest.update(name.encode() + str(tuple(weight.shape)).encode() + picked.double().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


class Store:
    """A predictions.jsonl. None keeps predictions in memory only. Use it as a context; a second run on the same file is refused meanwhile."""

    def __init__(self, path: Path | None):
        self.path = path
        self.file: IO[bytes] | None = None
        self.known: dict[str, dict[str, Prediction]] = {}

    def __enter__(self) -> "Store":
        if self.path is not None:
            self.file = open_to_append(self.path, b'{"run": ')
            for taken, prediction in read(self.path):
                self.known.setdefault(taken.run, {})[prediction.id] = prediction
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def of(self, run: str, items: Sequence[Item]) -> dict[str, Prediction]:
        """What is known already of these items under these conditions."""
        known = self.known.get(run, {})
        return {item.id: known[item.id] for item in items if item.id in known and known[item.id].asked == item.digest}

    def add(self, taken: Conditions, predictions: Iterable[Prediction]) -> None:
        """Write predictions and have them on disk before returning."""
        made = list(predictions)
        self.known.setdefault(taken.run, {}).update({p.id: p for p in made})
        if self.file is not None:
            append(self.file, "".join(line(taken, p) for p in made))


def line(taken: Conditions, prediction: Prediction) -> str:
    return json.dumps({"run": taken.run, **asdict(taken), **asdict(prediction)}, ensure_ascii=True) + "\n"


def read(path: Path) -> Iterable[tuple[Conditions, Prediction]]:
    """The predictions of a file in their order. Raises ValueError naming a line that is damaged; an unfinished last line is left out."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.endswith(b"\n"):
                return
            try:
                row = json.loads(raw)
                taken = Conditions(*(row[name] for name in Conditions.__dataclass_fields__))
                prediction = Prediction(*(row[name] for name in Prediction.__dataclass_fields__))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path} line {number} is not a prediction ({type(error).__name__}: {str(error)[:80]})") from None
            yield taken, prediction
