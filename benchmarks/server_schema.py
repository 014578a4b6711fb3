"""Constrained requests against a server of its own: schemas made at random (nested objects, arrays, enums, numbers, strings with lengths and formats), regular
expressions and choices, at several temperatures and recipes. Every answer must parse and match.

python benchmarks/server_schema.py --json
"""

import argparse
import asyncio
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import httpx
import jsonschema
from machine import stamp

WORDS = "name count city unit price tags open note level kind size owner date score items".split()
REGEXES = (
    r"[A-Z]{3}-[0-9]{4}",
    r"(yes|no), because [a-z ]{5,30}\.",
    r"\+[0-9]{1,3} [0-9]{3} [0-9]{4,6}",
    r"#[0-9a-f]{6}",
    r"[a-z]+@[a-z]+\.(org|com|net)",
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]",
    r"(é|ü|☕){1,4}",
)
QUESTIONS = (
    "Start a 5 minute timer for tea.",
    "How often does fox occur? fox tiger fox",
    "What is the weather in Oslo?",
    "Copy these words: amber coral lantern",
)
RECIPES = (
    {"recipe": "threshold", "gen_length": 32, "block_length": 16},
    {"recipe": "dual", "gen_length": 16, "block_length": 8},
    {"recipe": "prefix", "gen_length": 32, "block_length": 8, "suffix": "dpad:window=32"},
)


def leaf(rng: random.Random) -> dict[str, Any]:
    return rng.choice(
        (
            {"type": "integer"},
            {"type": "number"},
            {"type": "boolean"},
            {"type": ["integer", "null"]},
            {"enum": rng.sample(WORDS, 3)},
            {"enum": [1, "two", None, False]},
            {"const": rng.choice(WORDS)},
            {"type": "string", "maxLength": rng.choice((4, 12, 20))},
            {"type": "string", "minLength": 2, "maxLength": 8},
            {"type": "string", "format": rng.choice(("date", "time", "uuid"))},
        )
    )


def schema(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    """An object of two or three properties, at most three deep; some are optional."""
    properties: dict[str, Any] = {}
    for name in rng.sample(WORDS, rng.choice((2, 3))):
        shape = rng.random()
        if shape < 0.25 and depth < 2:
            properties[name] = schema(rng, depth + 1)
        elif shape < 0.45:
            properties[name] = {"type": "array", "items": leaf(rng), "maxItems": rng.choice((1, 2))}
        elif shape < 0.55:
            properties[name] = {"anyOf": [leaf(rng), leaf(rng)]}
        else:
            properties[name] = leaf(rng)
    required = [name for name in properties if rng.random() < 0.8] or list(properties)
    return {"type": "object", "properties": properties, "required": required}


def formats(rng: random.Random, count: int) -> list[dict[str, Any]]:
    """Two thirds schemas, the rest expressions and choices."""
    found = []
    for index in range(count):
        if index % 3 < 2:
            found.append({"type": "json_schema", "json_schema": {"name": f"schema{index}", "schema": schema(rng), "strict": True}})
        elif index % 2:
            found.append({"type": "regex", "regex": REGEXES[index // 3 % len(REGEXES)]})
        else:
            found.append({"type": "choice", "choices": [*rng.sample(WORDS, 4), "no (really)", "a\\b", 'say "so"']})
    return found


def matches(text: str, wanted: dict[str, Any]) -> bool:
    if wanted["type"] == "choice":
        return text in wanted["choices"]
    if wanted["type"] == "regex":
        return re.fullmatch(wanted["regex"], text) is not None
    try:
        jsonschema.validate(json.loads(text), wanted["json_schema"]["schema"], format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    except (json.JSONDecodeError, jsonschema.ValidationError):
        return False
    return True


async def ask_all(url: str, requests: int, grammars: int, clients: int) -> dict[str, Any]:
    rng = random.Random(0)
    wanted = formats(rng, grammars)
    numbers = iter(range(requests))
    statuses: Counter[int] = Counter()
    wrong: list[Any] = []
    parsed = 0

    async def client(http: httpx.AsyncClient) -> None:
        nonlocal parsed
        for number in numbers:
            format = wanted[number * grammars // requests]
            body = {
                "messages": [{"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}],
                "response_format": format,
                "max_tokens": 160,
                "seed": number,
                "temperature": (0.0, 0.7, 1.3)[number % 3],
                "diffusion": RECIPES[number % len(RECIPES)],
            }
            found = await http.post("/v1/chat/completions", json=body)
            while found.status_code == 429:
                await asyncio.sleep(float(found.headers["retry-after"]))
                found = await http.post("/v1/chat/completions", json=body)
            statuses[found.status_code] += 1
            text = found.json()["choices"][0]["message"]["content"] if found.status_code == 200 else found.text
            if found.status_code == 200 and matches(text, format):
                parsed += 1
            else:
                wrong.append({"number": number, "format": format, "answer": text[:300]})

    async with httpx.AsyncClient(base_url=url, timeout=600) as http:
        await asyncio.gather(*(client(http) for _ in range(clients)))
    kinds = Counter(wanted[number * grammars // requests]["type"] for number in range(requests))
    return {"requests": requests, "parsed": parsed, "kinds": kinds, "grammars": grammars, "statuses": statuses, "wrong": wrong[:5]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--grammars", type=int, default=60, help="different schemas, expressions and lists of choices")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="50 requests, 12 grammars")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    requests, grammars = (50, 12) if args.quick else (args.requests, args.grammars)
    server = subprocess.Popen([sys.executable, "-m", "mezzotint", "serve", "--port", "0", "--json"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        url = json.loads(server.stdout.readline())["url"]
        begun = time.monotonic()
        found = asyncio.run(ask_all(url, requests, grammars, args.clients))
        seconds = time.monotonic() - begun
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(60)
    print(json.dumps(found | {"seconds": seconds, "exit_code": code, **stamp()}))
    if found["parsed"] != requests:
        sys.exit(1)


if __name__ == "__main__":
    main()
