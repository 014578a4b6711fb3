"""The sandbox for generated code: what it must refuse, one program each, and each wall alone."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mezzotint.evaluation import confinement, sandbox
from mezzotint.evaluation.sandbox import Limits, execute, filtered, run

SHORT = Limits(seconds=1, memory=256 * 1024 * 1024, output=100_000)

needs_filter = pytest.mark.skipif(not filtered(), reason="this kernel cannot filter system calls")


def test_a_program_computes_with_the_standard_library():
    program = "import math, random, re, json, collections, heapq, hashlib, datetime\nprint(math.prod([2, 3]), hashlib.md5(b'x').hexdigest()[:4])"
    assert run(program) == "6 9dd4\n"
    program = "import array, asyncio, bisect, csv, dataclasses, decimal, fractions, itertools, pickle, queue, socket, statistics, subprocess, typing, zlib"
    assert run(program + "\nfrom concurrent import futures\nimport multiprocessing.pool, unittest.mock, urllib.request, xml.etree.ElementTree, zoneinfo") == ""
    assert run("print('ä☃')") == "ä☃\n"
    assert run("") == ""
    assert run("if __name__ == '__main__': raise SystemExit\nprint('an empty namespace, as in the official code_eval')").startswith("an empty")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("while True: pass", "more than"),
        ("import time; time.sleep(60)", "more than 2 s"),
        ("x = bytearray(10 ** 10)", "MemoryError"),
        ("x = []\nwhile True: x.append('a' * 10 ** 8)", "MemoryError"),
        ("while True: print('a' * 1000)", ""),
        ("open('inside', 'w')", "refuses open"),
        ("import os; os.open('/tmp/outside', os.O_CREAT | os.O_WRONLY)", "refuses open"),
        ("open('/etc/passwd').read()", "refuses open"),
        ("import os; open(os.__file__ + '/../../../../../../../../../../../etc/passwd').read()", "refuses open"),
        ("import __main__, builtins; __main__.WRITES = 0; builtins.any = lambda _: False; open('inside', 'w')", "refuses open"),
        ("import os; os.listdir('/')", "refuses os.listdir"),
        ("import os; os.remove('/etc/hosts')", "refuses os.remove"),
        ("import socket; socket.socket()", "refuses socket"),
        ("import urllib.request; urllib.request.urlopen('http://127.0.0.1')", "refuses"),
        ("import os\nwhile True: os.fork()", "refuses os.fork"),
        ("import subprocess; subprocess.run(['true'])", "refuses subprocess"),
        ("import os; os.kill(os.getppid(), 9)", "refuses os.kill"),
        ("import ctypes; ctypes.CDLL(None)", "refuses import '_ctypes'"),
        ("import sys; sys.exit(0)", "before its end"),
        ("import os; os._exit(0)", "before its end"),
        ("import os; os._exit(86)", "before its end"),
        ("import os, sys; os.execv(sys.executable, ['python'])", "refuses os.exec"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_a_program_that_misbehaves_is_stopped_and_does_not_count(program, reason):
    begun = time.monotonic()
    done = execute(program, SHORT)
    assert not done.finished
    assert reason in done.reason
    assert len(done.output) <= SHORT.output
    assert time.monotonic() - begun < 10
    assert not os.path.exists("/tmp/outside")


FOUND = """
import os, re
def leave(held):
    for word in re.findall(rb"\\n([0-9a-f]{32})\\0", held):
        os.write(1, b"\\n" + word)
        os._exit(0)
"""
MEMORY = """
import io
pages, files = {path}("/proc/self/maps"), {path}("/proc/self/mem")
mapped = io.FileIO(os.open(pages, 0)).readall().decode()
memory = os.open(files, 0)
for start, end in re.findall("(?m)^([0-9a-f]+)-([0-9a-f]+) rw", mapped):
    try:
        leave(os.pread(memory, int(end, 16) - int(start, 16), int(start, 16)))
    except (OSError, OverflowError):
        continue
