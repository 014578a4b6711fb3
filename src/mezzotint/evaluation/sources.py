"""Rows of a data set from a local file, a local folder or the hub; nothing of a data set is ever run."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".txt")


def rows(data: str, split: str, *, config: str | None = None) -> list[dict[str, Any]]:
    """The rows of one split.

    data: a file (jsonl, jsonl.gz, json with a list, parquet, or txt as one row `text`), a folder with a file named after the split, or a hub id, for which
    `config` names the subset. Raises ValueError naming what is missing or which line is damaged.
    """
    path = Path(data).expanduser()
    if path.is_dir():
        return read(in_folder(path, split))
    if path.exists():
        return read(path)
    if data.startswith((".", "/", "~")) or data.count("/") != 1 or data.endswith(ENDINGS):
        raise ValueError(f"data={data!r} is neither a file or folder nor a hub id such as openai/gsm8k")
    return from_hub(data, split, config)


def split_of(data: str, split: str | None) -> str:
    """The split whose rows are asked: the given one, or test. Raises ValueError if one is given and the data are one file, which has no splits."""
    if split is not None and Path(data).expanduser().is_file():
        raise ValueError(f"split={split!r} means nothing to data={data!r}, which is one file; leave --split out, or give a folder with {split}.jsonl")
    return split or "test"


def examples(data: str, split: str, asked: str, shots: int, *, config: str | None = None) -> list[dict[str, Any]]:
    """The rows that worked examples are taken from, none for shots=0. Raises ValueError if they could be among the questions that are asked."""
    if not shots:
        return []
    if split in re.findall(r"\w+", asked):  # the hub also knows train[:100] and train+test
        raise ValueError(f"shots={shots} needs a {split} split of its own; split={asked!r} asks its questions; give another --split, or --shots 0")
    path = Path(data).expanduser()
    if path.is_file() or (path.is_dir() and in_folder(path, split) == in_folder(path, asked)):
        one = f"data={data!r} {'is' if path.is_file() else 'has'} one file"
        raise ValueError(f"shots={shots} needs a {split} split; {one}; give a folder with {split}.jsonl and {asked}.jsonl, or --shots 0")
    return rows(data, split, config=config)


def in_folder(folder: Path, split: str) -> Path:
    """The file of a split: `test.jsonl`, `test-00000-of-00001.parquet`, ... or the folder's only file for data that has one split."""
    files = sorted(f for f in folder.iterdir() if f.name.endswith(ENDINGS))
    named = [f for f in files if f.name.split(".")[0].split("-")[0] == split]
    if len(named) == 1 or (not named and len(files) == 1 and split == "test"):
        return (named or files)[0]
    problem = f"{len(named)} files of the split {split!r}" if named else f"no file of the split {split!r}"
    raise ValueError(f"data={str(folder)!r} has {problem}; give one such as {split}.jsonl (accepted: {', '.join(ENDINGS)})")


def read(path: Path) -> list[dict[str, Any]]:
    name = path.name
    if not name.endswith(ENDINGS):
        raise ValueError(f"data={str(path)!r} is of an unknown kind; accepted: {', '.join(ENDINGS)}")
    try:
        if name.endswith(".parquet"):
            return table(path)
        if name.endswith(".txt"):
            return [{"text": path.read_text(encoding="utf-8")}]
        if name.endswith(".json"):
            found = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
                raise ValueError("it must hold a list of objects")
            return found
        return list(lines(path))
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"data={str(path)!r} cannot be read: {error}") from None


def table(path: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ValueError("a parquet file needs the extra: pip install 'mezzotint[eval]'") from None
    return pyarrow.parquet.read_table(path).to_pylist()


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.name.endswith(".gz") else path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                raise ValueError(f"line {number} is not JSON") from None
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is not an object")
            yield row


def from_hub(data: str, split: str, config: str | None) -> list[dict[str, Any]]:
    try:
        import datasets
    except ImportError:
        raise ValueError(f"data={data!r} is not a local file, and fetching it from the hub needs the extra: pip install 'mezzotint[eval]'") from None
    datasets.disable_progress_bars()
    try:
        return list(datasets.load_dataset(data, config, split=split))  # type: ignore[arg-type]
    except Exception as error:  # the hub client raises many unrelated types; all mean the same to the user
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"data={data!r} is not a local file and could not be fetched from the hub ({reason}); give a local file with --data") from None


def place(data: str, split: str, index: int) -> str:
    """How errors name a row."""
    return f"data={data!r} {split} row {index + 1}"


def field(row: dict[str, Any], names: tuple[str, ...], kind: type | tuple[type, ...], where: str) -> Any:
    """The first of the fields a row has, of the right type; where: the row, see `place`."""
    for name in names:
        if isinstance(row.get(name), kind):
            return row[name]
    raise ValueError(f"{where}: no usable field {' or '.join(map(repr, names))}; it has {', '.join(map(repr, row)) or 'nothing'}")


def spread(count: int | None, total: int) -> list[int]:
    """`count` indices spread evenly over `total`, all of them if None or more than there are."""
    if count is None or count >= total:
        return list(range(total))
    return [i * total // count for i in range(count)]
