"""Many clients against a server of its own: streaming, leaving early, reading slowly, sending too much or nonsense. Nothing may crash, leak or stay open.

Every client sends request after request of a random kind until the time is over. An accepted request must be answered whole, or end with an error event;
what the server refuses must be refused with the right status and a message. The server's memory and open files are watched throughout.

python benchmarks/server_load.py --clients 500 --seconds 240 --json
"""

import argparse
import asyncio
import json
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
from machine import stamp

KINDS = ("stream", "stream", "stream", "whole", "leave", "slow", "grammar", "oversized", "malformed", "nonsense", "infill")
QUESTION = [{"role": "user", "content": "Copy these words: amber coral lantern"}]
SCHEMA = {"type": "object", "properties": {"name": {"enum": ["a", "b"]}, "count": {"type": "integer"}}, "required": ["name", "count"]}


class Load:
    """What the clients did and what became of it."""

    def __init__(self, url: str, until: float, seed: int):
        self.url, self.until, self.random = url, until, random.Random(seed)
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.first: list[float] = []
        self.total: list[float] = []

    async def client(self, number: int) -> None:
        """One client: request after request, of random kinds, until the time is over."""
        async with httpx.AsyncClient(base_url=self.url, timeout=httpx.Timeout(600, connect=60), verify=False) as http:
            while time.monotonic() < self.until:
                kind = self.random.choice(KINDS)
                try:
                    status = await getattr(self, kind)(http)
                    self.outcomes[f"{kind} {status}"] += 1
                    if status == 429:
                        await asyncio.sleep(self.random.random() * 2)
                except Exception as error:
                    self.wrong.append(f"{kind}: {type(error).__name__}: {error}"[:200])

    def body(self, **rest) -> dict:
        recipe = self.random.choice(("threshold", "dual", "prefix", "plain"))
        return {"messages": QUESTION, "seed": self.random.randrange(1000), "diffusion": {"recipe": recipe, "gen_length": 32}} | rest

    async def stream(self, http: httpx.AsyncClient, pause: float = 0.0, leave: bool = False) -> int:
        begun = time.monotonic()
        async with http.stream("POST", "/v1/chat/completions", json=self.body(stream=True)) as found:
            if found.status_code != 200:
                return found.status_code
            lines = []
            async for line in found.aiter_lines():
                if line and not lines:
                    self.first.append(time.monotonic() - begun)
                lines.append(line)
                await asyncio.sleep(pause)
                if leave and len(lines) > 2:
                    return 200
        if "data: [DONE]" not in lines:
            if not any('"error"' in line for line in lines):
                raise RuntimeError("the stream ended without saying so")
            self.outcomes["streams that ended with an error event"] += 1
        elif not pause:
            self.total.append(time.monotonic() - begun)
        return 200

    async def leave(self, http: httpx.AsyncClient) -> int:
        return await self.stream(http, leave=True)

    async def slow(self, http: httpx.AsyncClient) -> int:
        return await self.stream(http, pause=0.5)

    async def post(self, http: httpx.AsyncClient, path: str, **rest) -> httpx.Response:
        return await http.post(path, **rest)

    async def whole(self, http: httpx.AsyncClient) -> int:
        begun = time.monotonic()
        found = await self.post(http, "/v1/chat/completions", json=self.body())
        if found.status_code == 200:
            assert found.json()["choices"][0]["finish_reason"] in ("stop", "length")
            self.total.append(time.monotonic() - begun)
        return found.status_code

    async def grammar(self, http: httpx.AsyncClient) -> int:
        found = await self.post(http, "/v1/chat/completions", json=self.body(response_format={"type": "json_schema", "json_schema": {"schema": SCHEMA}}))
        if found.status_code == 200:
            answer = json.loads(found.json()["choices"][0]["message"]["content"])
            assert answer["name"] in ("a", "b"), answer
            assert isinstance(answer["count"], int), answer
        return found.status_code

    async def infill(self, http: httpx.AsyncClient) -> int:
        return (await self.post(http, "/infill", json={"text": "def add(a, b):\n    return [[3]]\n"})).status_code

    async def refused(self, http: httpx.AsyncClient, status: int, **rest) -> int:
        found = await self.post(http, "/v1/chat/completions", **rest)
        assert found.status_code == status, found.text
        assert found.json()["error"]["message"]
        return found.status_code

    async def oversized(self, http: httpx.AsyncClient) -> int:
        try:
            return await self.refused(http, 413, content=b" " * (2**20 + 1), headers={"content-type": "application/json"})
        except httpx.TransportError:
            return 413  # the server hung up before all was sent

    async def malformed(self, http: httpx.AsyncClient) -> int:
        return await self.refused(http, 400, content=self.random.randbytes(200), headers={"content-type": "application/json"})

    async def nonsense(self, http: httpx.AsyncClient) -> int:
        change = self.random.choice(({"max_tokens": -1}, {"tools": [1]}, {"diffusion": {"recipe": "x"}}, {"messages": 3}, {"n": 10**9}))
        return await self.refused(http, 400, json=self.body() | change)


