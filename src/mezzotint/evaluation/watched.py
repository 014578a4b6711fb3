"""Inside the sandbox, behind the kernel's walls: the interpreter that runs a program read from stdin, under an audit hook.

The hook refuses by name: files outside the standard library, processes, the network, foreign functions, modules written in C that are not known to be
harmless, further interpreters (no hook would watch them). It runs inside the program's own interpreter: it uses nothing that Python code can replace, and
falls to a program that leaves Python, e.g. by crafted bytecode.

That a program reached its end is proved by no secret, so there is none to be read from memory. The proof is that the file behind stdout has another mode.
Nothing but `os.fchmod` sets it, and the hook lets that through from one place: the last line of the frame that ran the program, which only a program that
came to its end gives back to.
"""

import _imp
import os
import sys
from types import FrameType

REFUSED = ("socket.", "subprocess.", "os.", "shutil.", "ctypes.", "signal.", "mmap.", "pty.", "fcntl.", "ftplib.", "urllib.", "webbrowser.", "sqlite3.")
REFUSED += ("sys.settrace", "sys.setprofile", "sys.monitoring.", "gc.get_")  # these see into the frames below the program, or jump over what fails
REFUSED += ("cpython.PyInterpreterState_New",)

HARMLESS = frozenset(
    """
    _abc _ast _asyncio _bisect _blake2 _bz2 _codecs _codecs_cn _codecs_hk _codecs_iso2022 _codecs_jp _codecs_kr _codecs_tw _collections _contextvars _crypt
    _csv _datetime _decimal _elementtree _functools _hashlib _heapq _hmac _imp _io _json _locale _lzma _md5 _multibytecodec _multiprocessing _opcode
    _operator _pickle _posixsubprocess _queue _random _scproxy _sha1 _sha2 _sha256 _sha3 _sha512 _signal _socket _sre _stat _statistics _string _struct
    _suggestions _symtable _sysconfig _thread _tokenize _tracemalloc _types _typing _uuid _warnings _weakref _zoneinfo _zstd array atexit audioop binascii
    builtins cmath errno fcntl gc itertools marshal math mmap posix pyexpat resource select sys termios time unicodedata zlib
    """.split()
)
"""Modules in C that a program may load. All others are refused: some reach memory or another interpreter, some open files without an audit event."""

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | getattr(os, "O_TMPFILE", 0)


def settle() -> None:
    """Load the harmless modules that the interpreter has built in, and give up the means to load others: that raises no audit event."""
    for name in HARMLESS.intersection(sys.builtin_module_names):
        __import__(name)
    del _imp.create_builtin  # pyright: ignore[reportAttributeAccessIssue]


def watch(bottom: FrameType) -> None:
    """bottom: the frame that runs the program, whose last line may change a mode.

    The hook is one function that calls methods of exact built-in types and has everything else as a default of its own. Globals, closures, built-in names
    and functions written in Python could be exchanged by the program; the frame that a refusal shows it is over by then.
    """
    folder = os.fsencode(os.getcwd()) + b"/"
    allowed = {os.fsencode(way(p)) for p in (*filter(None, sys.path), os.path.dirname(os.__file__)) for way in (os.path.abspath, os.path.realpath)}
    harmless, built_in = (frozenset(os.fsencode(name) for name in names) for names in (HARMLESS, sys.builtin_module_names))
    last = max(line for *_, line in bottom.f_code.co_lines() if line)

    def hook(
        event: str,
        values: tuple,
        *,
        roots=(folder, *(root + b"/" for root in allowed)),
        folder=folder,
        files=frozenset(("open", "os.listdir", "os.scandir", "import")),
        looks=frozenset(("os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.getcwd", "os.listxattr")),
        harmless=harmless,
        foreign=built_in - harmless,
        refused=REFUSED,
        writes=WRITES,
        bottom=bottom,
        last=last,
        frame=sys._getframe,
        kind=type,
        whole=int,
        raw=bytes,
        encode=str.encode,
        size=len,
        link=os.readlink,
        no_link=OSError,
        no_module=ImportError,
        error=PermissionError,
    ) -> None:
        if event in files:
            path = values[0]
            if event == "import":
                name, path = encode(values[0], "utf-8", "surrogateescape"), values[1]
                if path is None:  # an import statement, before any file is looked for
                    if name in foreign:
                        raise no_module(f"the sandbox refuses {event} {name.decode('utf-8', 'replace')!r}")
                    return
                name = name.split(b".")[-1]
                path = encode(path, "utf-8", "surrogateescape")
                if name not in harmless or path.split(b"/")[-1].split(b".")[0] != name:
                    raise no_module(f"the sandbox refuses {event} {name.decode('utf-8', 'replace')!r}")
            elif path is None:
                path = b"."
            if kind(path) is whole:  # a file that is open already
                return
            if kind(path) is not raw:
                path = encode(path, "utf-8", "surrogateescape")  # TypeError for what is neither bytes nor text
            at = path if path.startswith(b"/") else folder + path
            right = b".." not in at.split(b"/") and not (event == "open" and values[2] & writes)
            for root in roots:
                if right and (at + b"/").startswith(root):
                    at, rest = root[:-1], at[size(root) :]
                    break
            else:
                raise error(f"the sandbox refuses {event} {path.decode('utf-8', 'replace')!r}")
            for part in rest.split(b"/"):
                at += b"/" + part
                try:
                    link(at)
                except no_link:
                    continue
                raise error(f"the sandbox refuses {event} {path.decode('utf-8', 'replace')!r}, a link")
        elif event not in looks and event.startswith(refused) and not (event == "os.chmod" and frame(1) is bottom and bottom.f_lineno == last):
            raise error(f"the sandbox refuses {event}")

    sys.addaudithook(hook)


def main() -> None:
    """argv: the mode that stands for the end. The program's names are empty, as for the official `code_eval`: it is not `__main__`.

    Nothing here catches an exception, and the last line is the one the hook knows.
    """
    mode, change = int(sys.argv[1]), os.fchmod
    program = sys.stdin.buffer.read().decode("utf-8", "surrogatepass")
    sys.argv[:] = [""]
    settle()
    watch(sys._getframe())
    exec(compile(program, "<program>", "exec"), {})
    sys.stdout.flush()
    change(1, mode)


if __name__ == "__main__":
    main()
