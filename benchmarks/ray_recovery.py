"""kill -9 of Ray replicas under load: what a batch loses (nothing), and how long a server takes to answer again by itself. Needs the extra `ray`.

python benchmarks/ray_recovery.py --json

Runs the real commands (`generate --input --ray`, `serve --ray`) on a cluster of this machine and kills their worker processes.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from machine import stamp

PATIENCE = 900.0
"""Seconds for anything that must happen at last."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--lines", type=int, default=400, help="questions of the batch (default: 400)")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--kills", type=int, default=3, help="processes killed, in the batch and in the server each (default: 3)")
    parser.add_argument("--clients", type=int, default=8, help="clients of the server, each asking all the time (default: 8)")
    parser.add_argument("--quick", action="store_true", help="40 lines, one kill, one replica")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    if args.quick:
        args.lines, args.kills, args.replicas = 40, 1, 1
    with tempfile.TemporaryDirectory() as folder:
        found = {"batch": batch(args, Path(folder)), "server": server(args)}
    print(json.dumps({"lines": args.lines, "replicas": args.replicas, "kills": args.kills, **found, **stamp()}))
    return 0 if found["batch"]["lost"] == found["batch"]["doubled"] == found["batch"]["different"] == found["server"]["never_answered"] == 0 else 1


def command(args: argparse.Namespace, *words: str) -> list[str]:
    return [sys.executable, "-m", "mezzotint", *words, *(("--model", args.model) if args.model else ())]


def below(root: int, title: str) -> list[int]:
    """Processes under `root` whose title begins so."""
    parents, titles = {}, {}
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError, IndexError):
            pid = int(status.parent.name)
            parents[pid] = int(status.read_text().split("PPid:")[1].split()[0])
            titles[pid] = (status.parent / "cmdline").read_bytes().decode(errors="replace")

    def under(pid: int) -> bool:
        while pid in parents and pid != root:
            pid = parents[pid]
        return pid == root

    return [pid for pid, text in titles.items() if text.startswith(title) and under(pid)]


def rows(path: Path) -> list[dict]:
    """The whole lines of a file."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def batch(args: argparse.Namespace, folder: Path) -> dict:
    """The same lines with kills and, afterwards, without Ray."""
    source, killed, plain = folder / "in.jsonl", folder / "killed.jsonl", folder / "plain.jsonl"
    source.write_text("".join(json.dumps({"id": f"q{i}", "prompt": f"Copy these words: amber coral {i}"}) + "\n" for i in range(args.lines)))
    recipe = ("--gen-length", "64", "--block-length", "16", "--running", "4", "--json")
    words = command(args, "generate", "--input", str(source), "--output", str(killed), "--ray", "--replicas", str(args.replicas), *recipe)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kills, arrivals = [], []
    while process.poll() is None:
        count = len(rows(killed))
        arrivals += [time.monotonic()] * (count - len(arrivals))
        if len(kills) < args.kills and count > args.lines * (len(kills) + 1) / (args.kills + 2) and (workers := below(process.pid, "ray::MapWorker")):
            os.kill(workers[0], signal.SIGKILL)
            kills.append(time.monotonic())
        time.sleep(0.05)
    subprocess.run(command(args, "generate", "--input", str(source), "--output", str(plain), *recipe), check=True, capture_output=True)
    ids = [row["id"] for row in rows(killed)]
    expected = {row["id"]: row["text"] for row in rows(plain)}
    return {
        "exit_code": process.returncode,
        "killed": len(kills),
        "lost": len(expected.keys() - set(ids)),
        "doubled": len(ids) - len(set(ids)),
        "different": sum(row["text"] != expected[row["id"]] for row in rows(killed)),
        "longest_pause_seconds": max((b - a for a, b in zip(arrivals, arrivals[1:], strict=False)), default=None),
    }


class Clients:
    """Threads that ask all the time, each item again until it is answered."""

    def __init__(self, url: str, count: int):
        self.url, self.ending = url, False
        self.answered: list[tuple[float, float]] = []
        self.failures: list[float] = []
        self.never = 0
        self.threads = [threading.Thread(target=self.ask, args=(i,)) for i in range(count)]

    def ask(self, number: int) -> None:
        with httpx.Client(timeout=120) as client:
            while not self.ending:
                begun, until = time.monotonic(), time.monotonic() + PATIENCE
                while not self.once(client, number) and time.monotonic() < until:
                    self.failures.append(time.monotonic())
                    time.sleep(0.2)
                self.never += time.monotonic() >= until
                self.answered.append((begun, time.monotonic()))

    def once(self, client: httpx.Client, number: int) -> bool:
        body = {"messages": [{"role": "user", "content": f"Copy these words: amber coral {number}"}], "max_tokens": 16}
        with contextlib.suppress(httpx.HTTPError):
            return client.post(self.url + "/v1/chat/completions", json=body).status_code == 200
        return False


@contextlib.contextmanager
def serving(args: argparse.Namespace) -> Iterator[tuple[str, int]]:
    words = command(args, "serve", "--ray", "--replicas", str(args.replicas), "--port", "0", "--recipe", "threshold", "--json")
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(next(line for line in process.stdout if line.startswith("{")))["url"], process.pid
    finally:
        process.terminate()
        process.wait(120)


def server(args: argparse.Namespace) -> dict:
    """Seconds from each kill to the first answer to a request that was made after it, and to all replicas being there again."""
    title = "ray::ServeReplica"
    with serving(args) as (url, pid):
        clients = Clients(url, args.clients)
        for thread in clients.threads:
            thread.start()
        again, whole, kills = [], [], 0
        time.sleep(5)
        while kills < args.kills:
            victim = below(pid, title)[0]
            os.kill(victim, signal.SIGKILL)
            kills, at = kills + 1, time.monotonic()
            again.append(wait(lambda at=at: next((end - at for begun, end in list(clients.answered) if begun > at), None)))
            whole.append(wait(lambda at=at, victim=victim: len(set(below(pid, title)) - {victim}) >= args.replicas and time.monotonic() - at))
            time.sleep(5)
        clients.ending = True
        for thread in clients.threads:
            thread.join()
        seconds = sorted(end - begun for begun, end in clients.answered)
    return {
        "killed": kills,
        "seconds_to_next_answer": again,
        "seconds_to_all_replicas": whole,
        "answered": len(seconds),
        "failed_and_asked_again": len(clients.failures),
        "never_answered": clients.never,
        "median_seconds": statistics.median(seconds),
    }


def wait(what):
    """The first true value of what()."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.05)
    raise TimeoutError(f"nothing after {PATIENCE:g} s")


if __name__ == "__main__":
    sys.exit(main())