def resident(pid: int) -> int:
    """Bytes of memory the process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def flat(memory: list[int]) -> dict[str, float]:
    """Mebibytes over time, and by what share the last quarter's mean exceeds the second's: the first quarter is warming up."""
    quarter = max(1, len(memory) // 4)
    second, last = statistics.mean(memory[quarter : 2 * quarter] or memory), statistics.mean(memory[-quarter:])
    return {
        "start": memory[0] / 2**20,
        "second_quarter": second / 2**20,
        "last_quarter": last / 2**20,
        "most": max(memory) / 2**20,
        "growth": last / second - 1,
    }


async def attack(url: str, pid: int, clients: int, seconds: float) -> tuple[Load, list[int], list[int]]:
    """What became of it; memory over time; open files before, at most and after."""
    load = Load(url, time.monotonic() + seconds, 0)
    memory: list[int] = []
    files = [open_files(pid)]

    async def watch() -> None:
        while True:
            memory.append(resident(pid))
            files.append(open_files(pid))
            await asyncio.sleep(max(0.5, seconds / 120))

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(load.client(i) for i in range(clients)))
    watching.cancel()
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        for _ in range(100):
            values = dict(line.rsplit(" ", 1) for line in (await http.get("/metrics")).text.splitlines() if not line.startswith("#"))
            if float(values["mezzotint_running"]) == float(values["mezzotint_waiting"]) == 0:
                break
            await asyncio.sleep(0.2)
        else:
            load.wrong.append("requests were left in the engine")
    await asyncio.sleep(1)
    return load, memory, [files[0], max(files), open_files(pid)]


def percentiles(values: list[float]) -> dict[str, float]:
    if len(values) < 2:
        return {}
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": cuts[49], "p90": cuts[89], "p99": cuts[98], "most": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--quick", action="store_true", help="20 clients for 15 s")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    clients, seconds = (20, 15.0) if args.quick else (args.clients, args.seconds)
    command = [sys.executable, "-m", "mezzotint", "serve", "--port", "0", "--json", "--running", "32", "--waiting", "256"]
    begun = time.monotonic()
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    about = json.loads(server.stdout.readline())
    httpx.post(about["url"] + "/v1/chat/completions", json={"messages": QUESTION, "diffusion": {"gen_length": 32}}, timeout=120).raise_for_status()
    cold = time.monotonic() - begun
    try:
        load, memory, files = asyncio.run(attack(about["url"], about["pid"], clients, seconds))
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(60)
    print(
        json.dumps(
            {
                "clients": clients,
                "seconds": seconds,
                "first_answer_from_cold_seconds": cold,
                "requests": sum(load.outcomes.values()),
                "outcomes": dict(sorted(load.outcomes.items())),
                "wrong": len(load.wrong),
                "wrong_examples": load.wrong[:5],
                "seconds_to_first_event": percentiles(load.first),
                "seconds_to_end": percentiles(load.total),
                "memory_mib": flat(memory),
                "open_files": dict(zip(("before", "most", "after"), files, strict=True)),
                "exit_code": code,
                **stamp(),
            }
        )
    )
    if load.wrong or code:
        sys.exit(1)


if __name__ == "__main__":
    main()
