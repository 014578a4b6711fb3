"""The CPU kernels in C++: compiled at first use with the system's compiler for this very processor, kept in the user's cache folder, called on raw memory.

The library's name is the hash of its source, of the options and of everything the compiler says about itself and the processor (its predefined macros), so
a new compiler, another machine on the same home folder or a new version of this package each get their own. It is built beside its place and moved there
whole, so processes that build at once do no harm.
"""

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mezzotint.kernels.tiles import Choice, Tiled

SOURCE = Path(__file__).with_name("tiles.cpp")
OPTIONS = ("-std=gnu++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC", "-pthread")
PROCESSOR = ("-march=native", "-mcpu=native", "-O3")
"""How compilers are told to use all of this processor, the first that one understands; the last says nothing new."""


class Task(ctypes.Structure):
    """`Task` in tiles.cpp, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in "batch heads kv columns dim row_tiles key_tiles size lists most first threads".split()),
        *((name, ctypes.c_int64 * 3) for name in ("q_strides", "k_strides", "v_strides", "out_strides")),
        *((name, ctypes.c_void_p) for name in "q k v row_starts key_starts valid index count".split()),
        ("factor", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("out", "lse", "total", "within")),
    )


def folder() -> Path:
    """Where compiled libraries are kept."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "mezzotint"


def build(compiler: str, place: Path) -> Path:
    """The library for this machine, compiled into `place` unless it is there. Raises OSError or subprocess.SubprocessError."""

    def run(*arguments: str) -> bytes:
        return subprocess.run([*shlex.split(compiler), *arguments], check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=300).stdout

    for processor in PROCESSOR:
        try:
            told = run(processor, "-dM", "-E", "-x", "c++", os.devnull)
            break
        except subprocess.CalledProcessError:
            if processor == PROCESSOR[-1]:
                raise
    key = hashlib.sha256(b"\0".join((SOURCE.read_bytes(), told, *(o.encode() for o in (*OPTIONS, processor))))).hexdigest()[:24]
    library = place / f"tiles-{key}.so"
    if not library.exists():
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place) as room:
            fresh = Path(room) / library.name
            run(*OPTIONS, processor, str(SOURCE), "-o", str(fresh))
            os.replace(fresh, library)
    return library


@cache
def library() -> ctypes.CDLL | str:
    """The loaded library, or why there is none. Compiles if need be: some seconds, once per machine."""
    compiler = os.environ.get("CXX") or next((c for c in ("c++", "g++", "clang++") if shutil.which(c)), None)
    if compiler is None or os.name == "nt":
        return "it is compiled with the system's C++ compiler at first use, and none was found"
    with tempfile.TemporaryDirectory() as elsewhere:
        try:
            try:
                loaded = ctypes.CDLL(str(build(compiler, folder())))
            except OSError:  # a home folder that cannot be written to, or where nothing may be executed
                loaded = ctypes.CDLL(str(build(compiler, Path(elsewhere))))
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", None) or str(error).encode()).decode(errors="replace").strip()
            return f"{compiler} could not build it: {said.splitlines()[-1] if said else type(error).__name__}"
    if loaded.mezzotint_task_size() != ctypes.sizeof(Task):
        return f"{compiler} lays out its arguments in another way"
    return loaded


def plain(x: Tensor) -> Tensor:
    """fp32 with features side by side, which is what the kernels read."""
    x = x.float()
    return x if x.stride(-1) == 1 else x.contiguous()


def call(
    name: str,
    q: Float[Tensor, "b h rows d"],
    k: Float[Tensor, "b kv cols d"],
    v: Float[Tensor, "b kv cols d"] | None,
    rows: Tiled,
    keys: Tiled,
    size: int,
    factor: float,
    valid: Bool[Tensor, "b cols"] | None,
    choice: Choice | None = None,
    first: int = 0,
    **results: Tensor,
) -> None:
    """Run one of the library's functions on `plain` tensors; results are written where they lie. choice: None for all tiles."""
    loaded = library()
    assert isinstance(loaded, ctypes.CDLL), loaded
    b, heads, _, dim = q.shape
    valid = None if valid is None else valid.contiguous()
    index, listed = (None, None) if choice is None else (choice.index.contiguous(), choice.count.contiguous())
    lists, most = (heads, 0) if index is None else (index.shape[1], index.shape[3])
    task = Task(b, heads, k.shape[1], k.shape[2], dim, len(rows.tiles), len(keys.tiles), size, lists, most, first, torch.get_num_threads())
    for part, x in (("q", q), ("k", k), ("v", v), ("out", results.get("out"))):
        if x is not None:
            setattr(task, f"{part}_strides", (ctypes.c_int64 * 3)(*x.stride()[:3]))
    given = {"q": q, "k": k, "v": v, "row_starts": rows.starts, "key_starts": keys.starts, "valid": valid, "index": index, "count": listed, **results}
    for part, x in given.items():
        setattr(task, part, None if x is None else x.data_ptr())
    task.factor = factor
    if getattr(loaded, name)(ctypes.byref(task)):
        raise MemoryError(f"not enough memory to pack {k.shape[2]} keys of {k.shape[1]} heads with {dim} features")