"""
CHANGE = "mode, kept = int(sys.orig_argv[-1]), os.fchmod\n"
FORGERIES = {
    "the mode": "import os, sys\n" + CHANGE + "try:\n    kept(1, mode)\nfinally:\n    os._exit(0)",
    "the mode, as the frame below ends": "import os, sys, functools\n"
    + CHANGE
    + "class Last: __del__ = functools.partial(kept, 1, mode)\nlast, leave = Last(), os._exit\nsys.excepthook = lambda *_: leave(0)\nraise ValueError",
    "the mode, by the frame below once more": "import __main__, _imp, io, os, sys\n"
    + CHANGE
    + "sys.argv, sys.stdin, _imp.create_builtin = ['', mode], io.TextIOWrapper(io.BytesIO()), None\ntry:\n    __main__.main()\nfinally:\n    os._exit(0)",
    "the mode, by an interpreter that nothing watches": """
import sys
import _xxsubinterpreters as others
others.run_string(others.create(), f"import os; os.fchmod(1, {int(sys.orig_argv[-1])}); os._exit(0)")
""",
    "memory, by an interpreter that nothing watches": "import _xxsubinterpreters as others\n"
    f"others.run_string(others.create(), {FOUND + MEMORY.format(path='')!r})",
    "memory, by foreign functions": FOUND
    + """
import ctypes, sys
kept = [bytes([i]) * 33 for i in range(256)] + [v for m in list(sys.modules.values()) for v in vars(m).values()]
kept += [getattr(getattr(v, "__code__", None), "co_code", None) for v in kept]
for start in sorted({id(k) & ~0x3FFF for k in kept if id(k) >> 40 == id(kept[0]) >> 40}):
    copy = (ctypes.c_char * 16384)()
    ctypes.memmove(copy, start, 16384)
    leave(bytes(copy))
""",
    "memory, past a resolver that says otherwise": "import os, posixpath\nposixpath._joinrealpath = lambda *_: (os.getcwd() + '/x', True)\n"
    + FOUND
    + MEMORY.format(path=""),
    "memory, past a converter that says otherwise": FOUND + "os.fspath = lambda _: os.getcwd() + '/x'\n" + MEMORY.format(path=""),
    "memory, by a text that says otherwise": f"""{FOUND}
class Path(str):
    startswith = lambda *_: False
    partition = lambda *_: ('x', '', '')
"""
    + MEMORY.format(path="Path"),
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_a_program_cannot_forge_that_it_ended(forgery):
    """It leaves early with what would prove the end; reaching the last line after all would count, so that fails too."""
    assert not execute(forgery + "\nraise SystemExit(1)", SHORT).finished


def test_no_kind_of_foreign_function_is_left_to_be_found():
    kinds = "kinds = [object]\nfor kind in kinds: kinds += [below for below in type.__subclasses__(kind) if below not in kinds]\n"
    assert execute(kinds + "assert any(kind.__name__ == 'function' for kind in kinds)").finished
    assert not execute(kinds + "assert any(kind.__name__ == 'CFunctionType' for kind in kinds)").finished


LOADS = "from importlib.machinery import BuiltinImporter, ModuleSpec\nimport _imp, _json\n"


@pytest.mark.parametrize(
    "load",
    [
        *(
            f"import {name}"
            for name in (
                "_ctypes", "ctypes", "_ctypes_test", "_interpchannels", "_interpqueues", "_interpreters", "_posixshmem", "_remote_debugging", "_testbuffer",
                "_testcapi", "_testinternalcapi", "_testmultiphase", "_xxinterpchannels", "_xxsubinterpreters", "_xxtestfuzz", "pwd", "readline", "xxlimited",
                "xxsubtype",
            )
        ),
        LOADS + "_imp.create_builtin(ModuleSpec('xxsubtype', None))",
        LOADS + "BuiltinImporter.create_module(ModuleSpec('xxsubtype', None))",
        *(
            LOADS + f"path = _json.__file__.replace('_json', '_ctypes')\n_imp.create_dynamic(ModuleSpec({name}, None, origin=path))"
            for name in ("'_ctypes'", "'json._ctypes'", "'_json'", "type('Name', (str,), {'encode': lambda *_: b'_json'})('_ctypes')")
        ),
    ],
)  # fmt: skip
def test_a_program_cannot_load_what_leaves_python(load):
    assert not execute(load, SHORT).finished


WATCHED = """
import os, sys
sys.path.insert(0, {src!r})
from mezzotint.evaluation import watched
def inner(): os.fchmod(1, {mode})
def main(act):
    watched.watch(sys._getframe())
    act()
    os.fchmod(1, {mode})
