"""Inside the sandbox: takes every right away from this process, then runs a program read from stdin.

Three walls: limits on time, memory, output and processes (setrlimit); a seccomp filter after which the kernel answers nothing but reading, computing and
writing to open files (Linux on x86-64 and arm64); an audit hook that refuses files outside the standard library by name. The kernel holds the first two
whatever the program does. The hook runs inside the program's own interpreter: it uses nothing that Python code can replace, and falls to a program that
leaves Python, e.g. by crafted bytecode.

That a program reached its end is proved by a word that stands in no variable while the program runs. It does stand in the process's memory, which the
hook alone keeps the program from reading.
"""

import ctypes
import os
import platform
import resource
import struct
import sys

READS = {
    "x86_64": (
        0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 19, 20, 21, 24, 25, 28, 32, 35, 39, 60, 63, 72, 79, 89, 96, 97, 98, 99, 100, 102, 104,
        107, 108, 110, 131, 186, 202, 204, 217, 218, 228, 229, 230, 231, 262, 267, 269, 271, 273, 292, 318, 332, 334, 439,
    ),
    "aarch64": (
        17, 23, 24, 25, 29, 48, 57, 61, 62, 63, 64, 65, 66, 67, 73, 78, 79, 80, 93, 94, 96, 98, 99, 101, 113, 114, 115, 123, 124, 132, 134, 135, 139, 153,
        160, 163, 165, 169, 172, 173, 174, 175, 176, 177, 178, 179, 214, 215, 216, 222, 226, 233, 278, 291, 293, 439,
    ),
}  # fmt: skip
"""Machine -> numbers of the system calls a computing interpreter needs: memory, clocks, signals of its own, reading, writing to what is open."""

OPENS = {"x86_64": ((2, 24), (257, 32)), "aarch64": ((56, 32),)}
"""Machine -> the calls that open files, and where their flags stand in `struct seccomp_data`; allowed for reading only."""

ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
WRITES = 0o3 | 0o100 | 0o1000 | 0o2000 | 0o20000000
"""O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND and O_TMPFILE's own bit."""

LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, KILL, NOT_THERE = 0x7FFF0000, 0x80000000, 0x00050000 | 38


def instruction(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)


def filter_program(machine: str) -> bytes:
    """The seccomp program: a foreign instruction set kills, listed calls pass, opening for reading passes, all else "does not exist"."""
    program = [
        instruction(LOAD, 4),
        instruction(EQUAL, ARCHITECTURE[machine], 1, 0),
        instruction(RETURN, KILL),
        instruction(LOAD, 0),
    ]
    for number in READS[machine]:
        program += [instruction(EQUAL, number, 0, 1), instruction(RETURN, ALLOW)]
    for number, flags in OPENS[machine]:
        program += [
            instruction(EQUAL, number, 0, 4),
            instruction(LOAD, flags),
            instruction(ANY_BIT, WRITES, 0, 1),
            instruction(RETURN, NOT_THERE),
            instruction(RETURN, ALLOW),
        ]
    return b"".join([*program, instruction(RETURN, NOT_THERE)])


def shut() -> bool:
    """Give up every system call but those above, for good. False where the kernel or machine offers no such thing."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in READS or sys.maxsize < 2**32:
        return False
    code = filter_program(machine)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HL" if struct.calcsize("HL") == 16 else "H6xQ", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) != 0:
        return False
    return libc.prctl(set_seccomp, filter_mode, ctypes.create_string_buffer(header, len(header)), 0, 0) == 0


def limit(seconds: int, memory: int, output: int) -> None:
    """CPU time, address space, bytes written to any file, no new processes, few files, no core dump."""
    for kind, value in (("CPU", seconds), ("AS", memory), ("FSIZE", output), ("NPROC", 0), ("NOFILE", 32), ("CORE", 0)):
        name = getattr(resource, f"RLIMIT_{kind}", None)
        if name is None:
            continue
        hard = resource.getrlimit(name)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(name, (value, value))
        except (ValueError, OSError):  # macOS refuses some of them
            continue


REFUSED = ("socket.", "subprocess.", "os.", "shutil.", "ctypes.", "signal.", "mmap.", "pty.", "fcntl.", "ftplib.", "urllib.", "webbrowser.", "sqlite3.")
REFUSED += ("sys.settrace", "sys.setprofile", "sys.monitoring.", "gc.get_")  # these see into the frames below the program, or jump over what fails


def watch() -> None:
    """Refuse by name: writing, anything outside the standard library and the working folder, processes, the network, foreign functions.

    The hook is one function that calls methods of exact built-in types and has everything else as a default of its own. Globals, closures, built-in names
    and functions written in Python could be exchanged by the program; the frame that a refusal shows it is over by then.
    """
    folder = os.fsencode(os.getcwd()) + b"/"
    allowed = {os.fsencode(way(p)) for p in (*filter(None, sys.path), os.path.dirname(os.__file__)) for way in (os.path.abspath, os.path.realpath)}

    def hook(
        event: str,
        values: tuple,
        *,
        roots=(folder, *(root + b"/" for root in allowed)),
        folder=folder,
        files=frozenset(("open", "os.listdir", "os.scandir")),
        harmless=frozenset(("os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.getcwd", "os.listxattr")),
        refused=REFUSED,
        writes=WRITES,
        kind=type,
        whole=int,
        raw=bytes,
        encode=str.encode,
        size=len,
        link=os.readlink,
        no_link=OSError,
        error=PermissionError,
    ) -> None:
        if event in files:
            path = b"." if values[0] is None else values[0]
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
        elif event not in harmless and event.startswith(refused):
            raise error(f"the sandbox refuses {event}")

    sys.addaudithook(hook)


def take(size: int) -> bytes:
    """So many bytes of stdin, past any buffer that would keep them."""
    found = b""
    while len(found) < size and (more := os.read(0, size - len(found))):
        found += more
    return found


def run(program: str) -> bytes:
    """Nothing, once the program has reached its end. Its names are empty, as for the official `code_eval`: it is not `__main__`."""
    exec(compile(program, "<program>", "exec"), {})
    sys.stdout.flush()
    return b""


def main() -> None:
    """argv: seconds, bytes of memory, bytes of output, of the program and of the proof, "strict" if the filter must hold. stdin: the program and the proof."""
    seconds, memory, output, size, word = map(int, sys.argv[1:6])
    program = take(size).decode("utf-8", "surrogatepass")
    sys.argv[:] = [""]
    sys.path[:] = [p for p in sys.path if os.path.realpath(p or ".") != os.path.dirname(os.path.realpath(__file__))]
    limit(seconds, memory, output)
    if not shut() and "strict" in sys.orig_argv:
        os.write(2, take(word))
        os._exit(86)
    watch()
    os.write(1, b"\n" + take(word) + run(program))


if __name__ == "__main__":
    main()
