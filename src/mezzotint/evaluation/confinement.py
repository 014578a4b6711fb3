"""The sandbox's kernel walls: takes every right away from this process, which then becomes the interpreter that runs a program (see `watched`).

Two walls: limits on time, memory, output and processes (setrlimit); a seccomp filter after which the kernel answers nothing but reading, computing and
writing to open files (Linux on x86-64 and arm64). Both outlive the exec, so the kernel holds them whatever the program does. The interpreter that takes over
is a fresh one: the foreign functions that set the filter were never loaded in it.
"""

import ctypes
import os
import resource
import struct
import sys
from collections.abc import Sequence

WATCHED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "watched.py")

READS = {
    "x86_64": (
        0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 19, 20, 21, 24, 25, 28, 32, 35, 39, 60, 63, 72, 79, 89, 96, 97, 98, 99, 100, 102, 104,
        107, 108, 110, 131, 158, 186, 202, 204, 217, 218, 228, 229, 230, 231, 262, 267, 269, 271, 273, 292, 318, 332, 334, 439,
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
EXECUTE, CHANGE_MODE = {"x86_64": 59, "aarch64": 221}, {"x86_64": 91, "aarch64": 52}
FIRST, FIRST_UPPER, SECOND = 16, 20, 24
"""Where the lower and the upper half of a call's first argument and the lower half of its second stand in `struct seccomp_data`."""

WRITES = 0o3 | 0o100 | 0o1000 | 0o2000 | 0o20000000
"""O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND and O_TMPFILE's own bit."""

LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, KILL, NOT_THERE = 0x7FFF0000, 0x80000000, 0x00050000 | 38


def instruction(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)


def only(number: int, halves: Sequence[tuple[int, int]]) -> list[bytes]:
    """Allow a call with these halves of arguments alone, each given as its place and its value."""
    checks = [step for i, (at, value) in enumerate(halves) for step in (instruction(LOAD, at), instruction(EQUAL, value, 0, 2 * (len(halves) - i) - 1))]
    return [instruction(EQUAL, number, 0, len(checks) + 2), *checks, instruction(RETURN, ALLOW), instruction(RETURN, NOT_THERE)]


def filter_program(machine: str, path: int, mode: int) -> bytes:
    """The seccomp program: a foreign instruction set kills, listed calls pass, opening for reading passes, so do executing what is named at this address and
    giving stdout this mode, all else "does not exist"."""
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
    program += only(EXECUTE[machine], ((FIRST, path & 0xFFFFFFFF), (FIRST_UPPER, path >> 32)))
    program += only(CHANGE_MODE[machine], ((FIRST, 1), (SECOND, mode)))  # both are ints, of which the kernel reads the lower half
    return b"".join([*program, instruction(RETURN, NOT_THERE)])


def shut(path: int = 0, mode: int = 0) -> bool:
    """Give up every system call but those above, for good. False where the kernel or machine offers no such thing.

    path: the address of the one path that may be executed; the address space goes with the exec. mode: the one that stdout's file may be given.
    """
    machine = os.uname().machine
    if sys.platform != "linux" or machine not in READS or sys.maxsize < 2**32:
        return False
    code = filter_program(machine, path, mode)
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


def become(command: Sequence[str], mode: int, strict: bool) -> int:
    """Shut, then run the command in place of this process. Returns only where that failed: 0 for a filter that strict needs and the kernel does not have."""
    words = [ctypes.create_string_buffer(os.fsencode(word)) for word in command]
    arguments = (ctypes.c_char_p * (len(words) + 1))(*map(ctypes.addressof, words), None)
    libc, nothing = ctypes.CDLL(None, use_errno=True), (ctypes.c_char_p * 1)(None)
    if not shut(ctypes.addressof(words[0]), mode) and strict:
        return 0
    libc.execve(words[0], arguments, nothing)
    return ctypes.get_errno()


def main() -> int:
    """argv: seconds, bytes of memory, bytes of output, stdout's mode for the end and for a missing filter, "strict" if the filter must hold."""
    seconds, memory, output, mode, missing = map(int, sys.argv[1:6])
    limit(seconds, memory, output)
    if error := become([sys.executable, "-I", "-S", "-B", WATCHED, str(mode)], mode, "strict" in sys.argv):
        raise OSError(error, os.strerror(error))
    os.fchmod(1, missing)
    return 1


if __name__ == "__main__":
    sys.exit(main())