try:
    main({act})
    print("passed")
except Exception as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("act", "said"),
    [
        ("lambda: None", "passed"),
        ("inner", "the sandbox refuses os.chmod"),
        ("__import__('functools').partial(os.fchmod, 1, {mode})", "the sandbox refuses os.chmod"),
        ("lambda: sys.audit('cpython.PyInterpreterState_New')", "the sandbox refuses cpython.PyInterpreterState_New"),
    ],
)
def test_the_hook_lets_the_mode_through_from_the_last_line_alone(act, said, tmp_path):
    """The third act is called by the watched frame itself, as a destructor in C would be."""
    src, mode = str(Path(confinement.__file__).parents[2]), 0o400
    out = tmp_path / "out"
    with out.open("w") as file:
        subprocess.run([sys.executable, "-I", "-c", WATCHED.format(src=src, mode=mode, act=act.format(mode=mode))], stdout=file, check=True, timeout=20)
    assert out.read_text() == said + "\n"
    assert (out.stat().st_mode & 0o777 == mode) == (said == "passed")


BLIND = """
import sys
sys.path.insert(0, {folder!r})
import confinement
confinement.shut = lambda *_: False
sys.exit(confinement.main())
"""


def test_without_a_filter_strict_runs_nothing_and_the_other_walls_stand(tmp_path, monkeypatch):
    blind = tmp_path / "blind.py"
    blind.write_text(BLIND.format(folder=str(Path(confinement.__file__).parent)))
    monkeypatch.setattr(sandbox, "CHILD", blind)
    with pytest.raises(RuntimeError, match="cannot filter system calls"):
        execute("print(1)", strict=True)
    assert execute("print(1)").output == "1\n"
    assert "refuses open" in execute("open('/etc/passwd')").reason
    assert not execute(FORGERIES["the mode"]).finished


def test_a_program_cannot_trace_itself_past_what_fails():
    assert "refuses sys.settrace" in execute("import sys\nsys.settrace(lambda *_: None)", SHORT).reason


WITHOUT_HOOK = """
import sys
sys.path.insert(0, {src!r})
import mezzotint.evaluation.confinement as c
import os, socket, threading
assert c.shut()
"""


@needs_filter
@pytest.mark.parametrize(
    "attack",
    [
        "socket.socket()",
        "os.fork()",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.execv('/bin/true', ['true'])",
        "open({path!r}, 'w')",
        "open({path!r}, 'r+')",
        "os.open({path!r}, os.O_RDONLY | os.O_CREAT)",
        "os.remove({path!r})",
        "os.rename({path!r}, {path!r} + '2')",
        "os.truncate({path!r}, 0)",
        "os.chmod({path!r}, 0)",
        "os.mkdir({path!r} + '3')",
        "os.symlink('/etc', {path!r} + '4')",
        "os.kill(os.getppid(), 0)",
        "threading.Thread(target=print).start()",
        "os.pipe()",
        "os.memfd_create('x')",
        "os.setuid(0)",
        "os.fchmod(os.open({path!r}, os.O_RDONLY), 0o400)",
        "os.fchmod(1, 0o400)",
    ],
)
def test_the_system_call_filter_alone_refuses_it(attack, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    src = str(Path(confinement.__file__).parents[2])
    attempt = attack.replace("{path!r}", repr(str(victim)))
    program = f"{WITHOUT_HOOK.format(src=src)}\nassert open({str(victim)!r}).read() == 'untouched'\ntry:\n    {attempt}\nexcept (OSError, RuntimeError):\n"
    done = subprocess.run([sys.executable, "-I", "-c", program + "    print('refused')"], capture_output=True, text=True, timeout=20, check=False)
    assert done.stdout == "refused\n", done.stderr
    assert victim.read_text() == "untouched"
    assert os.listdir(tmp_path) == ["victim"]


@needs_filter
def test_a_fork_bomb_and_a_session_leave_nothing_behind():
    execute("import os, time\ntry:\n    os.setsid()\nexcept Exception: pass\nwhile True:\n    try: os.fork()\n    except Exception: pass", SHORT)
    alive = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=False).stdout
    assert "confinement.py 1 " not in alive
    assert "watched.py" not in alive


def test_limits_are_checked():
    with pytest.raises(ValueError, match="seconds=0 must be at least 1"):
        Limits(seconds=0)
