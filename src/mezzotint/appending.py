"""Files of lines that are only ever added to: one writer at a time, every line on disk before the next, a torn last line cut off on resumption."""

import fcntl
import os
from pathlib import Path
from typing import IO


def open_to_append(path: Path) -> IO[bytes]:
    """The file, created with its folder if need be, locked against a second writer, mended, and positioned at its end. Raises ValueError if it is in use."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ValueError(f"{path} is in use by another run") from None
    mend(file)
    return file


def append(file: IO[bytes], text: str) -> None:
    """Write whole lines and have them on disk before returning."""
    file.write(text.encode("utf-8", "surrogatepass"))
    file.flush()
    os.fsync(file.fileno())


def mend(file: IO[bytes]) -> None:
    """Cut off a last line that a killed run left unfinished."""
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
        file.truncate(end)
    file.seek(0, os.SEEK_END)
