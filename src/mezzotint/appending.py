"""Files of lines that are only ever added to: one writer at a time, every line on disk before the next, a torn last line cut off on resumption."""

import fcntl
import json
import os
from pathlib import Path
from typing import IO, Any


def open_to_append(path: Path, begins: bytes) -> IO[bytes]:
    """The file, created with its folder if need be, locked against a second writer, mended, and positioned at its end.

    begins: how each of our lines begins. Raises ValueError if the file is in use, or ends in a line that is not whole and not ours.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+b")
    lock(file, path)
    try:
        mend(file, begins)
    except ValueError as error:
        file.close()
        raise ValueError(f"{path} {error}") from None
    return file


def lock(file: IO[Any], of: Path) -> None:
    """Hold an open file for this run alone, until it is closed. Raises ValueError, and closes it, if another run holds it; of: what that one uses."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ValueError(f"{of} is in use by another run") from None


def append(file: IO[bytes], text: str) -> None:
    """Write whole lines and have them on disk before returning."""
    file.write(text.encode("utf-8", "surrogatepass"))
    file.flush()
    os.fsync(file.fileno())


def whole(line: bytes) -> bool:
    """Whether a line is JSON as it stands; one that was cut short is not."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def mend(file: IO[bytes], begins: bytes) -> None:
    """Cut off a last line that a killed run left unfinished. Raises ValueError if it is whole, or begins as no line of ours: then it is not ours."""
    size = file.seek(0, os.SEEK_END)
    end = size
    while end > 0:
        start = max(0, end - 65536)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        file.seek(end)
        rest = file.read()
        if rest[: len(begins)] != begins[: len(rest)] or whole(rest):
            raise ValueError("ends in a line that this program did not write; give another file")
        file.truncate(end)
    file.seek(0, os.SEEK_END)
