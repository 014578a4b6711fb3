"""The sandbox for generated code: what it must refuse, one program each, and each wall alone."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mezzotint.evaluation import confinement
from mezzotint.evaluation.sandbox import Limits, execute, filtered, run

SHORT = Limits(seconds=1, memory=256 * 1024 * 1024, output=100_000)

needs_filter = pytest.mark.skipif(not filtered(), reason="this kernel cannot filter system calls")


def test_a_program_computes_with_the_standard_library():
    program = "import math, random, re, json, collections, heapq, hashlib, datetime\nprint(math.prod([2, 3]), hashlib.md5(b'x').hexdigest()[:4])"
    assert run(program) == "6 9dd4\n"
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
        ("import ctypes; ctypes.CDLL(None)", "refuses ctypes"),
        ("import sys; sys.exit(0)", "before its end"),
        ("import os; os._exit(0)", "before its end"),
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


FORGED = """
import os, re, sys
{search}
for word in re.findall("[0-9a-f]{{32}}", repr(seen)):
    os.write(1, ("\\n" + word).encode())
    os._exit(0)
"""
MEMORY = """
import io
pages, files = {path}("/proc/self/maps"), {path}("/proc/self/mem")
mapped = io.FileIO(os.open(pages, 0)).readall().decode()
memory, seen = os.open(files, 0), []
for start, end in re.findall("(?m)^([0-9a-f]+)-([0-9a-f]+) rw", mapped):
    try:
        held = os.pread(memory, int(end, 16) - int(start, 16), int(start, 16))
    except (OSError, OverflowError):
        continue
    seen += re.findall(rb"\\n([0-9a-f]{{32}})\\0", held)
"""
SEARCHES = {
    "frames": "seen, frame = [], sys._getframe()\nwhile frame: seen, frame = seen + [dict(frame.f_locals)], frame.f_back",
    "objects": "import gc\nseen = gc.get_objects()",
    "stack": "import gc\nseen = gc.get_referents(sys._getframe(1), sys._getframe(2))",
    "input": "seen = [os.read(0, 1000), sys.stdin.read()]",
    "arguments": "seen = [sys.argv, sys.orig_argv, dict(os.environ)]",
    "memory, past a resolver that says otherwise": "import posixpath\nposixpath._joinrealpath = lambda *_: (os.getcwd() + '/x', True)" + MEMORY.format(path=""),
    "memory, past a converter that says otherwise": "os.fspath = lambda _: os.getcwd() + '/x'" + MEMORY.format(path=""),
    "memory, by a text that says otherwise": """
class Path(str):
    startswith = lambda *_: False
    partition = lambda *_: ('x', '', '')
"""
    + MEMORY.format(path="Path"),
}


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_a_program_cannot_find_the_proof_that_it_ended(search):
    """It leaves early with whatever looks like the proof; reaching the last line after all would count, so that fails too."""
    assert not execute(FORGED.format(search=search) + "raise SystemExit(1)", SHORT).finished


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


def test_limits_are_checked():
    with pytest.raises(ValueError, match="seconds=0 must be at least 1"):
        Limits(seconds=0)
