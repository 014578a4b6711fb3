"""What a long pruning run has finished, on disk, so that an interrupted one goes on where it was."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from mezzotint.appending import lock


class Journal:
    """A folder of safetensors and the settings they belong to; None keeps nothing. Every file is written whole or not at all."""

    def __init__(self, folder: Path | None, settings: dict[str, Any] | None = None):
        self.folder = folder
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self.claim("settings", settings or {})

    def claim(self, name: str, settings: dict[str, Any]) -> None:
        """What is kept from here on belongs to these settings. Raises ValueError, naming the first that differs, if the folder holds a run with others."""
        if self.folder is None:
            return
        marker, now = self.folder / f"{name}.json", json.loads(json.dumps(settings))
        kept = json.loads(marker.read_text(encoding="utf-8")) if marker.exists() else now
        differ = [option for option in {**kept, **now} if kept.get(option) != now.get(option)]
        if differ:
            option = differ[0]
            raise ValueError(
                f"{self.folder} holds an interrupted run with {option}={kept.get(option)!r}, this one has {now.get(option)!r}; delete it, or repeat that run"
            )
        write_text(marker, json.dumps(now))

    @property
    def begun(self) -> bool:
        """Whether it keeps anything that was finished."""
        return self.folder is not None and any(self.folder.glob("*.safetensors"))

    @contextmanager
    def held(self) -> Iterator[None]:
        """For one run alone; what fails before anything was finished leaves no journal. Raises ValueError if another run holds it."""
        if self.folder is None:
            yield
            return
        with (self.folder / "lock").open("w") as file:
            lock(file, self.folder)
            try:
                yield
            except BaseException:
                if not self.begun:
                    self.finish()
                raise

    def put(self, name: str, tensors: dict[str, Tensor], info: dict[str, Any] | None = None) -> None:
        if self.folder is None:
            return
        target = self.folder / f"{name}.safetensors"
        partial = target.with_suffix(".partial")
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, partial, {"info": json.dumps(info or {})})
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)

    def get(self, name: str) -> dict[str, Tensor] | None:
        """What was put, None if nothing (or a damaged file)."""
        path = self.path(name)
        try:
            return None if path is None else load_file(path)
        except (SafetensorError, OSError):
            return None

    def info(self, name: str) -> dict[str, Any]:
        """What was said of it, empty if nothing was put (or the file is damaged)."""
        path = self.path(name)
        try:
            if path is None:
                return {}
            with safe_open(path, framework="pt") as file:
                return json.loads((file.metadata() or {}).get("info", "{}"))
        except (SafetensorError, OSError):
            return {}

    def path(self, name: str) -> Path | None:
        path = None if self.folder is None else self.folder / f"{name}.safetensors"
        return path if path is not None and path.exists() else None

    def advance(self, name: str, done: int, tensors: dict[str, Tensor]) -> None:
        """Replace the sums so far."""
        self.put(name, tensors, {"done": done})

    def progress(self, name: str) -> tuple[int, dict[str, Tensor]]:
        tensors = self.get(name)
        return (0, {}) if tensors is None else (int(self.info(name)["done"]), tensors)

    def finish(self) -> None:
        """Remove everything."""
        if self.folder is None or not self.folder.exists():
            return
        for file in self.folder.iterdir():
            file.unlink()
        self.folder.rmdir()


def write_text(path: Path, text: str) -> None:
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
